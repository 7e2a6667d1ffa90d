"""The Bernoulli process against Bayes' rule by enumeration, the reference's golden values, and an
oracle for bits that are independent of one another."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adbench.engine.diffusion.bernoulli import Bernoulli, uniform_noise
from adbench.engine.diffusion.denoiser import Denoiser, Mismatch
from adbench.engine.diffusion.schedule import even_schedule, linear_schedule
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.continuous_batching import ChainBatch, Guide
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct, reverse_process
from known import BernoulliPosterior, ConstantNoise

KEYS = list("abcd")


def at(level: int, rows: int = 1) -> Tensor:
    return torch.full((rows,), level)


def bits(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, -1)


@pytest.mark.parametrize(("t", "flipped"), [(0, 5e-5), (199, 0.17048), (999, 0.49998)])
def test_bits_of_either_kind_are_flipped_alike(t: int, flipped: float) -> None:
    """Which fails on the reference's erasure."""
    process, level = Bernoulli(linear_schedule()), at(t + 1)
    noise = uniform_noise(Rng(["a"]), (1, 500_000), level)
    for bit in (0.0, 1.0):
        out = process.add_noise(torch.full((1, 1, 500_000), bit), level, noise)
        assert set(out.unique().tolist()) <= {0.0, 1.0}
        assert (out != bit).double().mean().item() == pytest.approx(flipped, abs=2.5e-3)
        assert process.probability(bits(bit), level).item() == pytest.approx(
            abs(bit - flipped), abs=1e-5
        )


def test_erasure_by_argument_never_flips_a_zero() -> None:
    process = Bernoulli(linear_schedule(), forward="erasure")
    assert process.probability(bits(0), at(200)).item() == 0
    assert process.probability(bits(1), at(200)).item() == pytest.approx(0.659039, abs=1e-6)


def step(process: Bernoulli, bit: float, here: int, there: int) -> float:
    """q(x_there = 1 | x_here = bit), from the definition of the marginals alone."""
    alpha_bar = process.schedule.alpha_bar
    ratio = (alpha_bar[there] / alpha_bar[here]).item()
    return ratio * bit + (1 - ratio) / 2


@pytest.mark.parametrize(("here", "there"), [(1, 0), (2, 1), (11, 10), (100, 99), (400, 150)])
def test_the_posterior_is_bayes_rule(here: int, there: int) -> None:
    """All eight cases, also over several levels at once."""
    process = Bernoulli(linear_schedule())
    for clean, x in itertools.product((0.0, 1.0), repeat=2):
        before = process.probability(bits(clean), at(there)).item()
        joint = {}
        for middle, share in ((1.0, before), (0.0, 1 - before)):
            one = step(process, middle, there, here)
            joint[middle] = share * (one if x else 1 - one)
        expected = joint[1.0] / (joint[0.0] + joint[1.0])
        assert process.reverse_probability(
            bits(x), bits(clean), at(here), at(there)
        ).item() == pytest.approx(expected, abs=1e-12)


def test_the_posteriors_golden_values() -> None:
    """Of (x_0, x_t) at t = 10, index of the papers' arrays."""
    back = Bernoulli(linear_schedule()).reverse_probability
    for clean, x, golden in ((0, 0, 1.4189e-7), (0, 1, 0.863722), (1, 0, 0.136278)):
        got = back(bits(x), bits(clean), at(11), at(10)).item()
        assert got == pytest.approx(golden, rel=2e-4)
    assert 1 - back(bits(1), bits(1), at(11), at(10)).item() == pytest.approx(1.42e-7, rel=1e-2)


@given(st.integers(2, 1000), st.data())
def test_posterior_and_marginals_agree(here: int, data: st.DataObject) -> None:
    """Sum over x_here of q(x_there | x_here, x_0) q(x_here | x_0) is q(x_there | x_0)."""
    there, clean = data.draw(st.integers(0, here - 1)), data.draw(st.sampled_from([0.0, 1.0]))
    process = Bernoulli(linear_schedule())
    one = process.probability(bits(clean), at(here)).item()
    back = [
        process.reverse_probability(bits(x), bits(clean), at(here), at(there)).item()
        for x in (0.0, 1.0)
    ]
    marginal = one * back[1] + (1 - one) * back[0]
    assert marginal == pytest.approx(process.probability(bits(clean), at(there)).item(), abs=1e-12)


