"""LDM stage by stage: schedule, noising, a step, chains, loss, divergence, threshold, map and
score, against numbers of the specification and the equations written out in float64.

The toy denoiser is eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0; codes are means of 2 x 2
pixels, and decoded by repeating them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import build_schedule, sampling_levels
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.ldm import LDM
from small import build_small

SPEC = Spec(1, (16, 16))
ALPHA_BAR = np.concatenate(
    [[1.0], np.cumprod(1 - np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)]
)


class Toy(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * t.view(-1, *[1] * (x.ndim - 1)).to(x.dtype) / 1000


def toy(x: np.ndarray, level: int) -> np.ndarray:
    return 0.3 * x + 0.1 * (level - 1) / 1000


def noised(x: np.ndarray, level: int, noise: np.ndarray) -> np.ndarray:
    return ALPHA_BAR[level] ** 0.5 * x + (1 - ALPHA_BAR[level]) ** 0.5 * noise


def ancestral(x: np.ndarray, high: int, low: int, noise: np.ndarray) -> np.ndarray:
    """The posterior of Ho et al. 2020, equations 6 and 7, of the step from one level to another."""
    a, b = ALPHA_BAR[high], ALPHA_BAR[low]
    beta = 1 - a / b
    clean = (x - (1 - a) ** 0.5 * toy(x, high)) / a**0.5
    mean = b**0.5 * beta / (1 - a) * clean + (a / b) ** 0.5 * (1 - b) / (1 - a) * x
    return mean + (beta * (1 - b) / (1 - a)) ** 0.5 * noise


def draw(rng: Rng, shape: tuple[int, ...], level: int) -> np.ndarray:
    levels = torch.full((len(rng),), level)
    return gaussian(rng.at(levels), shape, levels).double().numpy()


def ldm(**settings: Any) -> Any:
    method = build_small(LDM, SPEC, size=None, **settings).eval()
    method.codec.encode = lambda x: nn.functional.avg_pool2d(x, 2).repeat(1, 4, 1, 1)
    method.codec.decode = lambda z: z[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    method.denoiser = Denoiser(Toy(), build_schedule("scaled_linear")).eval()
    return method


def uniform(count: int, name: str) -> tuple[Tensor, list[str]]:
    keys = [f"{name}{i}" for i in range(count)]
    return Rng(keys).uniform((1, 16, 16)).double(), keys


def expected_divergence(z: np.ndarray, rng: Rng, levels: list[int]) -> np.ndarray:
    """w_t (eps - eps_hat)^2, summed over channels, mean over levels."""
    total = np.zeros_like(z[:, 0])
    for level in levels:
        noise = draw(rng.fork("divergence"), z.shape[1:], level)
        a, b = ALPHA_BAR[level], ALPHA_BAR[level - 1]
        beta, alpha = 1 - a / b, a / b
        posterior = beta * (1 - b) / (1 - a)
        weight = beta**2 / (2 * posterior * alpha * (1 - a))
        error = noise - toy(noised(z, level, noise), level)
        total += (weight * error**2).sum(1) / len(levels)
    return total


def test_noise_and_one_ancestral_step() -> None:
    """z_0 1, noise 2, at level 501 (alpha_bar .11492): .339 + 1.8816."""
    process = Gaussian(build_schedule("scaled_linear"))
    z, level = torch.ones(1, 1, 2, dtype=torch.float64), torch.tensor([501])
    noisy = process.add_noise(z, level, 2 * z)
    assert noisy[0, 0, 0].item() == pytest.approx(0.11492**0.5 + 2 * 0.88508**0.5, abs=1e-5)
    eps = Toy()(noisy, level - 1)
    clean = process.x0_from_noise(noisy, eps, level)
    for low in (500, 450, 0):
        step = process.reverse_step(
            clean, eps, level, torch.tensor([low]), torch.full_like(z, -1.5)
        )
        theirs = ancestral(noisy.numpy(), 501, low, np.full((1, 1, 2), -1.5))
        np.testing.assert_allclose(step.numpy(), theirs, rtol=1e-9)


def test_the_loss_is_the_squared_error_of_the_noise() -> None:
    method, (x, keys) = ldm(), uniform(3, "x")
    z, rng = method.codec.encode(x), Rng(keys)
    level = 1 + rng.fork("level").integers(1000)
    noise = gaussian(rng.fork("noise"), z.shape[1:], level).double().numpy()
    expected = [
        ((toy(noised(z0, at, eps), at) - eps) ** 2).mean()
        for z0, at, eps in zip(z.numpy(), level.tolist(), noise, strict=True)
    ]
    np.testing.assert_allclose(method.denoiser.loss(z, rng).numpy(), expected, rtol=1e-9)


@torch.no_grad()
def test_the_divergence_and_its_threshold() -> None:
    """The threshold is the 97.5th percentile at each place of the code."""
    method = ldm(divergence=(400, 600, 3), calibration=40)
    x, keys = uniform(40, "h")
    z = method.codec.encode(x)
    kappa = expected_divergence(z.numpy(), Rng(keys), [400, 500, 600])
    np.testing.assert_allclose(method.divergence(z, Rng(keys)).numpy(), kappa, rtol=1e-9)
    samples = [Sample(row.float(), k, k, False) for row, k in zip(x, keys, strict=True)]
    method._calibrate(samples, TrainingContext())
    calibration = expected_divergence(z.numpy(), Rng(keys).fork("calibrate"), [400, 500, 600])
    np.testing.assert_allclose(method.tau[0], np.quantile(calibration, 0.975, 0), rtol=1e-4)


@torch.no_grad()
def test_the_plain_round_trip_its_map_and_score() -> None:
    method, (x, keys) = ldm(healing="plain", sampling_steps=4), uniform(2, "x")
    z, rng = method.codec.encode(x), Rng(keys).fork("repeat", 0)
    levels = sampling_levels(300, 4)
    assert levels == [300, 225, 150, 75, 0]
    y = noised(z.numpy(), 300, draw_start(rng, z.shape[1:], 300))
    for high, low in pairwise(levels):
        y = ancestral(y, high, low, draw(rng.fork("step"), z.shape[1:], high))
    restored = y[:, :1].repeat(2, 2).repeat(2, 3)
    detection = method.detect(x, [300], Rng(keys))
    map = np.abs(restored - x.numpy()).mean(1)
    np.testing.assert_allclose(detection.reconstruction[0].numpy(), restored, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(detection.map[0].numpy(), map, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(detection.score[0].numpy(), map.mean((1, 2)), rtol=1e-8)


def draw_start(rng: Rng, shape: tuple[int, ...], level: int) -> np.ndarray:
    levels = torch.full((len(rng),), level)
    return gaussian(rng.fork("start"), shape, levels).double().numpy()


@torch.no_grad()
@pytest.mark.parametrize("judged", ["map", "divergence"])
def test_masked_inpainting_its_map_and_score(judged: str) -> None:
    """Where the divergence is above the threshold a step is the process's, elsewhere the code at
    the step's end."""
    method = ldm(divergence=(400, 600, 2), sampling_steps=4, judged=judged)
    x, keys = uniform(2, "x")
    z, rng = method.codec.encode(x), Rng(keys)
    kappa = expected_divergence(z.numpy(), rng, [400, 600])
    tau = np.median(kappa)
    method.tau.fill_(float(tau))
    region = (kappa > tau)[:, None]
    levels = torch.full((2,), 500)
    start = gaussian(rng.fork("start", 0).at(500), z.shape[1:], levels).double().numpy()
    y = noised(z.numpy(), 500, start)
    for high, low in pairwise(sampling_levels(500, 4)):
        inside = ancestral(y, high, low, draw(rng.fork("region", 0), z.shape[1:], high))
        outside = noised(z.numpy(), low, draw(rng.fork("known", 0), z.shape[1:], high))
        y = np.where(region, inside, outside)
    restored = y[:, :1].repeat(2, 2).repeat(2, 3)
    detection = method.detect(x, [500], Rng(keys))
    np.testing.assert_allclose(detection.reconstruction[0].numpy(), restored, rtol=1e-8, atol=1e-9)
    map = np.abs(restored - x.numpy()).mean(1)
    score = map.mean((1, 2)) if judged == "map" else kappa.mean((1, 2))
    np.testing.assert_allclose(detection.map[0].numpy(), map, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(detection.score[0].numpy(), score, rtol=1e-8)


def test_the_weights_of_the_divergence_are_the_specifications() -> None:
    """beta^2 / (2 sigma^2 alpha (1 - alpha_bar)) is half the gain of the signal-to-noise ratio
    times (1 - alpha_bar) / alpha_bar."""
    golden = {1: 0.5034, 10: 0.0519, 100: 0.00683, 300: 0.00405, 400: 0.00412, 500: 0.00454,
              600: 0.00523, 900: 0.00856, 999: 0.00995}  # fmt: skip
    process = Gaussian(build_schedule("scaled_linear"))
    for t, weight in golden.items():
        level, one = torch.tensor([t + 1]), torch.ones(1, 1, 1, dtype=torch.float64)
        ratio = ((1 - ALPHA_BAR[t + 1]) / ALPHA_BAR[t + 1]) ** 0.5  # an error of the noise of 1
        kl = process.posterior_kl(one, one * (1 - ratio), level, level - 1).item()
        assert kl == pytest.approx(weight, rel=2e-3)
