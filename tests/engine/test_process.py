"""The forward process and its steps back, against diffusers and the papers' check values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm

from adbench.engine.process import Gaussian
from adbench.engine.schedule import linear

DDIM: Any = scheduling_ddim.DDIMScheduler
DDPM: Any = scheduling_ddpm.DDPMScheduler
X = torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(0))
EPS = torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(1))
Z = torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(2))


def full(level: int) -> torch.Tensor:
    return torch.full((4,), level)


@pytest.mark.parametrize("t", [0, 1, 250, 999])
def test_disturb_is_diffusers_add_noise(t: int) -> None:
    theirs = DDPM(1000).add_noise(X, EPS, full(t))
    torch.testing.assert_close(Gaussian(linear()).disturb(X, full(t + 1), EPS), theirs)


def test_level_zero_is_the_sample() -> None:
    assert torch.equal(Gaussian(linear()).disturb(X, full(0), EPS), X)


def test_noise_and_clean_undo_each_other() -> None:
    process, level = Gaussian(linear()), torch.tensor([1, 10, 300, 999])
    noised = process.disturb(X, level, EPS)
    torch.testing.assert_close(process.clean(noised, EPS, level)[:3], X[:3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(process.noise(noised, X, level)[1:], EPS[1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("t", [1, 2, 500, 999])
def test_an_ancestral_step_is_diffusers(kind: str, t: int, monkeypatch) -> None:
    other = DDPM(1000, variance_type=kind, clip_sample=False)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: Z)
    theirs = other.step(EPS, t, X).prev_sample
    process = Gaussian(linear())
    clean = process.clean(X, EPS, full(t + 1))
    variance = "small" if kind == "fixed_small" else "large"
    ours = process.back(clean, EPS, full(t + 1), full(t), Z, variance=variance)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_respaced_ddim_step_is_diffusers(eta: float) -> None:
    other = DDIM(1000, clip_sample=False, steps_offset=0)
    other.set_timesteps(20)
    theirs = other.step(EPS, 500, X, eta=eta, variance_noise=Z).prev_sample
    process = Gaussian(linear())
    clean = process.clean(X, EPS, full(501))
    ours = process.back(clean, EPS, full(501), full(451), Z, eta=eta)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_posterior_variance_at_500_is_the_papers() -> None:
    process = Gaussian(linear())
    zero = torch.zeros(4, 1, 1)
    small = process.back(zero, zero, full(501), full(500), zero + 1)
    large = process.back(zero, zero, full(501), full(500), zero + 1, variance="large")
    assert small[0].item() ** 2 == pytest.approx(0.0100513, rel=1e-4)
    assert large[0].item() ** 2 == pytest.approx(0.0100600, rel=1e-4)


def test_going_further_composes() -> None:
    """q(x_t | x_s) after q(x_s | x_0) has q(x_t | x_0)'s mean and variance."""
    process = Gaussian(linear())
    mean = process.further(process.disturb(X, full(40), 0 * X), full(40), full(90), 0 * X)
    torch.testing.assert_close(mean, process.disturb(X, full(90), 0 * X))
    kept = process.schedule.kept
    assert (1 - kept[40]) * kept[90] / kept[40] + 1 - kept[90] / kept[40] == pytest.approx(
        float(1 - kept[90])
    )
