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
    """Blur by a Gaussian along each axis, up to four deviations, as SciPy does; (N, *S).

    x: (N, *S)
    deviation: in pixels; 0 or less changes nothing
    mode: beyond an edge the image is mirrored there: at the centre of the last pixel (SciPy's
        "mirror"), for as far as the image goes; or "symmetric", at the pixel's end, however far
        (NumPy's name; to SciPy it is "reflect", the default of its filters)

    >>> import torch
    >>> from adbench.engine.transforms.blur import gaussian_blur
    >>> gaussian_blur(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), 0.5).round(decimals=2)
    tensor([[0.0000, 0.1100, 0.7900, 0.1100, 0.0000]])
    """
    if deviation <= 0:
        return x
    for axis in range(1, x.ndim):
        size, reach = x.shape[axis], int(4 * deviation + 0.5)
        if mode == "symmetric":
            index = torch.arange(-reach, size + reach, device=x.device).remainder(2 * size)
            index = index.minimum(2 * size - 1 - index)
        else:
            reach = min(reach, size - 1)
            index = torch.arange(-reach, size + reach, device=x.device).abs()
            index = index.minimum(2 * (size - 1) - index)
        padded = x.index_select(axis, index)
        weights = [exp(-(i**2) / (2 * deviation**2)) for i in range(-reach, reach + 1)]
        parts = [w * padded.narrow(axis, i, size) for i, w in enumerate(weights)]
        x = sum(parts, torch.zeros_like(x)) / sum(weights)  # not conv2d: rows round alike so
    return x


def enlarge(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Enlarge images linearly between the centres of pixels, (N, h, w) -> (N, *shape).

    Beyond the centres of the outermost pixels the image is mirrored, as in scikit-image's `resize`
    where it grows.

    x: (N, h, w)
    shape: (H, W), at least (h, w)

    >>> import torch
    >>> from adbench.engine.transforms.blur import enlarge
    >>> enlarge(torch.tensor([[[0.0, 1.0]]]), [1, 4])
    tensor([[[0.2500, 0.2500, 0.7500, 0.7500]]])
    """
    for axis, target in zip((1, 2), shape, strict=True):
        size = x.shape[axis]
        index = torch.arange(target, dtype=torch.float64, device=x.device)
        position = ((index + 0.5) * size / target - 0.5).abs()
        position = position.minimum(2 * (size - 1) - position).clamp(min=0)
        below = position.floor().long()
        share = (position - below).to(x.dtype).view((-1, 1) if axis == 1 else (-1,))
        low, high = (x.index_select(axis, i) for i in (below, (below + 1).clamp(max=size - 1)))
        x = (1 - share) * low + share * high
    return x
