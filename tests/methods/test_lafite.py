"""LafitE's own: features, their editing, a distance in feature space."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import cosine_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.lafite import LafitE, maximum_local_mean
from known import NormalPosteriorMean
from small import build_small, samples

SPEC = Spec(1, (64, 64))
KINDS = ((2.0, 0.0), (-2.0, 0.0), (0.0, 2.0))  # of normal places, two features each


class Mixture(torch.nn.Module):
    """The exact x_0 of places that are of any of KINDS, alike often, with variance 0.04."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = cosine_schedule()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        stored = self.schedule.alpha_bar[t + 1].view(-1, 1, 1, 1)
        parts, chance = [], []
        for kind in KINDS:
            mean = torch.tensor(kind).double().view(1, 2, 1, 1)
            spread = 0.04 * stored + 1 - stored
            off = x.double() - stored.sqrt() * mean
            parts.append(mean + stored.sqrt() * 0.04 / spread * off)
            chance.append(-off.square().sum(1, keepdim=True) / (2 * spread))
        share = torch.stack(chance).softmax(0)
        return (share * torch.stack(parts)).sum(0).to(x.dtype)


def normal_places(name: str, side: int = 64) -> Tensor:
    """(1, 2, side, side)."""
    kind = Rng([name]).fork("kind").integers(3, (side, side))[0]
    mean = torch.tensor(KINDS)[kind].movedim(-1, 0)
    return (mean + 0.2 * Rng([name]).normal((2, side, side))[0])[None]


def lafite(net: torch.nn.Module | None = None, **more: Any) -> LafitE:
    """With a network that is known, samples are features themselves, two to a place."""
    if net is None:
        return build_small(LafitE, SPEC, **more).eval()
    more = {"blur": 0.0, "pool": 1, "sampling_steps": 10} | more
    built = build_small(LafitE, Spec(2, (64, 64)), grid=64, **more).eval()
    built.codec = Identity((2, 64, 64))
    built.denoiser = Denoiser(net, cosine_schedule(), prediction_type="clean").eval()
    places = torch.cat([normal_places(f"m{i}", 16) for i in range(4)])
    built.memory = type(built.memory)(2)
    built.memory.fill(places.movedim(1, -1).flatten(0, 2), 0.1, TrainingContext())
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(LafitE, Spec(3, (256, 256)), features="effperc-random")
    assert built.canvas.padded_shape == (224, 224) and built.codec.latent == (176, 32, 32)
    assert built.plan.steps == 57_000 and built.plan.batch == 64  # 1000 epochs of 3629 images
    assert built.plan.lr == built.plan.weight_decay == 1e-4
    assert (
        built.memory_config.share == 0.1
        and built.blur == 4
        and built.denoiser.schedule.name == "cosine 1000 0.008"
    )
    assert built.denoiser.prediction_type == "noise" and built.chain.effective_eta == 0


def test_its_schedule_keeps_less_and_less_down_to_nothing() -> None:
    stored = lafite().denoiser.schedule.alpha_bar
    assert (stored.diff() < 0).all() and stored[-1] < 1e-6
    assert (1 - stored[1:] / stored[:-1]).max().item() == pytest.approx(0.999)


@torch.no_grad()
def test_what_it_learns_are_standardised_features_and_a_tenth_of_the_positions() -> None:
    """At 64 pixels; four training samples."""
    built = lafite(grid=8, steps=1)
    train = samples((64, 64), 4, 1)
    built.fit(train, [], TrainingContext())
    z = built.codec.encode(built.canvas.forward(torch.stack([s.x for s in train])))
    assert z.shape == (4, 176, 8, 8)
    scattered = z.std((0, 2, 3), correction=0) > 0.1
    assert scattered.any()
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(176), rtol=0, atol=1e-3)
    assert built.memory.vectors.shape == (26, 176)  # ceil(0.1 * 4 * 64)
    reference = z.movedim(1, -1).flatten(0, 2)
    assert (built.memory.vectors[:, None] == reference).all(2).any(1).all()


