"""Masked Bernoulli diffusion's own: which bits are replaced, and the quirks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.bernoulli import Bernoulli
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import reconstruct
from adbench.methods.bernoulli import MaskedBernoulli
from known import BernoulliPosterior
from small import build_small, samples

SPEC = Spec(1, (16, 16))


def with_prior(prior: Tensor, **more: Any) -> Any:
    """Bits that are 1 with this chance each, and the exact denoiser of them."""
    built = build_small(MaskedBernoulli, SPEC, size=None, sampling_steps=None, **more).eval()
    net = BernoulliPosterior(linear_schedule(), prior)
    built.denoiser = Denoiser(
        net, linear_schedule(), prediction_type="flip", process=Bernoulli
    ).eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    """Parameters; the fresh network says a half of every bit, which costs a bit."""
    with torch.device("meta"):
        built = build(MaskedBernoulli, Spec(4, (256, 256)))
    assert sum(p.numel() for p in built.denoiser.parameters()) == 36_034_432
    assert built.codec.latent == (128, 32, 32) and built.canvas.range == (0, 1)
    assert {m.eps for m in built.denoiser.modules() if isinstance(m, nn.GroupNorm)} == {1e-5}
    assert built.plan.batch == 36 and built.published == 200 and built.chance == 0.5
    small = build_small(MaskedBernoulli, SPEC)
    z = torch.zeros(2, *small.codec.latent)
    loss = small.denoiser.train().loss(z, Rng(["a", "b"]))
    assert loss.tolist() == pytest.approx([1.0, 1.0])


@torch.no_grad()
def test_which_bits_are_masked_is_as_the_exact_posterior_has_it() -> None:
    """Prior .98, L = 200: 98 % of atypical bits of either kind, and 19 % of normal ones."""
    prior = torch.full((2, 60, 60), 0.98)
    prior[1] = 0.02
    z = torch.stack([torch.ones(60, 60), torch.zeros(60, 60)])[None]
    ill = z.clone()
    ill[:, :, :10] = 1 - ill[:, :, :10]
    built = with_prior(prior)
    _, mask = built.reconstruct_codes(ill, [200], Rng(["a"]))
    results = mask[0, 0].float()
    for kind in (0, 1):
        assert results[kind, :10].mean().item() == pytest.approx(0.98, abs=0.02)
        assert results[kind, 10:].mean().item() == pytest.approx(0.19, abs=0.02)
    assert not built.reconstruct_codes(z, [50], Rng(["a"]))[1].any()


@torch.no_grad()
def test_nothing_passes_a_chance_of_1_and_everything_one_below_0() -> None:
    z = (Rng(["z"]).uniform((4, 8, 8)) < 0.5).float()
    built = with_prior(torch.full((4, 8, 8), 0.9), chance=1.0)
    out, mask = built.reconstruct_codes(z, [50, 200], Rng(["a"]))
    assert torch.equal(out, z.expand_as(out)) and not mask.any()
    built.chance = -1.0
    out, mask = built.reconstruct_codes(z, [50, 200], Rng(["a"]))
    assert mask.all()
    plain = reconstruct(built.denoiser, z, [50, 200], Rng(["a"]))[:, :, 0]
    assert torch.equal(out, plain) and not torch.equal(out, z.expand_as(out))


@torch.no_grad()
def test_a_mask_only_grows_and_what_it_leaves_is_as_it_was() -> None:
    z = (Rng(["y", "z"]).uniform((4, 8, 8)) < 0.5).float()
    built = with_prior(torch.full((4, 8, 8), 0.9))
    out, mask = built.reconstruct_codes(z, [200], Rng(["a", "b"]))
    assert mask.any() and set(out.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(out[0][~mask[0]], z[~mask[0]])
    assert mask[0, 0].any() and mask[0, 1].any()  # theirs masks the first of a batch alone
    built.quirks = replace(built.quirks, soft_end=True)
    soft = built.reconstruct_codes(z, [200], Rng(["a", "b"]))[0]
    assert ((soft > 0) & (soft < 1)).any()


class Asked(nn.Module):
    """Says that nothing was flipped, and remembers the first that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append((x, int(t[0])))
        return torch.full_like(x, -9.0)


