"""Patches of other samples put into a sample: anomalies that nobody has to draw.

Foreign patch interpolation (Tan et al. 2020), in soft shapes as in DISYRE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..noise.pyramid import interpolate_grid
from ..runtime.rng import Rng


class PatchInterpolation:
    """A noise that is another sample, and a shape: (N, C + 1, *S), the last channel the shape,
    0 outside to 1 inside.

    bank: samples (K, C, *S) to take patches from; probability: of an anomaly, else the shape is
    empty
    size: smallest and largest radius along an axis, in terms of the side
    shift: deviation of what is added to a patch's brightness, which stays in 0..1
    """

    def __init__(
        self,
        bank: Tensor,
        *,
        probability: float = 1.0,
        size: Sequence[float] = (0.05, 0.25),
        shift: float = 0.0,
    ) -> None:
        self.bank, self.probability, self.size = bank, probability, (size[0], size[1])
        self.shift = shift

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        other = self.bank[rng.fork("other").integers(len(self.bank)).to(self.bank.device)]
        extent = shape[1:]
        for axis, n in enumerate(extent):  # from another place of it, around its edges
            place = torch.arange(n, device=other.device)
            place = place - (rng.fork("roll", axis).integers(n // 2 + 1) - n // 4)[:, None]
            sides = [len(other)] + [1] * (len(extent) + 1)
            sides[2 + axis] = n
            other = other.take_along_dim(place.remainder(n).view(sides), 2 + axis)
        if self.shift:
            by = self.shift * rng.fork("shift").normal((1,))
            other = (other + by.view(-1, *[1] * (len(extent) + 1))).clamp(0, 1)
        blob = random_blobs(rng.fork("blob"), extent, self.size)
        wanted = (rng.fork("chance").uniform() < self.probability).view(
            -1, *[1] * (len(extent) + 1)
        )
        return torch.cat([other, blob * wanted], 1)


def random_blobs(rng: Rng, extent: Sequence[int], size: tuple[float, float]) -> Tensor:
    """An ellipsoid of uneven surface and soft edge per sample, (N, 1, *extent) in 0..1; its centre
    lies anywhere but near the edge."""
    shape = (-1, *[1] * len(extent))
    distance = torch.zeros(len(rng), *extent, dtype=torch.float64, device=rng.device)
    for axis, n in enumerate(extent):
        centre, radius = rng.fork(axis).uniform((2,)).T
        place = torch.linspace(0, 1, n, dtype=torch.float64, device=rng.device)
        sides = [1] * len(extent)
        sides[axis] = n
        radius = size[0] + (size[1] - size[0]) * radius
        away = (place.view(1, *sides) - (0.1 + 0.8 * centre).view(shape)) / radius.view(shape)
        distance = distance + away.square()
    uneven = interpolate_grid(rng.fork("surface").normal((1, *[min(8, n) for n in extent])), extent)
    depth = 1 - distance.sqrt() + 0.25 * uneven[:, 0]
    return (6 * depth).sigmoid()[:, None].float()