@torch.no_grad()
@pytest.mark.parametrize("level", [50, 200, 600])
def test_with_an_oracle_an_anomaly_is_farther_off_and_with_editing_more_so(level: int) -> None:
    """Places of three kinds, and some of none, which without editing come back nearly as they
    were where there is little noise."""
    x = normal_places("t")
    x[:, :, 10:20, 10:20] = torch.tensor([0.0, -2.0]).view(1, 2, 1, 1)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[10:20, 10:20] = True
    normal, ill = {}, {}
    for edit in (True, False):
        results = lafite(Mixture(), edit=edit).detect(x, [level], Rng(["t"])).map
        assert results is not None
        normal[edit] = results[0, 0][~inside].mean().item()
        ill[edit] = results[0, 0][inside].mean().item()
    assert ill[True] > 3 * normal[True] and ill[False] > 3 * normal[False]
    assert ill[True] > 1.1 * ill[False] and normal[True] < 1.1 * normal[False]
    if level == 50:
        assert ill[True] > 4 * ill[False]


@torch.no_grad()
def test_without_a_step_it_is_the_distance_to_what_the_memory_says() -> None:
    """Level 0, and DDIM without a network besides."""
    built, x = lafite(Mixture()), normal_places("t")
    before = built.denoiser.evaluations
    results = built.detect(x, [0], Rng(["t"])).map
    edited = built.memory.replace_by_neighbours(x, built.memory_config.neighbours)
    assert built.denoiser.evaluations == before and results is not None
    torch.testing.assert_close(results[0, 0], (edited - x)[0].square().sum(0).sqrt())


@torch.no_grad()
def test_the_score_is_the_highest_local_mean_of_the_map() -> None:
    """Windows by hand."""
    built, x = lafite(Mixture(), pool=16, blur=2.0), normal_places("t")
    got = built.detect(x, [100, 300], Rng(["t"]))
    assert got.map is not None
    for score, one in zip(got.score, got.map, strict=True):
        means = one[0].double().unfold(0, 16, 1).unfold(1, 16, 1).mean((2, 3))
        assert score.item() == pytest.approx(means.max().item(), rel=1e-5)
    peak = torch.zeros(1, 8, 8)
    peak[0, 3, 4] = 6.0
    assert (
        maximum_local_mean(peak, 2).tolist() == [1.5]
        and maximum_local_mean(peak, 99).item() == 6 / 64
    )


@torch.no_grad()
def test_ddim_draws_at_the_start_alone() -> None:
    """On normal data of one kind, DDIM in closed form: variance v is shrunk or kept by the ODE; the
    noise that is added at the start comes back out, scaled by the deviation."""
    variance, level = 0.25, 400
    built = lafite(
        NormalPosteriorMean(cosine_schedule(), 0.0, variance), edit=False, sampling_steps=400
    )
    x = 0.5 * Rng(["x"]).normal((2, 64, 64))[0][None]
    results = built.detect(x, [level], Rng(["t"])).map
    stored = cosine_schedule().alpha_bar[level].item()
    deviation = (stored * variance + 1 - stored) ** 0.5
    gain = 0.5 / deviation  # of x_l, along the exact flow of a normal law
    off = (stored**0.5 * gain - 1) ** 2 * variance + (1 - stored) * gain**2
    assert results is not None
    assert results.square().mean().item() == pytest.approx(2 * off, rel=0.05)


def test_it_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"share lies above 0"):
        lafite(share=0.0)
    with pytest.raises(ValueError, match=r"softmax or inverse, not 'mean'"):
        lafite(weights="mean")
    tiny = build(LafitE, Spec(1, (20, 10)), size=16, features="effperc-random", width=8,
        mults=(1, 2), attention=(False, True), heads=1)  # fmt: skip
    assert tiny.canvas.padded_shape == (128, 64)
