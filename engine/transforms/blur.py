"""Gaussian blur of maps and their enlargement, the same to the bit in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Literal

import torch
from torch import Tensor


def gaussian_blur(
    x: Tensor, deviation: float, *, mode: Literal["mirror", "symmetric"] = "mirror"
) -> Tensor:
    """(N, *S) with a Gaussian along each axis, up to four deviations, as SciPy has it.

    mode: beyond an edge the image is mirrored there: at the centre of the last pixel (SciPy's
    "mirror"), for as far as the image goes; or "symmetric", at the pixel's end, however far
    (NumPy's name; to SciPy it is "reflect", the default of its filters).
    """
    if deviation <= 0:
        return x
    for axis in range(1, x.ndim):
        size, reach = x.shape[axis], int(4 * deviation + 0.5)
        if mode == "symmetric":
            place = torch.arange(-reach, size + reach, device=x.device).remainder(2 * size)
            place = place.minimum(2 * size - 1 - place)
        else:
            reach = min(reach, size - 1)
            place = torch.arange(-reach, size + reach, device=x.device).abs()
            place = place.minimum(2 * (size - 1) - place)
        y = x.index_select(axis, place)
        weights = [exp(-(i**2) / (2 * deviation**2)) for i in range(-reach, reach + 1)]
        parts = [w * y.narrow(axis, i, size) for i, w in enumerate(weights)]
        x = sum(parts, torch.zeros_like(x)) / sum(weights)  # not conv2d: rows round alike so
    return x


def enlarge(x: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, h, w) -> (N, *shape), linear between the centres of pixels, and mirrored at the centres
    of the outermost, as scikit-image's `resize` does where it grows."""
    for axis, wide in zip((1, 2), shape, strict=True):
        size = x.shape[axis]
        at = (torch.arange(wide, dtype=torch.float64, device=x.device) + 0.5) * size / wide - 0.5
        at = at.abs()
        at = at.minimum(2 * (size - 1) - at).clamp(min=0)
        below = at.floor().long()
        part = (at - below).to(x.dtype).view((-1, 1) if axis == 1 else (-1,))
        low, high = (x.index_select(axis, i) for i in (below, (below + 1).clamp(max=size - 1)))
        x = (1 - part) * low + part * high
    return x
