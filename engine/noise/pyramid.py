"""Noise drawn on coarse grids: smooth fields that white noise of few values is stretched to.

Interpolated in float64 and then rounded, so that devices agree on the float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..runtime.rng import Rng

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Pyramid:
    """White noise on grids of which each has half as many places along every axis as the one
    before, stretched to the same size and added up; of unit variance at every place. As ANDi
    (arXiv 2312.01904) trains with.

    octaves: grids, the first as fine as the image; persistence: the height of each in terms of the
    one before; shared: one draw for all samples at a step
    """

    octaves: int = 6
    persistence: float = 0.8
    shared: bool = False

    def __post_init__(self) -> None:
        if self.octaves < 1 or self.persistence <= 0:
            raise ValueError(f"pyramid noise wants octaves, persistence > 0: {self}")

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        channels, *extent = _check_shape(shape)
        rng = rng.shared() if self.shared else rng
        total = torch.zeros(len(rng), *shape, dtype=torch.float64, device=rng.device)
        variance = torch.zeros(extent, dtype=torch.float64, device=rng.device)
        for octave in range(self.octaves):
            grid = [max(1, n >> octave) for n in extent]
            height = self.persistence**octave
            total += height * interpolate_grid(rng.normal((channels, *grid)), extent)
            variance += height**2 * _interpolated_variance(grid, extent, rng.device)
        return (total / variance.sqrt()).float()


@dataclass(frozen=True)
class Coarse:
    """White noise on a coarse grid, stretched to the image's size and rolled around its edges by
    any number of places. As denoising autoencoders are trained with: Kascenas et al., MIDL 2022.

    grid: places along every axis, the first and the last at the image's edges; deviation: of a
    place of the grid. Between two it is less. shared_roll: all samples are rolled alike at a step
    """

    grid: int = 16
    deviation: float = 0.2
    shared_roll: bool = False

    def __post_init__(self) -> None:
        if self.grid < 1 or self.deviation <= 0:
            raise ValueError(f"coarse noise wants grid, deviation > 0: {self}")

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        channels, *extent = _check_shape(shape)
        roll = rng.shared() if self.shared_roll else rng
        field = rng.normal((channels, *[min(self.grid, n) for n in extent]))
        field = interpolate_grid(
            self.deviation * field.double(), extent, align_corners=True
        ).float()
        for axis, n in enumerate(extent):
            place = torch.arange(n, device=rng.device) - roll.integers(n)[:, None]  # (N, n)
            sides = [len(rng)] + [1] * (len(extent) + 1)
            sides[2 + axis] = n
            field = field.take_along_dim(place.remainder(n).view(sides), 2 + axis)
        return field


def interpolate_grid(
    field: Tensor, extent: Sequence[int], *, align_corners: bool = False
) -> Tensor:
    """(N, C, *grid) -> (N, C, *extent) float64, linear between the centres of the grid's places.
    align_corners: the first and the last centre are those of the first and the last pixel."""
    mode = MODES[len(extent)]
    return interpolate(field.double(), size=list(extent), mode=mode, align_corners=align_corners)


def _interpolated_variance(
    grid: Sequence[int], extent: Sequence[int], device: torch.device
) -> Tensor:
    """The variance of stretched white noise at every place, (*extent,) float64: along an axis, the
    sum of the squared weights of a place; over axes, the product."""
    variance = torch.ones((), dtype=torch.float64, device=device)
    for few, n in zip(grid, extent, strict=True):
        weights = interpolate_grid(torch.eye(few, device=device)[:, None], [n])[:, 0]  # (few, n)
        variance = variance[..., None] * weights.square().sum(0)
    return variance


def _check_shape(shape: Sequence[int]) -> Sequence[int]:
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"this noise has one to three axes besides channels, not {shape[1:]}")
    return shape
