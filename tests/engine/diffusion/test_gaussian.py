"""The forward process and its steps back, against diffusers and the papers' check values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm

from adbench.engine.diffusion.gaussian import Gaussian, add_noise_in_region
from adbench.engine.diffusion.schedule import linear_schedule, scaled_linear_schedule

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
    torch.testing.assert_close(Gaussian(linear_schedule()).add_noise(X, full(t + 1), EPS), theirs)


def test_level_zero_is_the_sample() -> None:
    assert torch.equal(Gaussian(linear_schedule()).add_noise(X, full(0), EPS), X)


def test_noise_and_clean_undo_each_other() -> None:
    process, level = Gaussian(linear_schedule()), torch.tensor([1, 10, 300, 999])
    noised = process.add_noise(X, level, EPS)
    torch.testing.assert_close(
        process.x0_from_noise(noised, EPS, level)[:3], X[:3], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        process.noise_from_x0(noised, X, level)[1:], EPS[1:], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("t", [1, 2, 500, 999])
def test_an_ancestral_step_is_diffusers(kind: str, t: int, monkeypatch) -> None:
    other = DDPM(1000, variance_type=kind, clip_sample=False)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: Z)
    theirs = other.step(EPS, t, X).prev_sample
    process = Gaussian(linear_schedule())
    clean = process.x0_from_noise(X, EPS, full(t + 1))
    variance = "small" if kind == "fixed_small" else "large"
    ours = process.reverse_step(clean, EPS, full(t + 1), full(t), Z, variance=variance)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_respaced_ddim_step_is_diffusers(eta: float) -> None:
    other = DDIM(1000, clip_sample=False, steps_offset=0)
    other.set_timesteps(20)
    theirs = other.step(EPS, 500, X, eta=eta, variance_noise=Z).prev_sample
    process = Gaussian(linear_schedule())
    clean = process.x0_from_noise(X, EPS, full(501))
    ours = process.reverse_step(clean, EPS, full(501), full(451), Z, eta=eta)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_posterior_variance_at_500_is_the_papers() -> None:
    process = Gaussian(linear_schedule())
    zero = torch.zeros(4, 1, 1)
    small = process.reverse_step(zero, zero, full(501), full(500), zero + 1)
    large = process.reverse_step(zero, zero, full(501), full(500), zero + 1, variance="large")
    assert small[0].item() ** 2 == pytest.approx(0.0100513, rel=1e-4)
    assert large[0].item() ** 2 == pytest.approx(0.0100600, rel=1e-4)


def test_going_further_composes() -> None:
    """q(x_t | x_s) after q(x_s | x_0) has q(x_t | x_0)'s mean and variance."""
    process = Gaussian(linear_schedule())
    mean = process.add_noise_step(process.add_noise(X, full(40), 0 * X), full(40), full(90), 0 * X)
    torch.testing.assert_close(mean, process.add_noise(X, full(90), 0 * X))
    alpha_bar = process.schedule.alpha_bar
    assert (1 - alpha_bar[40]) * alpha_bar[90] / alpha_bar[40] + 1 - alpha_bar[90] / alpha_bar[
        40
    ] == pytest.approx(float(1 - alpha_bar[90]))


@pytest.mark.parametrize("t", [1, 250, 999])
def test_velocity_is_diffusers(t: int) -> None:
    process, level = Gaussian(linear_schedule()), full(t + 1)
    v = process.velocity(X, EPS, level)
    torch.testing.assert_close(v, DDPM(1000).get_velocity(X, EPS, full(t)))
    noised = process.add_noise(X, level, EPS)
    torch.testing.assert_close(process.x0_from_velocity(noised, v, level), X, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("here", [2, 10, 500, 1000])
@pytest.mark.parametrize("stride", [1, 7])
def test_the_posterior_is_bayes_rule_for_normal_laws(here: int, stride: int) -> None:
    """Precisions add: q(x_there | x_0) times q(x_here | x_there), completed to a square."""
    there = max(here - stride, 1)
    process, alpha_bar = Gaussian(linear_schedule()), linear_schedule().alpha_bar
    x, clean = X.double(), EPS.double()
    ratio = (alpha_bar[here] / alpha_bar[there]).item()
    before, step = 1 / (1 - alpha_bar[there].item()), 1 / (1 - ratio)
    precision = before + ratio * step
    mean = (before * alpha_bar[there].sqrt() * clean + step * ratio**0.5 * x) / precision
    torch.testing.assert_close(process.posterior_mean(x, clean, full(here), full(there)), mean)
    back = process.reverse_step(
        clean, process.noise_from_x0(x, clean, full(here)), full(here), full(there), None
    )
    torch.testing.assert_close(back, mean)  # what a step down leads to without its noise


@pytest.mark.parametrize(
    ("t", "weight"),
    [(1, 0.5034), (10, 0.0519), (100, 0.00683), (300, 0.00405), (400, 0.00412), (500, 0.00454),
     (600, 0.00523), (900, 0.00856), (999, 0.00995)],
)  # fmt: skip
def test_the_divergence_of_a_step_has_the_papers_weights(t: int, weight: float) -> None:
    """KL = w (eps - eps')^2, scaled linear."""
    process, level = Gaussian(scaled_linear_schedule()), full(t + 1)
    x, eps, guess = X.double(), EPS.double(), Z.double()
    noised = process.add_noise(x, level, eps)
    kl = process.posterior_kl(x, process.x0_from_noise(noised, guess, level), level, level - 1)
    torch.testing.assert_close(kl / (eps - guess).square(), torch.full_like(x, weight), rtol=2e-3,
        atol=0)  # fmt: skip
    small = (1 - process.schedule.alpha_bar[t]) / (1 - process.schedule.alpha_bar[t + 1])
    small = (small * (1 - process.schedule.alpha_bar[t + 1] / process.schedule.alpha_bar[t])).item()
    means = [process.posterior_mean(noised, c, level, level - 1) for c in
        (x, process.x0_from_noise(noised, guess, level))]  # fmt: skip
    laws = [torch.distributions.Normal(mean, small**0.5) for mean in means]
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(*laws))


def test_carrying_up_and_down_keeps_x_0_and_noise() -> None:
    process, eps = Gaussian(linear_schedule()), EPS.double()
    up = process.combine(X.double(), eps, torch.tensor([0, 1, 300, 1000]))
    torch.testing.assert_close(
        up, process.add_noise(X.double(), torch.tensor([0, 1, 300, 1000]), eps)
    )
    down = process.reverse_step(X.double(), eps, full(700), full(300), None, eta=0.0)
    torch.testing.assert_close(down, process.combine(X.double(), eps, full(300)))


def test_a_region_is_disturbed_and_the_rest_is_as_it_was() -> None:
    region = torch.zeros(4, 1, 6, 5, dtype=torch.bool)
    region[:, :, 1:4, 2:] = True
    process = Gaussian(linear_schedule())
    out = add_noise_in_region(process, X, full(400), EPS, region)
    inside = region.expand_as(X)
    assert torch.equal(out[~inside], X[~inside])
    assert torch.equal(out[inside], process.add_noise(X, full(400), EPS)[inside])
    assert torch.equal(
        add_noise_in_region(process, X, full(9), EPS, None), process.add_noise(X, full(9), EPS)
    )
