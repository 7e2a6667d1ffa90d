"""Smooth Gaussian random fields that can be evaluated at every point and on every grid.

Coordinates are float64, and so is everything computed from them: see `quantisation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


class RandomField:
    """A stationary Gaussian field of mean 0 and variance about 1: a sum of random plane waves.

    rng: draws the waves
    length: correlation length, in the unit of the coordinates; the correlation at distance d is
        exp(-d^2 / (2 length^2))
    count: number of waves
    axes: number of coordinates

    Random Fourier features: Rahimi & Recht, NeurIPS 2007.

    >>> field = RandomField(np.random.default_rng(0), 2.0, axes=2)
    >>> field.on_grid([np.arange(4.0), np.arange(5.0)]).shape
    (4, 5)
    """

    def __init__(
        self, rng: np.random.Generator, length: float, *, count: int = 48, axes: int = 3
    ) -> None:
        self.frequencies = rng.normal(0, 1 / length, (axes, count)).astype(np.float32)
        self.phase = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self.gain = np.float32(np.sqrt(2 / count))

    def on_grid(self, axes: Sequence[Floats]) -> Floats:
        """Return the field on a regular grid: (len(axes[0]), len(axes[1]), ...).

        axes: coordinates along each axis

        A wave on a grid is a product of waves along its axes, exp(i (a + b)) = exp(ia) exp(ib), for
        which few cosines are needed.
        """
        *slow, fast = axes
        wave: NDArray[np.complex128] = np.exp(1j * self.phase.astype(np.float64))
        for axis, frequencies in zip(slow, self.frequencies, strict=False):
            wave = wave[..., None, :] * np.exp(1j * axis[:, None] * frequencies)
        last = np.exp(1j * fast[:, None] * self.frequencies[-1])
        parts = np.concatenate([wave.real, -wave.imag], -1)
        return self.gain * (parts @ np.concatenate([last.real, last.imag], -1).T)

    def at_points(self, points: Floats) -> Floats:
        """Return the field at points (axes, *any), as (*any)."""
        flat = points.reshape(len(points), -1)
        out = np.empty(flat.shape[1])
        for start in range(0, len(out), 16384):
            part = slice(start, start + 16384)
            angle = np.einsum("dn,dm->nm", flat[:, part], self.frequencies) + self.phase
            out[part] = self.gain * np.cos(angle).sum(1)
        return out.reshape(points.shape[1:])


def grid_points(axes: Sequence[Floats]) -> Floats:
    """Return the points of a regular grid: (number of axes, len(axes[0]), len(axes[1]), ...).

    axes: coordinates along each axis

    >>> grid_points([np.arange(2.0), np.arange(3.0)]).shape
    (2, 2, 3)
    """
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def smooth_step(distance: Floats, width: float) -> Floats:
    """Return a smooth step of a distance: near 0 far below 0, 1/2 at 0, near 1 far above.

    distance: in any unit
    width: the step takes about 4 widths, in the same unit

    >>> smooth_step(np.array([-10.0, 0.0, 10.0]), 1.0).round(2).tolist()
    [0.0, 0.5, 1.0]
    """
    return 1 / (1 + np.exp(np.clip(distance / np.float32(-width), -30, 30)))
