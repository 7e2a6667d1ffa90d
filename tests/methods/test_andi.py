"""ANDi's own: the true step down and the predicted one, over levels."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import gmean

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.rng import Rng
from adbench.methods.andi import ANDi
from known import ConstantX0
from small import build_small, samples

SPEC = Spec(2, (16, 16))


def with_oracle(image: torch.Tensor, **more: object) -> ANDi:
    built = build_small(ANDi, SPEC, **more).eval()
    built.denoiser = Denoiser(
        ConstantX0(built.canvas.forward(image)), linear_schedule(), prediction_type="clean"
    ).eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(ANDi, Spec(4, (128, 128)))
    assert (
        built.evaluated_levels(200) == list(range(200, 75, -1))
        and len(built.evaluated_levels(200)) == 125
    )
    assert built.plan.batch == 128 and built.plan.ema == 0.995 and built.plan.warmup == 4500
    assert str(built.noise).startswith("Pyramid") and str(built.inference_noise).startswith("Gauss")


def test_levels_below_the_lowest_stand_for_themselves() -> None:
    built = build_small(ANDi, SPEC, lowest=75, every=10)
    assert built.evaluated_levels(100) == [100, 90, 80] and built.evaluated_levels(60) == [60]
    assert built.evaluated_levels(1) == [1]


@torch.no_grad()
@pytest.mark.parametrize("aggregate", ["geometric", "mean"])
@pytest.mark.parametrize("channels", ["max", "mean"])
def test_with_an_oracle_the_map_is_the_closed_form(aggregate: str, channels: str) -> None:
    """The means differ by sqrt(kept') beta / (1 - kept) times what was added, kept' one below."""
    healthy = torch.stack([s.x for s in samples((16, 16), 1)])
    x = healthy.clone()
    x[:, 0, 4:7, 5:9] += 0.5
    x[:, 1, 6:9, 5:9] -= 0.25
    built = with_oracle(healthy, every=25, aggregate=aggregate, channels=channels)
    results = built.detect(x, [150, 200], Rng(["a"])).map
    assert results is not None
    stored = linear_schedule().alpha_bar
    for level, answer in zip((150, 200), results, strict=True):
        factors = [
            (stored[at - 1].sqrt() * (1 - stored[at] / stored[at - 1]) / (1 - stored[at])).item()
            ** 2
            for at in built.evaluated_levels(level)
        ]
        factor = float(gmean(factors)) if aggregate == "geometric" else sum(factors) / len(factors)
        off = factor * (2 * (x - healthy)).square()  # the canvas is twice as wide
        expected = off.amax(1) if channels == "max" else off.mean(1)
        torch.testing.assert_close(answer, expected, rtol=2e-2, atol=1e-9)


@torch.no_grad()
def test_it_costs_one_evaluation_a_level_and_shares_those_of_a_sweep() -> None:
    built = with_oracle(torch.zeros(1, 2, 16, 16), every=25)
    built.detect(torch.zeros(3, 2, 16, 16), [150, 200], Rng(["a", "b", "c"]))
    assert built.denoiser.evaluations == 3 * len({150, 125, 100, *range(200, 75, -25)})


@torch.no_grad()
def test_one_level_that_sees_nothing_keeps_a_position_from_standing_out() -> None:
    """What a geometric mean is for: a vote near nothing outweighs all others."""
    built, plain = (
        build_small(ANDi, SPEC, every=25),
        build_small(ANDi, SPEC, every=25, aggregate="mean"),
    )
    for one in (built, plain):
        one._squared_mean_difference = lambda x, step, rng: torch.full_like(
            x, 1e-4 if step == 200 else 1.0
        )
    x = torch.zeros(1, 2, 16, 16)
    a, b = (one.detect(x, [200], Rng(["a"])).map for one in (built, plain))
    assert a is not None and b is not None
    assert a.max().item() == pytest.approx(1e-4**0.2, rel=1e-3)
    assert b.min().item() == pytest.approx(0.80002, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "change", [{"lowest": 150}, {"every": 10}, {"inference_noise": "pyramid"}, {"channels": "mean"}]
)
def test_each_argument_changes_what_is_found(change: dict[str, object]) -> None:
    x, rng = samples((16, 16), 1)[0].x[None], Rng(["a"])
    plain, other = build_small(ANDi, SPEC).eval(), build_small(ANDi, SPEC, **change).eval()
    for one in (plain, other):
        for p in one.parameters():
            p.data.normal_(std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    a, b = plain.detect(x, [200], rng).map, other.detect(x, [200], rng).map
    assert a is not None and b is not None and not torch.allclose(a, b)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="every is at least 1"):
        build_small(ANDi, SPEC, every=0)