@pytest.mark.parametrize(("t", "gap"), [(5, 0.209), (100, 0.0117), (199, 0.0036)])
def test_the_mixture_is_not_the_plug_in(t: int, gap: float) -> None:
    """The largest gap over soft x_0; the mixture is exact."""
    soft = torch.linspace(0, 1, 2001, dtype=torch.float64).view(1, 1, -1)
    results = []
    for x in (0.0, 1.0):
        one = torch.full_like(soft, x)
        plug = Bernoulli(linear_schedule()).reverse_probability(one, soft, at(t + 1), at(t))
        mixed = Bernoulli(linear_schedule(), posterior="mixture").reverse_probability(
            one, soft, at(t + 1), at(t)
        )
        ends = Bernoulli(linear_schedule()).reverse_probability(
            one[..., :1], bits(0, 1), at(t + 1), at(t)
        )[0, 0]
        torch.testing.assert_close(mixed, ends[0] + soft * (ends[1] - ends[0]))
        results.append((plug - mixed).abs().max().item())
    assert max(results) == pytest.approx(gap, rel=0.02)


@given(st.integers(0, 998), st.integers(1, 500))
def test_going_further_composes(here: int, more: int) -> None:
    """From 0 to `here` and on is from 0 to there, as probabilities."""
    there = min(here + more, 1000)
    process = Bernoulli(linear_schedule())
    one = process.probability(bits(1.0), at(here)).item()
    on = one * step(process, 1.0, here, there) + (1 - one) * step(process, 0.0, here, there)
    assert on == pytest.approx(process.probability(bits(1.0), at(there)).item(), abs=1e-12)
    noise = uniform_noise(Rng(["a"]), (1, 20_000), at(1))
    share = (
        process.add_noise_step(torch.ones(1, 1, 20_000), at(here), at(there), noise).mean().item()
    )
    assert share == pytest.approx(step(process, 1.0, here, there), abs=0.015)


