"""Guided DDIM and DDPM stage by stage: schedule, noising, a step, chains, losses, map and score,
against numbers of the specification and the authors' loops written out in float64.

The toy network says eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0, and -0.4 of the variance;
the toy classifier's gradient is 0.1 - 0.2 x.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian, interpolate_variance
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.networks.noisy_classifier import NoisyClassifier
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.rng import Rng
from adbench.methods.guided import Guided
from small import build_small

SPEC = Spec(2, (16, 16), labels=True)
BETA = np.linspace(1e-4, 0.02, 1000)
BAR = np.cumprod(1 - BETA)  # as the authors' arrays: of t = 0..999
ALPHA_BAR = np.concatenate([[1.0], BAR])  # of levels 0..1000
VARIANCE = -0.4
SCALE = 2.0


class Toy(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        eps = 0.3 * x + 0.1 * t.view(-1, 1, 1, 1).to(x.dtype) / 1000
        return torch.cat([eps, torch.full_like(eps, VARIANCE)], 1)


class ToyClassifier(nn.Module):
    def log_prob_gradient(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        return 0.1 - 0.2 * x


def toy(x: np.ndarray, t: int) -> np.ndarray:
    return 0.3 * x + 0.1 * t / 1000


def gradient(x: np.ndarray) -> np.ndarray:
    return 0.1 - 0.2 * x


def estimate(x: np.ndarray, t: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The clipped x_0 and the noise that it implies."""
    clean = ((x - (1 - BAR[t]) ** 0.5 * toy(x, t)) / BAR[t] ** 0.5).clip(low, high)
    return clean, (x - BAR[t] ** 0.5 * clean) / (1 - BAR[t]) ** 0.5


def guided_ddim_step(x: np.ndarray, t: int, end: float, low: float, high: float) -> np.ndarray:
    """Down to alpha_bar `end`; x_0 is not clipped after guidance."""
    eps = estimate(x, t, low, high)[1] - SCALE * (1 - BAR[t]) ** 0.5 * gradient(x)
    clean = (x - (1 - BAR[t]) ** 0.5 * eps) / BAR[t] ** 0.5
    return end**0.5 * clean + (1 - end) ** 0.5 * eps


def learned_variance(high: int, low: int) -> float:
    """Between the posterior's variance and beta, of the step between two levels above 0."""
    a, b = ALPHA_BAR[high], ALPHA_BAR[low]
    large, share = 1 - a / b, (VARIANCE + 1) / 2
    small = (1 - b) / (1 - a) * large
    return math.exp(share * math.log(large) + (1 - share) * math.log(small))


def posterior_mean(x: np.ndarray, clean: np.ndarray, high: int, low: int) -> np.ndarray:
    a, b = ALPHA_BAR[high], ALPHA_BAR[low]
    return b**0.5 * (1 - a / b) / (1 - a) * clean + (a / b) ** 0.5 * (1 - b) / (1 - a) * x


def draw(rng: Rng, shape: tuple[int, ...], level: int) -> np.ndarray:
    levels = torch.full((len(rng),), level)
    return gaussian(rng, shape, levels).double().numpy()


def guided(**settings: Any) -> Any:
    settings = {
        "size": None,
        "class_cond": False,
        "sampling_steps": None,
        "scale": SCALE,
    } | settings
    method = build_small(Guided, SPEC, **settings).eval()
    method.denoiser = Denoiser(Toy(), linear_schedule(), learns_variance=True).eval()
    method.classifier = ToyClassifier()
    return method


def uniform(count: int) -> tuple[Tensor, list[str]]:
    keys = [f"x{i}" for i in range(count)]
    return Rng(keys).uniform((2, 16, 16)).double(), keys


def check(method: Any, x: Tensor, keys: list[str], level: int, healthy: np.ndarray) -> None:
    """The map is the sum of absolute differences over channels, the score its mean."""
    detection = method.detect(x, [level], Rng(keys))
    close: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-8}
    np.testing.assert_allclose(detection.reconstruction[0].numpy(), healthy, **close)
    map = np.abs(healthy - x.numpy()).sum(1)
    np.testing.assert_allclose(detection.map[0].numpy(), map, **close)
    np.testing.assert_allclose(detection.score[0].numpy(), map.mean((1, 2)), **close)


def test_the_schedule_is_the_authors() -> None:
    alpha_bar = linear_schedule().alpha_bar
    np.testing.assert_allclose(alpha_bar.numpy(), ALPHA_BAR, rtol=1e-11)
    golden = {0: (0.99995, 0.01), 149: (0.88787, 0.46009), 199: (0.81181, 0.58392),
              249: (0.72394, 0.68987), 499: (0.28033, 0.95990), 749: (0.05788, 0.99832),
              999: (0.00635, 0.99998)}  # fmt: skip
    for t, (signal, noise) in golden.items():
        assert alpha_bar[t + 1].sqrt().item() == pytest.approx(signal, abs=5e-6)
        assert (1 - alpha_bar[t + 1]).sqrt().item() == pytest.approx(noise, abs=5e-6)


