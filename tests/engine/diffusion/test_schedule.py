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

from adbench.engine.diffusion.schedule import (
    build_schedule,
    cosine_schedule,
    even_schedule,
    linear_schedule,
    sampling_levels,
    scaled_linear_schedule,
    shift_snr,
)

# index t of the papers' arrays is level t + 1 here
DDPM: Any = scheduling_ddpm.DDPMScheduler
TIMES = (0, 10, 50, 200, 300, 400, 500, 600, 749, 999)
GOLDEN = {  # as printed: five places, three digits of what is smaller
    "cosine": (".99996", ".99928", ".99172", ".89776", ".78563", ".64599", ".49229", ".33933",
        ".14427", "2.43e-9"),
    "linear": (".9999", ".99781", ".96995", ".65635", ".39401", ".19357", ".07780", ".02557",
        ".00335", "4.04e-5"),
    "scaled_linear": (".9985", ".98320", ".91669", ".61458", ".40716", ".23445", ".11492", ".04697",
        ".00844", "1.42e-4"),
    "linear_latent": (".9985", ".98265", ".90522", ".51434", ".28138", ".12839", ".04885", ".01549",
        ".00199", "2.57e-5"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "golden"), GOLDEN.items())
def test_schedules_have_the_papers_values(name: str, golden: tuple[str, ...]) -> None:
    built = build_schedule(name)
    assert built.alpha_bar[0] == 1 and built.T == 1000
    for t, alpha_bar in zip(TIMES, golden, strict=True):
        digit = 0.01 * 10 ** int(alpha_bar[-2:]) if "e" in alpha_bar else 1e-5
        assert built.alpha_bar[t + 1].item() == pytest.approx(
            float(alpha_bar), rel=0, abs=0.501 * digit
        )


def test_starting_levels_have_the_papers_values() -> None:
    for built, t, alpha_bar in (
        (linear_schedule(), 350, 0.28318),
        (cosine_schedule(), 249, 0.847012),
        (cosine_schedule(), 499, 0.493844),
    ):
        assert built.alpha_bar[t + 1].item() == pytest.approx(alpha_bar, abs=5e-6)


def test_anoddpm_signal_and_noise() -> None:
    for t, signal, sigma in ((0, 0.99995, 0.01), (249, 0.72394, 0.68987), (499, 0.28033, 0.9599)):
        assert linear_schedule().alpha_bar[t + 1].sqrt().item() == pytest.approx(signal, abs=6e-6)
        assert (1 - linear_schedule().alpha_bar[t + 1]).sqrt().item() == pytest.approx(
            sigma, abs=6e-6
        )


@pytest.mark.parametrize(
    ("name", "theirs", "first", "last"),
    [
        ("linear", "linear", 1e-4, 0.02),
        ("linear_latent", "linear", 0.0015, 0.0195),
        ("scaled_linear", "scaled_linear", 0.0015, 0.0195),
        ("cosine", "squaredcos_cap_v2", 1e-4, 0.02),
    ],
)
def test_schedules_are_diffusers(name: str, theirs: str, first: float, last: float) -> None:
    other = DDPM(1000, beta_start=first, beta_end=last, beta_schedule=theirs)
    torch.testing.assert_close(
        build_schedule(name).alpha_bar[1:].float(), other.alphas_cumprod, rtol=2e-4, atol=1e-9
    )


def test_a_level_stands_on_the_1000_step_scale() -> None:
    assert (
        linear_schedule(100).to_level(250) == 25
        and linear_schedule(100).to_level(1) == 1
        and linear_schedule().to_level(0) == 0
    )
    with pytest.raises(ValueError, match=r"0\.\.1000, not 1001"):
        linear_schedule().to_level(1001)
    with pytest.raises(ValueError, match="no schedule 'quadratic'"):
        build_schedule("quadratic")


@given(st.integers(0, 1000), st.one_of(st.none(), st.integers(1, 1200)))
def test_a_ladder_goes_down_from_the_level_to_zero(level: int, steps: int | None) -> None:
    rungs = sampling_levels(level, steps)
    assert rungs[0] == level and rungs[-1] == 0
    assert all(a > b for a, b in pairwise(rungs))
    assert len(rungs) - 1 == min(level, steps or level)


@given(st.integers(0, 1000), st.integers(1, 400))
def test_a_stride_is_the_distance_of_the_rungs(level: int, stride: int) -> None:
    rungs = sampling_levels(level, stride=stride)
    assert rungs[0] == level and rungs[-1] == 0
    assert all(a - b == stride for a, b in pairwise(rungs[:-1]))
    assert len(rungs) == 1 or 0 < rungs[-2] - rungs[-1] <= stride


def test_ladders_of_one_grid_end_alike() -> None:
    """So chains from several levels, as those of DDPM-OOD, share their rungs."""
    assert (
        sampling_levels(31, stride=10) == [31, 21, 11, 1, 0] == sampling_levels(51, stride=10)[2:]
    )
    with pytest.raises(ValueError, match="steps or a stride"):
        sampling_levels(100, 5, 10)
    with pytest.raises(ValueError, match="stride of at least 1"):
        sampling_levels(100, stride=0)


def test_half_the_logarithm_of_signal_to_noise() -> None:
    """At t = 249 the ratio is 1.101; at level 0 it has no end."""
    ratio = linear_schedule().half_log_snr
    assert math.exp(2 * ratio[250].item()) == pytest.approx(1.101, abs=1e-3)
    assert ratio[0] == math.inf and (ratio.diff() < 0).all()


def test_an_even_schedule_loses_everything_evenly() -> None:
    torch.testing.assert_close(
        even_schedule(8).alpha_bar, torch.linspace(1, 0, 9, dtype=torch.float64)
    )
    assert build_schedule("even", 4).name == "even 4"


def test_a_schedule_with_more_signal() -> None:
    plain = scaled_linear_schedule()
    assert shift_snr(plain, 1) is plain
    alpha_bar = plain.alpha_bar[1:]
    expected = 1 / (1 + (1 - alpha_bar) / (4 * alpha_bar))
    torch.testing.assert_close(shift_snr(plain, 4).alpha_bar[1:], expected, rtol=1e-9, atol=0)
    assert shift_snr(plain, 4).name != plain.name
