"""The noise that is added to samples: white noise, simplex fields, or noise on coarser grids.

Every sample's noise comes from its own stream, so it is the same in any batch and on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor

from ..runtime.rng import Rng
from .pyramid import Coarse, Pyramid
from .simplex import simplex_fields, simplex_planes
from .simplex_tables import DEVIATION, DEVIATION2, Octaves

Noise = Callable[[Rng, Sequence[int], Tensor], Tensor]
"""(streams of N samples, shape (C, *S), level (N,) in 1..T) -> (N, C, *S) float32."""


@dataclass(frozen=True)
class Gaussian:
    """Standard normal noise, independent at every value and the same at any level.

    shared: one draw for all samples at a step, as some published code has it

    >>> import torch
    >>> from adbench.engine.noise.noise import Gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> Gaussian()(Rng(["a", "b"]), (1, 8, 8), torch.tensor([250, 250])).shape
    torch.Size([2, 1, 8, 8])
    """

    shared: bool = False

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        return _select_streams(rng, self.shared).normal(shape)


gaussian = Gaussian()


@dataclass(frozen=True)
class Simplex:
    """Octaves of simplex noise; every sample, channel and call has a field of its own. Wyatt et
    al. 2022 (AnoDDPM), as in the authors' code.

    octaves: fields added up, each of half the wavelength of the one before
    persistence: the amplitude of each in terms of the one before
    frequency: the longest wavelength, in pixels (the paper's word for it)
    normalise: divide by the theoretical standard deviation, about 0.5; the authors do not
    origin_jitter: move every octave by itself, within [0, 256)^3 wavelengths. Unmoved, all are
        zero at the origin and alike around it, which shows in the top left corner at low levels
    z: where a line or an image lies in the third dimension, in pixels: "t", at the timestep
        level - 1, as the authors have it; "zero"; or "random", anywhere. A volume has three axes
    shared: one field for all samples at a step, as published code has it for a batch
    generator: of which dimension. "2d" has no z and a deviation of about 0.59 instead of 0.5;
        lines and volumes are of "3d" all the same

    >>> from adbench.engine.noise.noise import Simplex
    >>> round(Simplex().deviation, 3)
    0.505
    """

    octaves: int = 6
    persistence: float = 0.8
    frequency: float = 64.0
    normalise: bool = False
    origin_jitter: bool = False
    z: Literal["t", "zero", "random"] = "t"
    shared: bool = False
    generator: Literal["2d", "3d"] = "3d"

    def __post_init__(self) -> None:
        if self.octaves < 1 or self.persistence <= 0 or self.frequency <= 0:
            raise ValueError(f"simplex noise needs octaves, persistence, frequency > 0: {self}")
        if self.z not in ("t", "zero", "random"):
            raise ValueError(f"z of simplex noise is t, zero or random, not {self.z!r}")
        if self.generator not in ("2d", "3d"):
            raise ValueError(f"a generator of simplex noise is 2d or 3d, not {self.generator!r}")

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        channels, *extent = shape
        if not 1 <= len(extent) <= 3:
            raise ValueError(f"simplex noise has one to three axes besides channels, not {extent}")
        rng = _select_streams(rng, self.shared)
        seeds = rng.seeds(channels)
        offset = torch.zeros(1, dtype=torch.float64, device=rng.device)
        if self.origin_jitter:
            offset = rng.uniform((channels, self.octaves, 3)) * 256
        offset = offset.expand(len(rng), channels, self.octaves, 3).flatten(0, 1)
        if self.generator == "2d" and len(extent) == 2:
            octaves = self._scaled_octaves(DEVIATION2)
            field = simplex_planes(seeds.flatten(), extent, octaves, offset[..., :2])
            return field.view(len(rng), *shape)
        D, H, W = [1] * (3 - len(extent)) + extent
        field = simplex_fields(
            seeds.flatten(),
            (D, H, W),
            self._scaled_octaves(DEVIATION),
            self._z_coordinates(rng, level, extent).repeat_interleave(channels, 0),
            offset,
        )
        return field.view(len(rng), *shape)

    @property
    def deviation(self) -> float:
        """The theoretical standard deviation of the sum in images, before any normalisation."""
        return self._total_deviation(DEVIATION2 if self.generator == "2d" else DEVIATION)

    def _total_deviation(self, deviation: float) -> float:
        """The standard deviation of the sum of octaves, from that of one octave."""
        return deviation * sum(self.persistence ** (2 * o) for o in range(self.octaves)) ** 0.5

    def _scaled_octaves(self, deviation: float) -> Octaves:
        scale = self._total_deviation(deviation) if self.normalise else 1.0
        return Octaves(
            tuple(self.frequency / 2**o for o in range(self.octaves)),
            tuple(self.persistence**o / scale for o in range(self.octaves)),
        )

    def _z_coordinates(self, rng: Rng, level: Tensor, extent: Sequence[int]) -> Tensor:
        """z of each sample's planes in pixels, (N, D) float64."""
        level = level.to(rng.device)
        if len(extent) == 3:
            return torch.arange(extent[0], device=rng.device).double().expand(len(rng), -1)
        if self.z == "random":
            return rng.uniform((1,)) * (256 * self.frequency)
        depth = level - 1 if self.z == "t" else torch.zeros_like(level)
        return depth.double()[:, None]


NoiseName = Literal["gaussian", "simplex", "pyramid", "coarse"]


def build_noise(
    name: str,
    *,
    octaves: int = 6,
    persistence: float = 0.8,
    frequency: float = 64.0,
    normalise: bool = False,
    origin_jitter: bool = False,
    z: Literal["t", "zero", "random"] = "t",
    grid: int = 16,
    deviation: float = 0.2,
    shared: bool = False,
    generator: Literal["2d", "3d"] = "3d",
) -> Noise:
    """Build the noise of that name; arguments of the others are ignored.

    Its `str` names the class and every argument, for a checkpoint to store.

    name: gaussian, simplex, pyramid or coarse; ValueError for another
    octaves, persistence: of simplex and pyramid
    frequency, normalise, origin_jitter, z, generator: of simplex
    grid, deviation: of coarse
    shared: one draw for all samples at a step

    >>> from adbench.engine.noise.noise import build_noise
    >>> build_noise("pyramid", octaves=3)
    Pyramid(octaves=3, persistence=0.8, shared=False)
    """
    factories: dict[str, Callable[[], Noise]] = {
        "gaussian": lambda: Gaussian(shared),
        "simplex": lambda: Simplex(
            octaves, persistence, float(frequency), normalise, origin_jitter, z, shared, generator
        ),
        "pyramid": lambda: Pyramid(octaves, persistence, shared),
        "coarse": lambda: Coarse(grid, deviation, shared),
    }
    if name in factories:
        return factories[name]()
    close = get_close_matches(name, factories, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"no noise is named {name!r}, there are {', '.join(factories)}{hint}")


def _select_streams(rng: Rng, shared: bool) -> Rng:
    return rng.shared() if shared else rng
