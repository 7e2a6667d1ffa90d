"""Resizing and padding of samples to the size and range of a network, and back.

Samples come as the dataset lays them out, in [0, 1]. Papers fix a side length (96, 128, 256) and
a range ([-1, 1] or [0, 1]); networks need sides that halve evenly. One leaderboard compares them
all, so maps are made at the dataset's size and in its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate, pad

from .amplitude import SILENCE

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class ResizePad:
    """Resizing, padding and scaling between a dataset's samples and a network.

    shape: S of the samples
    size: what the longest axis becomes, the others in proportion; None leaves S as it is. A
        signal, of one axis, is never resized: the mean over areas of a wave is silence
    divisor: every side is padded to a multiple of it, with background (0) or with silence
    low, high: what 0 and 1 of the data become

    >>> from adbench.engine.transforms.resizing import ResizePad
    >>> canvas = ResizePad((60, 40), size=32, divisor=8)
    >>> canvas.resized_shape, canvas.padded_shape
    ((32, 21), (32, 24))
    """

    shape: tuple[int, ...]
    size: int | None = None
    divisor: int = 1
    low: float = -1.0
    high: float = 1.0

    @property
    def resized_shape(self) -> tuple[int, ...]:
        """S after resizing, before padding."""
        if self.size is None or len(self.shape) == 1:
            return self.shape
        return tuple(max(1, round(n * self.size / max(self.shape))) for n in self.shape)

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """S of the network's input."""
        return tuple(-(-n // self.divisor) * self.divisor for n in self.resized_shape)

    @property
    def range(self) -> tuple[float, float]:
        """low and high."""
        return self.low, self.high

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) in [0, 1] -> (N, C, *padded_shape) in [low, high]."""
        return self._pad(resize(x, self.resized_shape)) * (self.high - self.low) + self.low

    def inverse(self, y: Tensor) -> Tensor:
        """(..., C, *padded_shape) in [low, high] -> (..., C, *S) in [0, 1]; values outside the
        range stay outside."""
        lead, ndim = y.shape[: -len(self.shape)], len(self.shape)
        sides = zip(self._padding_before(), self.resized_shape, strict=True)
        y = y[(..., *(slice(before, before + n) for before, n in sides))]
        y = (y - self.low) / (self.high - self.low)
        y = resize(y.reshape(-1, 1, *y.shape[-ndim:]), self.shape)
        return y.view(*lead, *self.shape)

    def _pad(self, x: Tensor) -> Tensor:
        padding = []
        sides = zip(self._padding_before(), self.resized_shape, self.padded_shape, strict=True)
        for before, n, padded in reversed(list(sides)):
            padding += [before, padded - n - before]
        fill = SILENCE if len(self.shape) == 1 else 0.0
        return pad(x, padding, value=fill) if any(padding) else x

    def _padding_before(self) -> list[int]:
        sides = zip(self.resized_shape, self.padded_shape, strict=True)
        return [(padded - n) // 2 for n, padded in sides]


def resize(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize (N, C, *S) -> (N, C, *shape): the mean over areas where it shrinks, linear where it
    grows.

    x: one to three axes
    shape: to reach

    >>> from adbench.engine.transforms.resizing import resize
    >>> import torch
    >>> resize(torch.tensor([[[0.0, 2.0, 4.0, 6.0]]]), [2])
    tensor([[[1., 5.]]])
    """
    if tuple(x.shape[2:]) == tuple(shape):
        return x
    if any(new < old for new, old in zip(shape, x.shape[2:], strict=True)):
        smaller = [min(new, old) for new, old in zip(shape, x.shape[2:], strict=True)]
        x = interpolate(x, size=smaller, mode="area")
    if tuple(x.shape[2:]) != tuple(shape):
        x = interpolate(x, size=list(shape), mode=MODES[len(shape)], align_corners=False)
    return x
