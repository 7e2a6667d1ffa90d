"""Smooth random fields that have a value at every point, whatever grid they are looked at on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


class RandomField:
    """A stationary Gaussian field of mean 0 and variance about 1: a sum of random plane waves.

    length: over which it forgets itself, in the coordinates' unit; correlation exp(-d^2/2 length^2)
    Random Fourier features: Rahimi & Recht, NeurIPS 2007.
    """

    def __init__(
        self, rng: np.random.Generator, length: float, *, count: int = 48, axes: int = 3
    ) -> None:
        self.frequencies = rng.normal(0, 1 / length, (axes, count)).astype(np.float32)
        self.phase = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self.gain = np.float32(np.sqrt(2 / count))

    def on_grid(self, axes: Sequence[Floats]) -> Floats:
        """Its values on the regular grid that the axes span: (len(axes[0]), len(axes[1]), …).

        A wave on a grid is a product, cos(a + b) = cos a cos b - sin a sin b, where b depends on
        the last axis only: this costs few cosines.
        """
        *slow, fast = axes
        a = self.phase
        for axis, wave in zip(slow, self.frequencies, strict=False):
            a = a[..., None, :] + axis[:, None] * wave
        b = fast[:, None] * self.frequencies[-1]
        # einsum, not @: its sums have one order on any number of threads
        return self.gain * (
            np.einsum("...m,wm->...w", np.cos(a), np.cos(b))
            - np.einsum("...m,wm->...w", np.sin(a), np.sin(b))
        )

    def at_points(self, points: Floats) -> Floats:
        """Its values at points (axes, *any): (*any)."""
        flat = points.reshape(len(points), -1)
        out = np.empty(flat.shape[1], np.float32)
        for start in range(0, len(out), 16384):
            part = slice(start, start + 16384)
            angle = np.einsum("dn,dm->nm", flat[:, part], self.frequencies) + self.phase
            out[part] = self.gain * np.cos(angle).sum(1)
        return out.reshape(points.shape[1:])


def grid_points(axes: Sequence[Floats]) -> Floats:
    """The points of a regular grid: (number of axes, len(axes[0]), len(axes[1]), …)."""
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def smooth_step(distance: Floats, width: float) -> Floats:
    """From 0 (distance far below 0) to 1 (far above), over about 4 widths; 1/2 at 0."""
    return 1 / (1 + np.exp(np.clip(distance / np.float32(-width), -30, 30)))
