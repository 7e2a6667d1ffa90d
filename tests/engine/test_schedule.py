"""Schedules against the golden values of the papers' code, and against diffusers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from hypothesis import given
from hypothesis import strategies as st

from adbench.engine.schedule import cosine, even, ladder, linear, scaled_linear, schedule

# index t of the papers' arrays is level t + 1 here
DDPM: Any = scheduling_ddpm.DDPMScheduler
LINEAR = {
    0: 0.9999,
    10: 0.99781,
    50: 0.96995,
    200: 0.65635,
    350: 0.28318,
    500: 0.07780,
    999: 4.04e-5,
}
COSINE = {0: 0.99996, 10: 0.99928, 200: 0.89776, 249: 0.847012, 499: 0.493844, 749: 0.14427}
SCALED = {0: 0.9985, 50: 0.91669, 300: 0.40716, 600: 0.04697, 999: 1.42e-4}


@pytest.mark.parametrize(
    ("made", "golden"), [(linear(), LINEAR), (cosine(), COSINE), (scaled_linear(), SCALED)]
)
def test_schedules_have_the_papers_values(made, golden) -> None:
    assert made.kept[0] == 1 and made.T == 1000
    for t, kept in golden.items():
        assert made.kept[t + 1].item() == pytest.approx(kept, rel=2e-3, abs=6e-6)


def test_anoddpm_signal_and_noise() -> None:
    for t, signal, sigma in ((0, 0.99995, 0.01), (249, 0.72394, 0.68987), (499, 0.28033, 0.9599)):
        assert linear().kept[t + 1].sqrt().item() == pytest.approx(signal, abs=6e-6)
        assert (1 - linear().kept[t + 1]).sqrt().item() == pytest.approx(sigma, abs=6e-6)


@pytest.mark.parametrize(
    ("name", "theirs", "first", "last"),
    [
        ("linear", "linear", 1e-4, 0.02),
        ("scaled_linear", "scaled_linear", 0.0015, 0.0195),
        ("cosine", "squaredcos_cap_v2", 1e-4, 0.02),
    ],
)
def test_schedules_are_diffusers(name: str, theirs: str, first: float, last: float) -> None:
    other = DDPM(1000, beta_start=first, beta_end=last, beta_schedule=theirs)
    torch.testing.assert_close(
        schedule(name).kept[1:].float(), other.alphas_cumprod, rtol=2e-4, atol=1e-9
    )


def test_a_level_stands_on_the_1000_step_scale() -> None:
    assert linear(100).level(250) == 25 and linear(100).level(1) == 1 and linear().level(0) == 0
    with pytest.raises(ValueError, match=r"0\.\.1000, not 1001"):
        linear().level(1001)
    with pytest.raises(ValueError, match="no schedule 'quadratic'"):
        schedule("quadratic")


@given(st.integers(0, 1000), st.one_of(st.none(), st.integers(1, 1200)))
def test_a_ladder_goes_down_from_the_level_to_zero(level: int, steps: int | None) -> None:
    rungs = ladder(level, steps)
    assert rungs[0] == level and rungs[-1] == 0
    assert all(a > b for a, b in pairwise(rungs))
    assert len(rungs) - 1 == min(level, steps or level)


@given(st.integers(0, 1000), st.integers(1, 400))
def test_a_stride_is_the_distance_of_the_rungs(level: int, stride: int) -> None:
    rungs = ladder(level, stride=stride)
    assert rungs[0] == level and rungs[-1] == 0
    assert all(a - b == stride for a, b in pairwise(rungs[:-1]))
    assert len(rungs) == 1 or 0 < rungs[-2] - rungs[-1] <= stride


def test_ladders_of_one_grid_end_alike() -> None:
    """So chains from several levels, as those of DDPM-OOD, share their rungs."""
    assert ladder(31, stride=10) == [31, 21, 11, 1, 0] == ladder(51, stride=10)[2:]
    with pytest.raises(ValueError, match="steps or a stride"):
        ladder(100, 5, 10)
    with pytest.raises(ValueError, match="stride of at least 1"):
        ladder(100, stride=0)


def test_half_the_logarithm_of_signal_to_noise() -> None:
    """At t = 249 the ratio is 1.101; at level 0 it has no end."""
    ratio = linear().log_ratio
    assert math.exp(2 * ratio[250].item()) == pytest.approx(1.101, abs=1e-3)
    assert ratio[0] == math.inf and (ratio.diff() < 0).all()


def test_an_even_schedule_loses_everything_evenly() -> None:
    torch.testing.assert_close(even(8).kept, torch.linspace(1, 0, 9, dtype=torch.float64))
    assert schedule("even", 4).name == "even 4"
