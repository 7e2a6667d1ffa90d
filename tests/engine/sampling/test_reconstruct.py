"""Samplers against denoisers that are known in closed form, and the promise about batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.noise.noise import Simplex, gaussian
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import SamplingConfig, predict_x0, reconstruct
from adbench.engine.sampling.repaint import inpaint
from known import (
    ConstantNoise,
    ConstantX0,
    ConvolutionalNetwork,
    NormalPosteriorMean,
    SmoothNetwork,
)

KEYS = [f"p{i}/z{i}" for i in range(6)]


def normal_denoiser(mean: float = 0.1, variance: float = 0.09) -> Denoiser:
    schedule = linear_schedule()
    return Denoiser(
        NormalPosteriorMean(schedule, mean, variance), schedule, prediction_type="clean"
    ).eval()


def oracle(image: Tensor) -> tuple[Denoiser, ConstantX0]:
    net = ConstantX0(image)
    return Denoiser(net, linear_schedule(), prediction_type="clean").eval(), net


@pytest.fixture(scope="module")
def network() -> Denoiser:
    return Denoiser(ConvolutionalNetwork(), linear_schedule(), clip=(-1, 1)).eval()


@pytest.fixture(scope="module")
def full_network() -> Denoiser:
    torch.manual_seed(0)
    net = build_unet(2, 1, (8, 16), res_blocks=1, attention=(False, True), head_channels=8)
    for p in net.parameters():  # nothing at zero, so that every part has a say
        torch.nn.init.normal_(p, std=0.05)
    return Denoiser(net, linear_schedule(), clip=(-1, 1)).eval()


@pytest.mark.parametrize(("level", "alpha_bar"), [(100, 0.439), (250, 0.090), (500, 0.008)])
def test_reconstructing_normal_data_keeps_its_distribution_and_forgets_as_it_should(
    level, alpha_bar
) -> None:
    """Mean and deviation stay, corr(x, restored) is rho squared."""
    denoiser, rng = normal_denoiser(), Rng([str(i) for i in range(40)])
    x = 0.1 + 0.3 * rng.fork("data").normal((1, 16, 16))
    out = reconstruct(denoiser, x, [level], rng)[0, :, 0]
    assert out.mean().item() == pytest.approx(0.1, abs=0.01)
    assert out.std().item() == pytest.approx(0.3, abs=0.01)
    both = torch.corrcoef(torch.stack([x.flatten(), out.flatten()]))
    assert both[0, 1].item() == pytest.approx(alpha_bar, abs=0.03)


@pytest.mark.parametrize("steps", [5, 20])
def test_fewer_steps_keep_the_distribution_too(steps: int) -> None:
    denoiser, rng = normal_denoiser(), Rng([str(i) for i in range(20)])
    x = 0.1 + 0.3 * rng.fork("data").normal((1, 16, 16))
    out = reconstruct(denoiser, x, [300], rng, sampling=SamplingConfig(steps=steps))[0, :, 0]
    assert denoiser.evaluations == 20 * steps
    assert out.mean().item() == pytest.approx(0.1, abs=0.02)
    assert 0.2 < out.std().item() < 0.32  # coarse ancestral steps lose a little variance


def test_level_zero_returns_the_sample() -> None:
    x = Rng(KEYS).normal((1, 8, 8))
    out = reconstruct(normal_denoiser(), x, [0, 1], Rng(KEYS))
    assert torch.equal(out[0, :, 0], x) and not torch.equal(out[1, :, 0], x)


@pytest.mark.parametrize(
    "chain",
    [
        SamplingConfig(),
        SamplingConfig(steps=7),
        SamplingConfig(eta=0.0),
        SamplingConfig(variance="large"),
    ],
)
def test_a_perfect_denoiser_gives_no_error(chain: SamplingConfig) -> None:
    x = Rng(KEYS).normal((2, 4, 4))
    image = Rng(["image"]).normal((2, 4, 4))
    denoiser, _ = oracle(image)
    out = reconstruct(denoiser, x, [50, 200], Rng(KEYS), sampling=chain)
    torch.testing.assert_close(out, image.expand_as(out), rtol=0, atol=1e-5)


def test_one_level_with_no_noise_predicted_is_x_over_the_signal() -> None:
    """At level 1 a zero network gives clamp(x_1 / signal)."""
    denoiser = Denoiser(ConstantNoise(0.0), linear_schedule(), clip=(-1, 1)).eval()
    rng, x = Rng(KEYS), 0.5 * Rng(KEYS).fork("x").normal((1, 4, 4))
    out = reconstruct(denoiser, x, [1], rng)[0, :, 0]
    alpha_bar = linear_schedule().alpha_bar[1]
    start = rng.fork("repeat", 0).fork("start").normal((1, 4, 4))
    x1 = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * start
    torch.testing.assert_close(
        out, (x1 / alpha_bar.sqrt()).clamp(-1, 1).float(), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=8)
@given(st.permutations(range(6)), st.integers(1, 6), st.integers(1, 7))
def test_a_sample_is_restored_alike_to_the_bit_in_any_company(network, order, count, batch) -> None:
    """Order, neighbours and number of images do not matter at one batch shape."""
    x = 0.3 * Rng(KEYS).fork("x").normal((1, 8, 8))
    chain, noise = SamplingConfig(steps=3, repeats=2), Simplex(octaves=2)
    network.batch = batch
    whole = reconstruct(network, x, [100, 300], Rng(KEYS), sampling=chain, noise=noise)
    some = list(order)[:count]
    names = Rng([KEYS[i] for i in some])
    part = reconstruct(network, x[some], [100, 300], names, sampling=chain, noise=noise)
    assert torch.equal(part, whole[:, some])


def test_a_whole_unet_too_restores_alike_in_any_company(full_network) -> None:
    x, chain = 0.3 * Rng(KEYS).fork("x").normal((1, 8, 8)), SamplingConfig(steps=2)
    full_network.batch = 4
    whole = reconstruct(full_network, x, [100, 300], Rng(KEYS), sampling=chain)
    part = reconstruct(full_network, x[[4, 1]], [300], Rng([KEYS[4], KEYS[1]]), sampling=chain)
    assert torch.equal(part[0], whole[1, [4, 1]])


def test_between_batch_shapes_only_the_last_digits_move(network) -> None:
    x = 0.3 * Rng(KEYS).fork("x").normal((1, 8, 8))
    outs = []
    for batch in (1, 4, 16):
        network.batch = batch
        outs.append(reconstruct(network, x, [200], Rng(KEYS), sampling=SamplingConfig(steps=4)))
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(outs[0], outs[2], rtol=0, atol=1e-5)


def test_a_sweep_equals_its_levels_one_by_one_to_the_bit(network) -> None:
    x = 0.3 * Rng(KEYS).fork("x").normal((1, 8, 8))
    network.batch = 5
    levels, chain = [60, 150, 300, 700], SamplingConfig(steps=5, repeats=2)
    sweep = reconstruct(network, x, levels, Rng(KEYS), sampling=chain)
    for i, level in enumerate(levels):
        alone = reconstruct(network, x, [level], Rng(KEYS), sampling=chain)
        assert torch.equal(alone[0], sweep[i])


def test_a_guide_sees_both_estimates_and_steers() -> None:
    x, target = Rng(KEYS).normal((1, 4, 4)), torch.tensor(0.7)

    def guide(x_t, eps, clean, level):
        return eps, torch.full_like(clean, 0.7)

    out = reconstruct(normal_denoiser(), x, [100], Rng(KEYS), guide=guide)
    torch.testing.assert_close(out, target.expand_as(out), rtol=0, atol=1e-5)


def test_an_estimate_adds_noise_to_its_region_only() -> None:
    """The context stays to the bit; a net that returns its input shows it."""

    class Echo(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    denoiser = Denoiser(Echo(), linear_schedule(), prediction_type="clean").eval()
    x = Rng(KEYS).normal((1, 6, 6))
    regions = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    regions[0, :, :3], regions[1, :, 3:] = True, True
    out = predict_x0(denoiser, x, [500], Rng(KEYS), regions=regions)[0, :, 0]  # (N, P, C, H, W)
    for p in range(2):
        inside = regions[p].expand(6, 1, 6, 6)
        assert torch.equal(out[:, p][~inside], x[~inside])
        assert not torch.equal(out[:, p][inside], x[inside])
    field = Rng(KEYS).fork("repeat", 0).fork("start").normal((1, 6, 6))
    alpha_bar = linear_schedule().alpha_bar[500].float()
    expected = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * field
    torch.testing.assert_close(torch.where(regions[0], out[:, 0], out[:, 1]), expected)


def test_inpainting_with_an_oracle_is_exact_and_asks_251_times() -> None:
    """Error < 1e-6 in the mask, 0 outside; levels 51 and 5 resamples."""
    image = Rng(["image"]).normal((1, 6, 6)).expand(3, -1, -1, -1)
    mask = torch.zeros(3, 1, 6, 6)
    mask[..., 2:4, 1:5] = 1
    denoiser, net = oracle(image[:1])
    denoiser.batch = 3
    start = Rng(["a", "b", "c"]).normal((1, 6, 6))
    out = inpaint(denoiser, start, image, mask, 51, Rng(list("abc")), resamples=5)
    assert net.calls == 251
    assert ((out - image) * mask).abs().max() < 1e-6
    assert torch.equal(out * (1 - mask), image * (1 - mask))


def test_the_reference_leaves_the_noise_of_level_one_in_the_mask() -> None:
    image = torch.zeros(1, 1, 64, 64)
    denoiser, net = oracle(image)
    denoiser.batch = 1
    out = inpaint(
        denoiser, image + 1, image, torch.ones(1, 1, 64, 64), 51, Rng(["a"]),
        resamples=5, shifted_renoise=True, skip_last_step=True,
    )  # fmt: skip
    assert net.calls == 250
    assert out.std().item() == pytest.approx(0.0092, abs=0.001)


@pytest.mark.parametrize("shifted", [False, True])
def test_inpainting_is_repaints_loop_by_hand(shifted: bool) -> None:
    """Algorithm 1, written out: fill, join, and noise up again but for the last time."""
    net, process, alpha_bar = (
        SmoothNetwork(),
        Gaussian(linear_schedule()),
        linear_schedule().alpha_bar.float(),
    )
    keys, level, resamples = list("ab"), 6, 3
    start, surroundings = Rng(keys).normal((1, 4, 4)), Rng(keys).fork("known").normal((1, 4, 4))
    m = torch.zeros(2, 1, 4, 4)
    m[..., 1:3, 2:] = 1

    def draw(purpose: str, again: int, at: int) -> Tensor:
        return Rng(keys).fork(purpose, again).at(at).normal((1, 4, 4))

    def noised(x: Tensor, at: int, eps: Tensor) -> Tensor:
        return alpha_bar[at].sqrt() * x + (1 - alpha_bar[at]).sqrt() * eps

    y = noised(start, level, draw("start", 0, level))
    for here in range(level, 0, -1):
        for again in range(resamples if here > 1 else 1):
            eps = net(y, torch.full((2,), here - 1))
            clean = (y - (1 - alpha_bar[here]).sqrt() * eps) / alpha_bar[here].sqrt()
            at, to = torch.full((2,), here), torch.full((2,), here - 1)
            filled = process.reverse_step(clean, eps, at, to, draw("region", again, here))
            rest = noised(surroundings, here - 1, draw("known", again, here))
            y = m * filled + (1 - m) * rest
            if here > 1 and again < resamples - 1:
                beta = 1 - alpha_bar[here - shifted] / alpha_bar[here - 1 - shifted]
                y = (1 - beta).sqrt() * y + beta.sqrt() * draw("again", again, here)
    denoiser = Denoiser(SmoothNetwork(), linear_schedule()).eval()
    out = inpaint(
        denoiser,
        start,
        surroundings,
        m,
        level,
        Rng(keys),
        resamples=resamples,
        shifted_renoise=shifted,
    )
    torch.testing.assert_close(out, y, rtol=1e-3, atol=1e-4)
    assert torch.equal(out * (1 - m), surroundings * (1 - m))


def test_an_empty_region_changes_nothing() -> None:
    image = Rng(["image"]).normal((1, 6, 6))
    denoiser, _ = oracle(image * 0)
    out = inpaint(denoiser, image, image, torch.zeros(1, 1, 6, 6), 20, Rng(["a"]))
    assert torch.equal(out, image)


def test_gaussian_is_the_default_noise() -> None:
    a = gaussian(Rng(["a"]), (1, 4, 4), torch.tensor([3]))
    assert torch.equal(a, Rng(["a"]).normal((1, 4, 4)))
