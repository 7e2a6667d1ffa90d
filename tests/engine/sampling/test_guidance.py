"""What guides do, against the identities and the golden numbers of the papers that have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.classifier_guidance import LogProbGradient, classifier_guidance
from adbench.engine.sampling.continuous_batching import ChainBatch
from adbench.engine.sampling.guidance import classifier_free_guidance, image_conditioned_guidance
from adbench.engine.sampling.reconstruct import (
    SamplingConfig,
    ddim_invert,
    reconstruct,
    reverse_process,
)
from known import ConstantX0, NoiseField, NormalPosteriorMean, SmoothNetwork

KEYS = list("abc")
X = Rng(KEYS).fork("x").normal((2, 5, 4))
PROCESS = Gaussian(linear_schedule())


def slope_of(chance: Callable[[Tensor, ChainBatch], Tensor]) -> LogProbGradient:
    """Of a logarithm (x (B, C, *S), rows) -> (B,)."""

    def slope(x: Tensor, rows: ChainBatch) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            return torch.autograd.grad(chance(inner, rows).sum(), inner)[0]

    return slope


def denoiser_of(net: nn.Module, **more: Any) -> Denoiser:
    return Denoiser(net, linear_schedule(), **more).eval()


@pytest.mark.parametrize(("weight", "golden"), [(3.0, 0.2997), (11.0, 0.2989)])
def test_ddads_condition_on_a_point(weight: float, golden: float) -> None:
    """c + w 1e-4 (y - c), each row towards its own y, whatever the noise."""
    c, y = 0.3, torch.tensor([-0.7, 1.3, 0.3]).view(3, 1, 1, 1).expand(3, 2, 5, 4)
    denoiser = denoiser_of(ConstantX0(torch.full((2, 5, 4), c)), prediction_type="clean")
    out = reconstruct(
        denoiser,
        y,
        [250, 226],
        Rng(KEYS),
        sampling=SamplingConfig(stride=25),
        guide=image_conditioned_guidance(PROCESS, y, weight),
    )
    lean = weight * 1e-4 * (y - c)
    torch.testing.assert_close(out[1, :, 0], c + lean, rtol=0, atol=2e-5)
    assert out[1, 0].mean().item() == pytest.approx(golden, abs=5e-5)


def test_without_weight_a_condition_is_none() -> None:
    denoiser, chain = denoiser_of(SmoothNetwork()), SamplingConfig(steps=5)
    plain = reconstruct(denoiser, X, [200], Rng(KEYS), sampling=chain)
    guided = reconstruct(
        denoiser,
        X,
        [200],
        Rng(KEYS),
        sampling=chain,
        guide=image_conditioned_guidance(PROCESS, X, 0.0),
    )
    torch.testing.assert_close(plain, guided, rtol=1e-3, atol=1e-4)


def test_a_classifiers_gradient_moves_the_noise_to_the_class() -> None:
    """.8 -> .2 by the exact posterior of a mixture of two normal laws."""
    mean, deviation, prior, level = (0.2, 0.8), 0.1, 0.4, 500
    schedule = linear_schedule()

    def logits(x: Tensor, at: Tensor) -> Tensor:
        alpha_bar = schedule.alpha_bar[at].view(-1, 1, 1, 1)
        wide = alpha_bar * deviation**2 + 1 - alpha_bar
        each = [-((x - alpha_bar.sqrt() * m) ** 2) / (2 * wide) for m in mean]
        return torch.stack([each[0] + math.log(prior), each[1] + math.log(1 - prior)])

    class Mixture(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            alpha_bar = schedule.alpha_bar[t + 1].view(-1, 1, 1, 1)
            gain = alpha_bar.sqrt() * deviation**2 / (alpha_bar * deviation**2 + 1 - alpha_bar)
            share = logits(x.double(), t + 1).softmax(0)
            clean = [m + gain * (x - alpha_bar.sqrt() * m) for m in mean]
            return (share[0] * clean[0] + share[1] * clean[1]).to(x.dtype)

    def healthy(x: Tensor, rows: ChainBatch) -> Tensor:
        return logits(x.double(), rows.network_level).log_softmax(0)[0].flatten(1).sum(1)

    denoiser = Denoiser(Mixture(), schedule, prediction_type="clean").eval()
    x = 0.8 + deviation * Rng(["a"]).normal((1, 24, 24))
    coded = ddim_invert(denoiser, x, [level], sampling=SamplingConfig(stride=2))[0]
    for scale, golden in ((0.0, 0.806), (0.5, 0.436), (1.0, 0.272), (2.0, 0.180)):
        out = reverse_process(
            denoiser,
            coded,
            [sampling_levels(level, stride=2)],
            Rng(["a"]),
            sampling=SamplingConfig(sampler="ddim"),
            guide=classifier_guidance(PROCESS, slope_of(healthy), scale),
        )
        assert out.mean().item() == pytest.approx(golden, abs=0.025)
        assert torch.corrcoef(torch.stack([x.flatten(), out.flatten()]))[0, 1] > 0.95


def test_the_identities_of_ddads_condition() -> None:
    """x_0 moves by w (1 - kept) of its way to y, for any w, level and eta."""
    level, y = torch.tensor([1, 250, 999]), Rng(KEYS).fork("y").normal((2, 5, 4))
    index = torch.arange(3)
    rows = ChainBatch(index, index, index, level, level, level - 1, [])
    eps = Rng(KEYS).fork("eps").normal((2, 5, 4)).double()
    x = X.double()
    clean = PROCESS.x0_from_noise(x, eps, level)
    for weight in (0.0, 1.0, 7.5):
        noise, moved = image_conditioned_guidance(PROCESS, y.double(), weight)(x, eps, clean, rows)
        lost = (1 - linear_schedule().alpha_bar[level]).view(3, 1, 1, 1)
        torch.testing.assert_close(moved, clean + weight * lost * (y - clean))
        torch.testing.assert_close(PROCESS.add_noise(moved, level, noise), x)
        a, b = (linear_schedule().alpha_bar[at].view(3, 1, 1, 1) for at in (level, level - 1))
        plain = PROCESS.reverse_step(clean, eps, level, level - 1, None)
        guided = PROCESS.reverse_step(moved, noise, level, level - 1, None)
        gain = weight * (b - a) / b.sqrt() * (y - clean)
        torch.testing.assert_close(guided, plain + gain, rtol=1e-6, atol=1e-6)


def ddad_mean(weight: float, variance: float) -> float:
    """The reference's chain: noised to level 251, its first call at level 226."""
    denoiser = denoiser_of(
        NormalPosteriorMean(linear_schedule(), 0.0, variance), prediction_type="clean"
    )
    y = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    start = linear_schedule().alpha_bar[251].sqrt() * y
    out = reverse_process(
        denoiser, start, [sampling_levels(226, stride=25)], Rng(["a"]),
        noise=lambda rng, shape, level: torch.zeros(len(rng), *shape, dtype=torch.float64),
        guide=image_conditioned_guidance(PROCESS, y, weight),
    )  # fmt: skip
    return out.item()


