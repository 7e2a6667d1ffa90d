"""Display orientation of whole volumes, and cropping and resizing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..io.nifti import Volume

Spacing = tuple[float, ...]


def to_display_axes(volume: Volume) -> tuple[np.ndarray, Spacing]:
    """Return a RAS+ volume as (D, H, W), and mm per step along these axes.

    D runs from the feet up, H from front to back, W from the patient's right to left.

    volume: with RAS+ axes

    >>> volume = Volume(np.zeros((2, 3, 4)), np.eye(4), (1.0, 2.0, 3.0), "RAS", np.eye(4), "")
    >>> data, spacing = to_display_axes(volume)
    >>> data.shape, spacing
    ((4, 3, 2), (3.0, 2.0, 1.0))
    """
    return np.ascontiguousarray(volume.data.T[:, ::-1, ::-1]), volume.spacing[::-1]


def crop_and_resize(
    x: Tensor, size: Sequence[int], spacing: Spacing, *, crop: Sequence[int] | None = None
) -> tuple[Tensor, Spacing]:
    """Return a volume averaged over areas to a size, as float32, and its new spacing.

    x: (D, H, W)
    size: of the result, three numbers
    spacing: mm per step of x along its axes
    crop: extent of the centre crop that is taken first; axes that are shorter stay

    >>> import torch
    >>> x, spacing = crop_and_resize(torch.zeros(8, 8, 8), (4, 4, 4), (1.0, 1.0, 1.0))
    >>> tuple(x.shape), spacing
    ((4, 4, 4), (2.0, 2.0, 2.0))
    """
    if crop is not None:
        for axis, (extent, limit) in enumerate(zip(x.shape, crop, strict=True)):
            cropped = min(extent, limit)
            x = x.narrow(axis, (extent - cropped) // 2, cropped)
    steps = tuple(mm * extent / new for mm, extent, new in zip(spacing, x.shape, size, strict=True))
    x = x.float()
    if tuple(x.shape) != tuple(size):
        deep, high, wide = size
        x = F.adaptive_avg_pool3d(x[None, None], (deep, high, wide))[0, 0]
    return x, steps
