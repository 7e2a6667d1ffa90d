"""The papers' equations in float64 NumPy, and toys known by a formula, for golden values.

Nothing here calls the engine. Levels are the engine's: level l is index l - 1 of the papers'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.engine.runtime.rng import Rng

Array = np.ndarray[Any, np.dtype[np.float64]]


def linear_alpha_bar(T: int = 1000) -> Array:
    """alpha_bar of levels 0..T: beta from 1e-4 to 0.02, scaled by 1000 / T (Ho et al. 2020)."""
    beta = np.linspace(1e-4, 0.02, T) * (1000 / T)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


def cosine_alpha_bar(T: int = 1000) -> Array:
    """alpha_bar of levels 0..T (Nichol & Dhariwal 2021, equation 17), beta at most 0.999."""
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - f[1:] / f[:-1], 0.999)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


def toy(x: Array, level: int) -> Array:
    """What `ToyNetwork` says: 0.3 x + 0.1 t / 1000, t = level - 1."""
    return 0.3 * x + 0.1 * (level - 1) / 1000


class ToyNetwork(nn.Module):
    """0.3 x + 0.1 t / 1000 in every channel, whatever it is conditioned on."""

    def forward(self, x: Tensor, timesteps: Tensor, *conditioning: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * timesteps.view(-1, *[1] * (x.ndim - 1)) / 1000


def table(purpose: str, level: int, shape: Sequence[int], repeat: int = 0) -> Array:
    """The noise for a purpose at a level, the same for every sample: waves of unit variance."""
    index = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    phase = 0.37 * level + 1.1 * sum(map(ord, purpose)) + 0.5 * repeat
    return np.sqrt(2) * np.cos(0.9 * index + phase)


class TableNoise:
    """A noise that is looked up in `table`, by what the stream was forked for; as float32."""

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        return torch.stack(
            [
                self._look_up(key, shape, at)
                for key, at in zip(rng.keys, level.tolist(), strict=True)
            ]
        )

    @staticmethod
    def _look_up(key: str, shape: Sequence[int], level: int) -> Tensor:
        *_, purpose, last = key.split("\0")
        name, repeat = (purpose, int(last)) if last.isdigit() else (last, 0)
        return torch.from_numpy(table(name, level, shape, repeat)).float()


def q_sample(x: Array, noise: Array, alpha_bar: float | Array) -> Array:
    """x_l of x_0 and noise."""
    return np.sqrt(alpha_bar) * x + np.sqrt(1 - alpha_bar) * noise


def x0_from_noise(x: Array, noise: Array, alpha_bar: float | Array) -> Array:
    """The x_0 that x_l and its noise imply."""
    return (x - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)


def ancestral_step(
    x: Array, clean: Array, noise: Array, alpha_bar: Array, level: int, *, large: bool = False
) -> Array:
    """DDPM's step from a level to the one below (Ho et al. 2020, equations 6, 7); nothing is added
    on arrival at level 0. large: beta is the variance, and not the posterior's."""
    a, b = alpha_bar[level], alpha_bar[level - 1]
    beta = 1 - a / b
    mean = np.sqrt(b) * beta / (1 - a) * clean + np.sqrt(1 - beta) * (1 - b) / (1 - a) * x
    variance = beta if large else beta * (1 - b) / (1 - a)
    return mean + (np.sqrt(variance) * noise if level > 1 else 0)


def ancestral_chain(
    x: Array,
    level: int,
    alpha_bar: Array,
    *,
    clip: tuple[float, float],
    large: bool = False,
    network: Callable[[Array, int], Array] = toy,
) -> Array:
    """From x_l to x_0 by all levels; the network predicts noise, its x_0 is clipped."""
    for at in range(level, 0, -1):
        clean = np.clip(x0_from_noise(x, network(x, at), alpha_bar[at]), *clip)
        noise = table("step", at, x.shape[1:])
        x = ancestral_step(x, clean, noise, alpha_bar, at, large=large)
    return x


def pictures(channels: int = 1, side: int = 16, count: int = 2) -> Array:
    """Samples in 0.1..0.9, (count, channels, side, side), multiples of 2**-20: exact in float32."""
    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    waves = [
        0.5 + 0.4 * np.sin(0.5 * row + 0.8 * k + n) * np.cos(0.3 * column + 0.4 * n)
        for n in range(count)
        for k in range(channels)
    ]
    rounded = np.round(np.stack(waves) * 2**20) / 2**20
    return rounded.reshape(count, channels, side, side)


def tensor(x: Array) -> Tensor:
    """In the precision of the methods."""
    return torch.from_numpy(x).float()


def agree(ours: Tensor, reference: Array, number: float, tolerance: float = 1e-5) -> None:
    """The reference's mean is the golden number, and ours is the reference to a share of its
    largest value."""
    assert reference.dtype == np.float64
    assert reference.mean() == pytest.approx(number, rel=1e-6, abs=1e-13)
    np.testing.assert_allclose(
        ours.detach().double().numpy(), reference, rtol=0, atol=tolerance * np.abs(reference).max()
    )