@pytest.mark.parametrize(
    ("variance", "golden"),
    [(0.01, (0.0133, 0.0608, 0.1501, 0.2321, 0.3072, 0.3759, 0.4388)),
     (0.05, (0.0629, 0.1786, 0.3730, 0.5257, 0.6448, 0.7368, 0.8071))],
)  # fmt: skip
def test_ddads_trade_of_removal_for_fidelity(variance: float, golden: tuple[float, ...]) -> None:
    """The mean that y = 1 becomes, by weight."""
    for weight, mean in zip((0, 1, 3, 5, 7, 9, 11), golden, strict=True):
        assert ddad_mean(weight, variance) == pytest.approx(mean, abs=2e-4)


class ConditioningAsNoise(nn.Module):
    """Predicts the conditioning as the noise, everywhere."""

    def forward(self, x: Tensor, t: Tensor, value: Tensor) -> Tensor:
        return value.view(-1, 1, 1, 1).expand_as(x).clone()


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_classifier_free_guidance_goes_on_from_the_null_condition(weight: float) -> None:
    """Constant answers a (null) and b mix to a + w (b - a): the way of that constant noise."""
    null, healthy = torch.tensor([0.1, -0.2, 0.0]), torch.tensor([0.4, 0.3, 0.0])
    denoiser = denoiser_of(ConditioningAsNoise())
    denoiser.batch = 2
    chain = SamplingConfig(steps=6, sampler="ddim")
    guide = classifier_free_guidance(denoiser, (healthy,), weight)
    out = reconstruct(
        denoiser, X, [200, 40], Rng(KEYS), sampling=chain, guide=guide, conditioning=(null,)
    )
    assert denoiser.evaluations == 2 * 2 * 3 * 6
    mixed = null + weight * (healthy - null)
    for i, value in enumerate(mixed.tolist()):
        plain = denoiser_of(NoiseField(torch.full((2, 5, 4), value)))
        alone = reconstruct(plain, X[i : i + 1], [200, 40], Rng(KEYS[i : i + 1]), sampling=chain)
        torch.testing.assert_close(out[:, i], alone[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("healthy", [False, True])
def test_harmonising_keeps_what_is_normal(healthy: bool) -> None:
    """THOR's blend in the hook: nothing anomalous (R = 0) gives the sample back,
    all of it (R = 1) is plain sampling."""
    anomalous = torch.full((3, 1, 5, 4), float(not healthy))

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
        region = rows.per_chain(anomalous)
        clean = region * clean + (1 - region) * rows.per_chain(X)
        return PROCESS.noise_from_x0(x, clean, rows.network_level), clean

    denoiser, chain = (
        denoiser_of(ConstantX0(torch.zeros(2, 5, 4)), prediction_type="clean"),
        SamplingConfig(steps=7),
    )
    out = reconstruct(denoiser, X, [350], Rng(KEYS), sampling=chain, guide=guide)[0, :, 0]
    torch.testing.assert_close(out, X if healthy else 0 * X, rtol=0, atol=1e-4)


def mixture(x: Tensor, level: Tensor) -> Tensor:
    """Logarithms of two classes' chances of x at a level, apart from what they share."""
    alpha_bar = linear_schedule().alpha_bar[level].view(-1, 1, 1, 1)
    wide = alpha_bar * 0.01 + 1 - alpha_bar
    return torch.stack([-((x - alpha_bar.sqrt() * mean) ** 2) / (2 * wide) for mean in (0.2, 0.8)])


@pytest.mark.parametrize("level", [1, 50, 500, 1000])
def test_guidance_by_the_exact_classifier_is_the_class_by_itself(level: int) -> None:
    """eps - sigma times the gradient of log p(h | x) is the class's own eps."""
    at, x = torch.full((3,), level), X.double()
    index = torch.arange(3)
    rows = ChainBatch(index, index, index, at, at, at - 1, [])
    alpha_bar = linear_schedule().alpha_bar[at].view(-1, 1, 1, 1)
    share = mixture(x, at).softmax(0)
    each = [
        (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * m) / (alpha_bar * 0.01 + 1 - alpha_bar)
        for m in (0.2, 0.8)
    ]
    eps = share[0] * each[0] + share[1] * each[1]

    def chance(x: Tensor, rows: ChainBatch) -> Tensor:
        return mixture(x, rows.network_level).log_softmax(0)[0].flatten(1).sum(1)

    guide = classifier_guidance(PROCESS, slope_of(chance), 1.0)
    noise, clean = guide(x, eps, PROCESS.x0_from_noise(x, eps, at), rows)
    torch.testing.assert_close(PROCESS.x0_from_noise(x, noise, at), clean)
    torch.testing.assert_close(noise, each[0], rtol=1e-12, atol=1e-12)
