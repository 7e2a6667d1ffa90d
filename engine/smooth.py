"""Gaussian blur of maps, the same to the bit in any batch."""

from __future__ import annotations

from math import exp

import torch
from torch import Tensor
from torch.nn.functional import pad


def blurred(x: Tensor, deviation: float) -> Tensor:
    """(N, H, W) with a Gaussian along each axis, edges mirrored; up to four deviations, as SciPy
    has it, or as far as the image goes."""
    if deviation <= 0:
        return x
    for axis in (1, 2):
        size = x.shape[axis]
        reach = min(int(4 * deviation + 0.5), size - 1)
        weights = [exp(-(i**2) / (2 * deviation**2)) for i in range(-reach, reach + 1)]
        sides = (0, 0, reach, reach) if axis == 1 else (reach, reach, 0, 0)
        y = pad(x[:, None], sides, mode="reflect")[:, 0]
        parts = [w * y.narrow(axis, i, size) for i, w in enumerate(weights)]
        x = sum(parts, torch.zeros_like(x)) / sum(weights)  # not conv2d: rows round alike so
    return x
