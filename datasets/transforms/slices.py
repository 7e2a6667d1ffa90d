"""From volumes to planes: scaled by percentiles, turned as radiologists look, squared, averaged
over areas, and rid of those that show nothing.

A stack is (N, Y, X): N axial slices of a RAS+ volume, Y to the patient's front, X to the right.
A plane is (H, W): rows from front to back, columns from the patient's right to left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Sample


def scale_intensity_range(
    values: np.ndarray, low: float, high: float, inside: np.ndarray | None = None
) -> np.ndarray:
    """Low to high becomes 0 to 1, what lies beyond is clipped; zero outside of `inside`."""
    unit_values = ((values - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return unit_values if inside is None else np.where(inside, unit_values, np.float32(0))


def intensity_percentiles(
    data: np.ndarray, inside: np.ndarray | None = None, percentiles: tuple[float, float] = (1, 99)
) -> tuple[float, float] | None:
    """Two percentiles of a volume inside a mask, or where it is not exactly zero (intensities may
    be negative); None where these are one number."""
    data = data.T  # NIfTI keeps X innermost; the other way round this takes five times as long
    values = data[data != 0] if inside is None else data[inside.T]
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else None


def to_display_planes(stack: np.ndarray) -> Tensor:
    """A stack to the right and front as planes to the back and left."""
    return torch.from_numpy(np.ascontiguousarray(stack[:, ::-1, ::-1]))


def pad_or_crop_square(planes: Tensor, side: int) -> Tensor:
    """The middle of (..., H, W), cut or padded with zeros to (..., side, side)."""
    pads: list[int] = []
    for extent in (planes.shape[-1], planes.shape[-2]):
        before = (side - extent) // 2  # negative cuts
        pads += [before, side - extent - before]
    return F.pad(planes, pads)


def resize_square(planes: Tensor, side: int, size: int) -> Tensor:
    """The middle square (side) of (N, [C,] H, W), as float32 averages over areas (size)."""
    middle = pad_or_crop_square(planes.float(), side)
    if side == size:
        return middle
    if middle.ndim == 3:
        return F.adaptive_avg_pool2d(middle[:, None], size)[:, 0]
    return F.adaptive_avg_pool2d(middle, size)


@dataclass(frozen=True)
class SliceStack:
    """N planes of one case. x: (N, C, H, W); mask, roi: (N, H, W); mask None where undrawn.

    indices: the slice each comes from
    vanished_lesions: how many slices were left out because too little of their lesion remained
    """

    x: Tensor
    mask: Tensor | None
    roi: Tensor
    indices: Sequence[int]
    spacing: tuple[float, float] | None
    vanished_lesions: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)

    def samples(self, name: str, group: str, *, label: bool = False) -> Iterator[Sample]:
        """label: of planes whose masks nobody has drawn"""
        for index, level in enumerate(self.indices):
            mask = None if self.mask is None else self.mask[index]
            yield Sample(
                x=self.x[index],
                key=f"{name}/z{level:03d}",
                group=group,
                label=label if mask is None else bool(mask.any()),
                mask=mask,
                roi=self.roi[index],
                spacing=self.spacing,
                tags=self.tags,
            )


def select_slices(
    x: Tensor,
    brain: Tensor,
    lesion: Tensor | None,
    indices: Sequence[int],
    *,
    size: int,
    spacing: tuple[float, float] | None,
    crop: int | None = None,
    min_brain: float = 0.0,
    min_lesion: int = 1,
    tags: Mapping[str, str] | None = None,
) -> SliceStack | None:
    """The planes worth keeping; None where the crop cuts off a part of the brain.

    x: (N, C, H, W) in 0..1; brain, lesion: (N, H, W) bool; spacing: mm along rows and columns
    size, crop: planes are padded to a square, or the middle `crop` is cut out, then averaged over
        areas to `size`; masks are true where more than half an area is
    min_brain: planes are left out in which less than this part of all pixels is brain
    min_lesion: planes with a lesion of which fewer pixels remain are left out and counted
    """
    side = crop or max(size, *brain.shape[1:])
    if pad_or_crop_square(brain, side).sum() < brain.sum():
        return None
    roi = resize_square(brain, side, size) > 0.5
    keep = brain.float().mean((1, 2)) >= min_brain
    mask, vanished = None, 0
    if lesion is not None:
        mask = resize_square(lesion, side, size) > 0.5
        too_small = lesion.any(2).any(1) & (mask.sum((1, 2)) < min_lesion)
        keep, vanished = keep & ~too_small, int(too_small.sum())
        mask = mask[keep]
    return SliceStack(
        x=resize_square(x, side, size)[keep],
        mask=mask,
        roi=roi[keep],
        indices=[
            level for level, is_selected in zip(indices, keep.tolist(), strict=True) if is_selected
        ],
        spacing=None if spacing is None else (spacing[0] * side / size, spacing[1] * side / size),
        vanished_lesions=vanished,
        tags=tags or {},
    )


def vanished_lesions_text(size: int, min_lesion: int) -> str:
    """What a total of vanished slices is called."""
    return (
        f"slices left out because fewer than {min_lesion} pixels of their lesion remain at size "
        f"{size} (min_lesion)"
    )