def test_noise_and_the_learned_variance() -> None:
    """At t = 500 beta is .0100600, the posterior's variance .0100513, and half way .0100556."""
    process = Gaussian(linear_schedule())
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    noisy = process.add_noise(x, torch.tensor([250]), 2 * x)
    assert noisy.item() == pytest.approx(0.72394 + 2 * 0.68987, abs=2e-5)  # of rounded factors
    a, b = (torch.tensor(ALPHA_BAR[level]) for level in (501, 500))
    small, large = (1 - b) / (1 - a) * (1 - a / b), 1 - a / b
    assert large.item() == pytest.approx(0.0100600, abs=1e-7)
    assert small.item() == pytest.approx(0.0100513, abs=1e-7)
    between = interpolate_variance(small, large, torch.zeros(1)).item()
    assert between == pytest.approx(0.0100556, abs=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("level", [1, 2, 30])
def test_ddim_up_and_down(level: int) -> None:
    """Up from level 0 to the level, whose first call is at t = 0, and down again with guidance."""
    method, (x, keys) = guided(), uniform(2)
    y = x.numpy()
    for start in range(level):
        t = max(start - 1, 0)
        eps = estimate(y, t, 0, 1)[1]
        a, b = ALPHA_BAR[start], ALPHA_BAR[start + 1]
        y = b**0.5 * (y - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
    for start in range(level, 0, -1):
        y = guided_ddim_step(y, start - 1, ALPHA_BAR[start - 1], 0, 1)
    check(method, x, keys, level, y)


@torch.no_grad()
def test_ddim_as_the_authors_code_runs() -> None:
    """Noise of t = 0, up for t = 1..L - 1, down for t = L - 2..0, clipped to [-1, 1]."""
    method = guided(first_noise=True, index_shift=True, clip=(-1.0, 1.0))
    (x, keys), count = uniform(2), 30
    noise = draw(Rng(keys).fork("first"), (2, 16, 16), 1)
    y = BAR[0] ** 0.5 * x.numpy() + (1 - BAR[0]) ** 0.5 * noise
    for t in range(1, count):
        clean, eps = estimate(y, t, -1, 1)
        y = BAR[t + 1] ** 0.5 * clean + (1 - BAR[t + 1]) ** 0.5 * eps
    for t in range(count - 2, -1, -1):
        y = guided_ddim_step(y, t, BAR[t - 1] if t else 1.0, -1, 1)
    check(method, x, keys, count, y)


@torch.no_grad()
@pytest.mark.parametrize("steps", [None, 7])
def test_ddpm_with_a_guided_mean(steps: int | None) -> None:
    """mean + variance * scale * gradient, and noise of that variance; the last step has neither."""
    method = guided(sampler="ddpm", sampling_steps=steps)
    (x, keys), level = uniform(2), 30
    rng = Rng(keys).fork("repeat", 0)
    noise = draw(rng.fork("start"), (2, 16, 16), level)
    y = ALPHA_BAR[level] ** 0.5 * x.numpy() + (1 - ALPHA_BAR[level]) ** 0.5 * noise
    for high, low in pairwise(sampling_levels(level, steps)):
        mean = posterior_mean(y, estimate(y, high - 1, 0, 1)[0], high, low)
        if low:
            variance = learned_variance(high, low)
            noise = draw(rng.fork("step").at(high), (2, 16, 16), high)
            mean = mean + variance * SCALE * gradient(y) + variance**0.5 * noise
        y = mean
    check(method, x, keys, level, y)


def test_the_loss_is_the_squared_error_and_the_bound_in_bits() -> None:
    """The bound of the variance alone: KL of two normal distributions, and at t = 0 the
    likelihood of 8-bit values."""
    x, keys = uniform(40)
    rng = Rng(keys)
    level = 1 + rng.fork("level").integers(3)  # of levels 1 to 3, so that t = 0 is often there
    noise = gaussian(rng.fork("noise"), x.shape[1:], level).double().numpy()
    expected = []
    for x0, at, eps in zip(x.numpy(), level.tolist(), noise, strict=True):
        noisy = ALPHA_BAR[at] ** 0.5 * x0 + (1 - ALPHA_BAR[at]) ** 0.5 * eps
        text = toy(noisy, at - 1)
        clean = (noisy - (1 - ALPHA_BAR[at]) ** 0.5 * text) / ALPHA_BAR[at] ** 0.5
        mean = posterior_mean(noisy, clean, at, at - 1)
        beta, step = BETA[at - 1], max(at, 2) - 1  # the first variance stands in for that of t = 0
        small = BETA[step] * (1 - BAR[step - 1]) / (1 - BAR[step])
        share = (VARIANCE + 1) / 2
        variance = math.exp(share * math.log(beta) + (1 - share) * math.log(small))
        true = posterior_mean(noisy, x0, at, at - 1)
        bound = (math.log(variance / small) + (small + (true - mean) ** 2) / variance - 1) / 2
        if at == 1:
            deviation = variance**0.5
            above = np.where(x0 > 0.999, 1, norm.cdf((x0 + 1 / 255 - mean) / deviation))
            below = norm.cdf((x0 - 1 / 255 - mean) / deviation)
            bound = -np.log((above - below).clip(1e-12))
        expected.append(((text - eps) ** 2).mean() + (bound / math.log(2)).mean())
    assert {1, 2, 3} == set(level.tolist())
    loss = Denoiser(Toy(), linear_schedule(), learns_variance=True).loss(x, rng, max_level=3)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6)


def test_the_classifiers_loss_is_the_cross_entropy_in_nats() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)), t / 1000], 1)

    x, keys = uniform(5)
    rng = Rng(keys)
    label = torch.tensor([0, 1, 1, 0, 1])
    level = 1 + rng.fork("level").integers(250)
    noise = gaussian(rng.fork("noise"), x.shape[1:], level).double().numpy()
    expected = []
    for x0, at, eps, y in zip(x.numpy(), level.tolist(), noise, label.tolist(), strict=True):
        noisy = ALPHA_BAR[at] ** 0.5 * x0 + (1 - ALPHA_BAR[at]) ** 0.5 * eps
        logits = np.array([noisy.mean(), (at - 1) / 1000])
        expected.append(np.log(np.exp(logits).sum()) - logits[y])
    loss = NoisyClassifier(Net(), linear_schedule()).loss(x, label, rng, max_level=250)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)
