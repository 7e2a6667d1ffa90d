"""Patches of other samples interpolated into a sample: synthetic anomalies.

Foreign patch interpolation (Tan et al. 2020), in soft shapes as in DISYRE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..noise.pyramid import interpolate_grid
from ..runtime.rng import Rng


class PatchInterpolation:
    """A noise of another sample and a soft shape, (N, C + 1, *S); the last channel is the shape, 0
    outside to 1 inside.

    bank: samples (K, C, *S) to take patches from
    probability: of an anomaly, else the shape is empty
    size: smallest and largest radius along an axis, as shares of the side
    shift: standard deviation of what is added to a patch's brightness, which stays in 0..1

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.patch_interpolation import PatchInterpolation
    >>> noise = PatchInterpolation(torch.zeros(3, 1, 8, 8))
    >>> noise(Rng(["a"]), (1, 8, 8), torch.tensor([100])).shape
    torch.Size([1, 2, 8, 8])
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
        per_sample = (-1, *[1] * (len(extent) + 1))
        for axis, n in enumerate(extent):  # from another position in it, around its edges
            roll = rng.fork("roll", axis).integers(n // 2 + 1) - n // 4
            index = torch.arange(n, device=other.device) - roll[:, None]
            view = [len(other)] + [1] * (len(extent) + 1)
            view[2 + axis] = n
            other = other.take_along_dim(index.remainder(n).view(view), 2 + axis)
        if self.shift:
            brightness = self.shift * rng.fork("shift").normal((1,))
            other = (other + brightness.view(per_sample)).clamp(0, 1)
        blob = random_blobs(rng.fork("blob"), extent, self.size)
        anomalous = (rng.fork("chance").uniform() < self.probability).view(per_sample)
        return torch.cat([other, blob * anomalous], 1)


def random_blobs(rng: Rng, extent: Sequence[int], size: tuple[float, float]) -> Tensor:
    """Draw an ellipsoid of uneven surface and soft edge per sample, (N, 1, *extent) in 0..1.

    Its centre lies anywhere but near the edge.

    rng: one stream per sample
    extent: of the samples, without channels
    size: smallest and largest radius along an axis, as shares of the side

    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.patch_interpolation import random_blobs
    >>> random_blobs(Rng(["a", "b"]), [8, 8], (0.1, 0.2)).shape
    torch.Size([2, 1, 8, 8])
    """
    per_sample = (-1, *[1] * len(extent))
    distance = torch.zeros(len(rng), *extent, dtype=torch.float64, device=rng.device)
    for axis, n in enumerate(extent):
        centre, radius = rng.fork(axis).uniform((2,)).T
        position = torch.linspace(0, 1, n, dtype=torch.float64, device=rng.device)
        view = [1] * len(extent)
        view[axis] = n
        radius = (size[0] + (size[1] - size[0]) * radius).view(per_sample)
        centre = (0.1 + 0.8 * centre).view(per_sample)
        distance = distance + ((position.view(1, *view) - centre) / radius).square()
    surface = rng.fork("surface").normal((1, *[min(8, n) for n in extent]))
    depth = 1 - distance.sqrt() + 0.25 * interpolate_grid(surface, extent)[:, 0]
    return (6 * depth).sigmoid()[:, None].float()