def test_the_flips_are_the_xor_and_undo_themselves() -> None:
    process, level = Bernoulli(linear_schedule()), at(300, 4)
    x = (Rng(KEYS).uniform((2, 6)) < 0.5).float()
    x_l = process.add_noise(x, level, uniform_noise(Rng(KEYS).fork("n"), (2, 6), level))
    flips = process.noise_from_x0(x_l, x, level)
    assert set(flips.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(process.x0_from_noise(x_l, flips, level), x)


def test_a_fresh_network_says_a_half_and_costs_a_bit() -> None:
    """Logits of zero."""
    denoiser = Denoiser(
        ConstantNoise(0.0), linear_schedule(), prediction_type="flip", process=Bernoulli
    )
    x = (Rng(KEYS).uniform((2, 6)) < 0.5).float()
    torch.testing.assert_close(denoiser.train().loss(x, Rng(KEYS)), torch.ones(4))
    estimate = denoiser.eval().estimate(x, at(9, 4))
    assert (estimate.noise == 0.5).all() and (estimate.clean == 0.5).all()


def test_the_loss_of_the_exact_flips_is_their_entropy() -> None:
    """At one level the best cross-entropy is the entropy of a bit's having been flipped."""
    keys = [str(i) for i in range(400)]
    denoiser = Denoiser(
        BernoulliPosterior(linear_schedule(), torch.full((1, 64), 0.5)),
        linear_schedule(),
        prediction_type="flip",
        process=Bernoulli,
    ).train()
    x = (Rng(keys).uniform((1, 64)) < 0.5).float()
    flips = [(1 - linear_schedule().alpha_bar[level].item()) / 2 for level in range(1, 1001)]
    entropy = [-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in flips]
    loss = denoiser.loss(x, Rng(keys)).mean().item()
    assert loss == pytest.approx(sum(entropy) / 1000, abs=0.02)


@pytest.mark.parametrize("chain", [SamplingConfig(), SamplingConfig(steps=40)])
def test_reconstructing_typical_bits_keeps_their_distribution(chain: SamplingConfig) -> None:
    """With the exact flips and the exact posterior the law stays, respaced or not."""
    prior = torch.tensor([0.9, 0.3]).view(2, 1).expand(2, 400)
    denoiser = Denoiser(
        BernoulliPosterior(linear_schedule(), prior), linear_schedule(), prediction_type="flip",
        process=lambda schedule: Bernoulli(schedule, posterior="mixture"),
    ).eval()  # fmt: skip
    x = (Rng(KEYS).fork("x").uniform((2, 400)) < prior).float()
    out = reconstruct(denoiser, x, [400], Rng(KEYS), sampling=chain)[0, :, 0]
    assert set(out.unique().tolist()) == {0.0, 1.0}
    # the last bit is the likelier one, which costs a little of the law: hence the tolerance
    assert (out.mean((0, 2)) - prior[:, 0]).abs().max() < 0.04
    assert (out != x).float().mean() > 0.05


def test_arrived_at_level_zero_a_bit_is_what_is_likelier() -> None:
    """Not drawn: with a flip's chance at .4 all stay, at .6 all turn."""
    x = (Rng(KEYS).uniform((2, 60)) < 0.5).float()
    for chance, end in ((0.4, x), (0.6, 1 - x)):
        net = ConstantNoise(math.log(chance / (1 - chance)))
        denoiser = Denoiser(
            net, linear_schedule(), prediction_type="flip", process=Bernoulli
        ).eval()
        assert torch.equal(reverse_process(denoiser, x, [[1, 0]] * 4, Rng(KEYS)), end)


def masked(clean: Tensor, threshold: float) -> tuple[Tensor, Guide]:
    """The published guide: only bits whose chance of a flip once passed the threshold change.
    The mask of a chain is kept under its job."""
    mask = torch.zeros(clean.shape, dtype=torch.bool)

    def guide(x: Tensor, flip: Tensor, guess: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
        mask[rows.chain] |= flip > threshold
        return flip, torch.where(mask[rows.chain], guess, rows.per_chain(clean))

    return mask, guide


def test_an_oracle_masks_atypical_bits_of_either_kind() -> None:
    """Prior .98, L = 200, P = .5: recall .98, normal bits masked .19, either polarity; at
    L = 50 nothing is masked."""
    prior = torch.cat([torch.full((1, 2000), 0.98), torch.full((1, 2000), 0.02)])
    denoiser = Denoiser(
        BernoulliPosterior(linear_schedule(), prior),
        linear_schedule(),
        prediction_type="flip",
        process=Bernoulli,
    ).eval()
    typical = (prior > 0.5).float()[None].repeat(1, 1, 1)
    x = typical.clone()
    x[..., :1000] = 1 - x[..., :1000]
    results = {}
    for level in (200, 50):
        results[level], guide = masked(x, 0.5)
        reconstruct(denoiser, x, [level], Rng(["a"]), guide=guide)
    for polarity in (0, 1):
        share = results[200][0, polarity].float()
        assert share[:1000].mean().item() == pytest.approx(0.98, abs=0.02)
        assert share[1000:].mean().item() == pytest.approx(0.19, abs=0.03)
    assert not results[50].any()


@pytest.mark.parametrize("level", [30, 200])
def test_a_threshold_of_one_keeps_the_code_and_below_zero_masks_all(level: int) -> None:
    """Each chain has the mask of its own, however many there are."""
    prior = torch.full((1, 50), 0.98)
    denoiser = Denoiser(
        BernoulliPosterior(linear_schedule(), prior),
        linear_schedule(),
        prediction_type="flip",
        process=Bernoulli,
    ).eval()
    x = (Rng(KEYS).uniform((1, 50)) < 0.5).float()
    _, keep = masked(x, 1.0)
    assert torch.equal(reconstruct(denoiser, x, [level], Rng(KEYS), guide=keep)[0, :, 0], x)
    _, all_of_it = masked(x, -1.0)
    free = reconstruct(denoiser, x, [level], Rng(KEYS), guide=all_of_it)
    assert torch.equal(free, reconstruct(denoiser, x, [level], Rng(KEYS)))


def test_eight_at_once_are_eight_alone() -> None:
    prior = torch.full((1, 30), 0.9)
    denoiser = Denoiser(
        BernoulliPosterior(linear_schedule(), prior),
        linear_schedule(),
        prediction_type="flip",
        process=Bernoulli,
    ).eval()
    x, chain = (Rng(KEYS).uniform((1, 30)) < 0.5).float(), SamplingConfig(steps=9, repeats=2)
    whole = reconstruct(denoiser, x, [90, 300], Rng(KEYS), sampling=chain)
    for i, key in enumerate(KEYS):
        alone = reconstruct(denoiser, x[i : i + 1], [300], Rng([key]), sampling=chain)
        assert torch.equal(alone[0, 0], whole[1, i])


def test_binary_latent_diffusions_schedule() -> None:
    """What is kept is 1 - t / T, the flips t / 2T, a half at the end."""
    schedule = even_schedule(64)
    torch.testing.assert_close(schedule.alpha_bar, 1 - torch.arange(65).double() / 64)
    assert Bernoulli(schedule).probability(bits(1), at(64)).item() == pytest.approx(0.5)


def test_weights_of_one_process_refuse_another() -> None:
    def build(process) -> Denoiser:
        return Denoiser(
            torch.nn.Linear(1, 1), linear_schedule(), prediction_type="flip", process=process
        )

    ours = build(Bernoulli)
    build(Bernoulli).load_state_dict(ours.state_dict())
    with pytest.raises(Mismatch, match="bernoulli symmetric"):
        build(lambda s: Bernoulli(s, forward="erasure")).load_state_dict(ours.state_dict())
    with pytest.raises(
        ValueError, match="bernoulli symmetric process has no prediction type noise"
    ):
        Denoiser(torch.nn.Linear(1, 1), linear_schedule(), process=Bernoulli)
