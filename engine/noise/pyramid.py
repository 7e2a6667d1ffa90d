"""Noise drawn on coarse grids: smooth fields interpolated from few values of white noise.

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
    """White noise on ever coarser grids, interpolated to the same size and added up, of unit
    variance at every pixel. As ANDi (arXiv 2312.01904) trains with.

    octaves: number of grids; the first is as fine as the image, each other has half as many points
        along every axis as the one before
    persistence: the amplitude of each in terms of the one before
    shared: one draw for all samples at a step

    >>> import torch
    >>> from adbench.engine.noise.pyramid import Pyramid
    >>> from adbench.engine.runtime.rng import Rng
    >>> Pyramid(octaves=2)(Rng(["a"]), (1, 8, 8), torch.tensor([250])).shape
    torch.Size([1, 1, 8, 8])
    """

    octaves: int = 6
    persistence: float = 0.8
    shared: bool = False

    def __post_init__(self) -> None:
        if self.octaves < 1 or self.persistence <= 0:
            raise ValueError(f"pyramid noise needs octaves, persistence > 0: {self}")

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        channels, *extent = _check_shape(shape)
        rng = rng.shared() if self.shared else rng
        total = torch.zeros(len(rng), *shape, dtype=torch.float64, device=rng.device)
        variance = torch.zeros(extent, dtype=torch.float64, device=rng.device)
        for octave in range(self.octaves):
            grid = [max(1, n >> octave) for n in extent]
            amplitude = self.persistence**octave
            total += amplitude * interpolate_grid(rng.normal((channels, *grid)), extent)
            variance += amplitude**2 * _interpolated_variance(grid, extent, rng.device)
        return (total / variance.sqrt()).float()


@dataclass(frozen=True)
class Coarse:
    """White noise on a coarse grid, interpolated to the image's size and rolled around its edges by
    any number of pixels. As denoising autoencoders are trained with: Kascenas et al., MIDL 2022.

    grid: points along every axis, the first and the last at the image's edges
    deviation: standard deviation of a grid point; between two points it is less
    shared_roll: all samples are rolled alike at a step

    >>> import torch
    >>> from adbench.engine.noise.pyramid import Coarse
    >>> from adbench.engine.runtime.rng import Rng
    >>> Coarse(grid=4)(Rng(["a"]), (1, 8, 8), torch.tensor([250])).shape
    torch.Size([1, 1, 8, 8])
    """

    grid: int = 16
    deviation: float = 0.2
    shared_roll: bool = False

    def __post_init__(self) -> None:
        if self.grid < 1 or self.deviation <= 0:
            raise ValueError(f"coarse noise needs grid, deviation > 0: {self}")

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        channels, *extent = _check_shape(shape)
        roll = rng.shared() if self.shared_roll else rng
        field = rng.normal((channels, *[min(self.grid, n) for n in extent]))
        field = self.deviation * field.double()
        field = interpolate_grid(field, extent, align_corners=True).float()
        for axis, n in enumerate(extent):
            index = torch.arange(n, device=rng.device) - roll.integers(n)[:, None]  # (N, n)
            sides = [len(rng)] + [1] * (len(extent) + 1)
            sides[2 + axis] = n
            field = field.take_along_dim(index.remainder(n).view(sides), 2 + axis)
        return field


def interpolate_grid(
    field: Tensor, extent: Sequence[int], *, align_corners: bool = False
) -> Tensor:
    """Interpolate linearly between the centres of grid points: (N, C, *grid) -> (N, C, *extent).

    The result is float64.

    field: values of the grid points
    extent: the size to reach, one to three axes
    align_corners: the first and the last centre are those of the first and the last pixel

    >>> import torch
    >>> from adbench.engine.noise.pyramid import interpolate_grid
    >>> interpolate_grid(torch.tensor([[[0.0, 1.0]]]), [3], align_corners=True)
    tensor([[[0.0000, 0.5000, 1.0000]]], dtype=torch.float64)
    """
    mode = MODES[len(extent)]
    return interpolate(field.double(), size=list(extent), mode=mode, align_corners=align_corners)


def _interpolated_variance(
    grid: Sequence[int], extent: Sequence[int], device: torch.device
) -> Tensor:
    """The variance of interpolated white noise at every pixel, (*extent,) float64: along an axis,
    the sum of a pixel's squared weights; over axes, the product."""
    variance = torch.ones((), dtype=torch.float64, device=device)
    for points, n in zip(grid, extent, strict=True):
        weights = interpolate_grid(torch.eye(points, device=device)[:, None], [n])[
            :, 0
        ]  # (points, n)
        variance = variance[..., None] * weights.square().sum(0)
    return variance


def _check_shape(shape: Sequence[int]) -> Sequence[int]:
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"this noise has one to three axes besides channels, not {shape[1:]}")
    return shape
