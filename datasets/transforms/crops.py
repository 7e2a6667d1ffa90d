"""What layouts of whole volumes share: upright axes, and a box of one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..io.nifti import Volume

Spacing = tuple[float, ...]


def to_display_axes(volume: Volume) -> tuple[np.ndarray, Spacing]:
    """A RAS+ volume as (D, H, W): from the feet up, front to back, the patient's right to left;
    and mm along these axes."""
    return np.ascontiguousarray(volume.data.T[:, ::-1, ::-1]), volume.spacing[::-1]


def crop_and_resize(
    x: Tensor, size: Sequence[int], spacing: Spacing, *, crop: Sequence[int] | None = None
) -> tuple[Tensor, Spacing]:
    """(D, H, W) as float32 averages over areas (size), and mm per step then.

    crop: the middle to cut out first, where an axis is longer
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