@torch.no_grad()
@pytest.mark.parametrize(("offset", "level"), [(False, 100), (True, 101)])
def test_chains_start_where_samples_were_disturbed_to(offset: bool, level: int) -> None:
    built, net = with_prior(torch.ones(1), start_offset=offset), Asked()
    built.denoiser = Denoiser(
        net, linear_schedule(), prediction_type="flip", process=Bernoulli
    ).eval()
    built.reconstruct_codes(torch.zeros(1, 4, 50, 50), [100], Rng(["a"]))
    drawn = built.denoiser.process.default_noise(
        Rng(["a"]).fork("repeat", 0).fork("start"), (4, 50, 50), torch.tensor([level])
    )
    expected = (drawn < (1 - linear_schedule().alpha_bar[level]) / 2).float()
    first, t = net.seen[0]
    assert t == 99 and torch.equal(first[:1], expected)


@torch.no_grad()
def test_the_erasing_process_never_takes_a_one_away_that_should_not_be_there() -> None:
    """Zeros stay zeros in theirs, so a bit that is wrongly 1 is never seen as flipped from 0."""
    built = build_small(MaskedBernoulli, SPEC, forward="erasure")
    z = torch.zeros(1, 4, 8, 8)
    level = torch.tensor([500])
    noise = built.denoiser.process.default_noise(Rng(["a"]), (4, 8, 8), level)
    assert not built.denoiser.process.add_noise(z, level, noise).any()
    assert build_small(MaskedBernoulli, SPEC).denoiser.process.add_noise(z, level, noise).any()


def test_every_batch_can_make_two_steps() -> None:
    for twice in (False, True):
        built, seen = (
            build_small(MaskedBernoulli, SPEC, size=None, steps=4, batch=3, twice=twice),
            [],
        )
        encoder = next(iter(built.codec.net.children()))
        encoder.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0][:3]))
        built.fit(samples((16, 16), 50, 1), [], TrainingContext())
        same = [torch.equal(a, b) for a, b in pairwise(seen[-4:])]  # before, the codec's own
        assert same == [twice, False, twice]


class ErasedBits(nn.Module):
    """As `Bits`, for the process that erases: a one is a one, a zero may have been."""

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.alpha_bar, self.prior = linear_schedule().alpha_bar, prior

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        stored = self.alpha_bar[t + 1].view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        erased = (self.prior * (1 - stored)).log() - (1 - self.prior).log()
        return torch.where(x > 0.5, torch.full_like(x, -30.0), erased)


@torch.no_grad()
def test_what_the_erasing_process_masks_even_with_the_exact_posterior() -> None:
    """Prior .98, L = 200: all bits that are wrongly 0 and 36 % of those that are rightly 1; of
    those that are wrongly 1, none."""
    prior = torch.full((2, 60, 60), 0.98)
    prior[1] = 0.02
    ill = torch.stack([torch.ones(60, 60), torch.zeros(60, 60)])[None]
    ill[:, :, :20] = 1 - ill[:, :, :20]
    built = build_small(
        MaskedBernoulli, SPEC, size=None, sampling_steps=None, forward="erasure"
    ).eval()
    process = partial(Bernoulli, forward="erasure")
    net = ErasedBits(prior)
    built.denoiser = Denoiser(
        net, linear_schedule(), prediction_type="flip", process=process
    ).eval()
    out, mask = built.reconstruct_codes(ill, [200], Rng(["a"]))
    wrongly_0, wrongly_1 = (mask[0, 0, kind, :20].float().mean().item() for kind in (0, 1))
    assert wrongly_0 == 1 and wrongly_1 == 0
    assert mask[0, 0, 0, 20:].float().mean().item() == pytest.approx(0.36, abs=0.02)
    assert out[0, 0, 1, :20].all()


def test_masks_can_be_shown_and_judged_and_codes_drawn() -> None:
    data = samples((16, 16), 4, 1)
    built = build_small(
        MaskedBernoulli, SPEC, size=None, shown="mask", judged="mask", drawn_code=True
    )
    built.fit(data, [], TrainingContext())
    x, keys = torch.stack([s.x for s in data]), [s.key for s in data]
    with torch.no_grad():
        results = built.detect(x, [200, 500], Rng(keys))
        part = built.detect(x[[2, 0]], [200, 500], Rng([keys[2], keys[0]]))
    assert ((results.map >= 0) & (results.map <= 1)).all()
    torch.testing.assert_close(results.score, results.map.flatten(2).mean(2))
    assert torch.equal(part.map, results.map[:, [2, 0]])
    assert torch.equal(part.score, results.score[:, [2, 0]])
