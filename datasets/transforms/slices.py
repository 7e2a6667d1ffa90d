"""From volumes to slices: percentile scaling, display orientation, square crops, resizing,
selection.

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
    """Return values mapped linearly from low..high to 0..1 and clipped.

    values: any shape
    low, high: become 0 and 1
    inside: bool, of the same shape; the result is 0 where it is false

    >>> scale_intensity_range(np.array([0.0, 5.0, 20.0]), 0, 10).tolist()
    [0.0, 0.5, 1.0]
    """
    unit_values = ((values - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return unit_values if inside is None else np.where(inside, unit_values, np.float32(0))


def intensity_percentiles(
    data: np.ndarray, inside: np.ndarray | None = None, percentiles: tuple[float, float] = (1, 99)
) -> tuple[float, float] | None:
    """Return two percentiles of a volume; None if they are equal.

    data: (X, Y, Z)
    inside: bool, the voxels that count; None for those that are not exactly 0 (intensities may be
        negative)
    percentiles: in percent

    >>> intensity_percentiles(np.arange(101.0).reshape(1, 1, -1), percentiles=(50, 100))
    (50.5, 100.0)
    """
    data = data.T  # NIfTI keeps X innermost; the other way round this takes five times as long
    values = data[data != 0] if inside is None else data[inside.T]
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else None


def to_display_planes(stack: np.ndarray) -> Tensor:
    """Return a stack (N, Y, X) as planes (N, H, W) in display orientation.

    stack: Y to the front, X to the right

    >>> to_display_planes(np.array([[[1, 2], [3, 4]]])).tolist()
    [[[4, 3], [2, 1]]]
    """
    return torch.from_numpy(np.ascontiguousarray(stack[:, ::-1, ::-1]))


def pad_or_crop_square(planes: Tensor, side: int) -> Tensor:
    """Return the centre of (..., H, W), cropped or padded with zeros to (..., side, side).

    planes: (..., H, W)
    side: in pixels

    >>> tuple(pad_or_crop_square(torch.zeros(2, 5, 3), 4).shape)
    (2, 4, 4)
    """
    pads: list[int] = []
    for extent in (planes.shape[-1], planes.shape[-2]):
        before = (side - extent) // 2  # negative cuts
        pads += [before, side - extent - before]
    return F.pad(planes, pads)


def resize_square(planes: Tensor, side: int, size: int) -> Tensor:
    """Return the centre square of planes, averaged over areas, as float32.

    planes: (N, [C,] H, W)
    side: of the centre square, in pixels of the input
    size: of the result, in pixels

    >>> tuple(resize_square(torch.zeros(2, 8, 6), 8, 4).shape)
    (2, 4, 4)
    """
    middle = pad_or_crop_square(planes.float(), side)
    if side == size:
        return middle
    if middle.ndim == 3:
        return F.adaptive_avg_pool2d(middle[:, None], size)[:, 0]
    return F.adaptive_avg_pool2d(middle, size)


@dataclass(frozen=True)
class SliceStack:
    """The selected slices of one case.

    x: (N, C, H, W) in 0..1
    mask: (N, H, W) bool; None if no mask exists
    roi: (N, H, W) bool
    indices: index of each slice in its volume
    spacing: mm along rows and columns
    vanished_lesions: how many slices were left out because too little of their lesion remained
    tags: of every sample
    mask_area_ratios: area of the lesion in each slice that has one, relative to the area before
        resizing

    >>> SliceStack(torch.zeros(2, 1, 4, 4), None, torch.ones(2, 4, 4) > 0, [5, 6], None).indices
    [5, 6]
    """

    x: Tensor
    mask: Tensor | None
    roi: Tensor
    indices: Sequence[int]
    spacing: tuple[float, float] | None
    vanished_lesions: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    mask_area_ratios: Sequence[float] = ()

    def samples(self, name: str, group: str, *, label: bool = False) -> Iterator[Sample]:
        """Yield a sample of each slice.

        name: of the case; keys begin with it
        group: patient
        label: of slices without a mask
        """
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
    """Return the usable slices of a case; None if the crop would cut off a part of the brain.

    x: (N, C, H, W) in 0..1
    brain, lesion: (N, H, W) bool; lesion None if unknown
    indices: index of each slice in its volume
    size, crop: planes are padded to a square, or the centre `crop` is cut out, then averaged over
        areas to `size`; masks are true where more than half an area is
    spacing: mm along rows and columns
    min_brain: slices are left out in which less than this part of all pixels is brain
    min_lesion: slices with a lesion of which fewer pixels remain are left out and counted
    tags: of every sample

    >>> brain = torch.ones(2, 8, 8) > 0
    >>> stack = select_slices(torch.ones(2, 1, 8, 8), brain, None, [3, 4], size=4, spacing=None)
    >>> tuple(stack.x.shape)
    (2, 1, 4, 4)
    """
    side = crop or max(size, *brain.shape[1:])
    if pad_or_crop_square(brain, side).sum() < brain.sum():
        return None
    roi = resize_square(brain, side, size) > 0.5
    keep = brain.float().mean((1, 2)) >= min_brain
    mask, vanished, ratios = None, 0, list[float]()
    if lesion is not None:
        mask = resize_square(lesion, side, size) > 0.5
        too_small = lesion.any(2).any(1) & (mask.sum((1, 2)) < min_lesion)
        keep, vanished = keep & ~too_small, int(too_small.sum())
        areas, areas_before = mask.sum((1, 2)) * (side / size) ** 2, lesion.sum((1, 2))
        ratios = (areas / areas_before)[keep & (areas_before > 0)].tolist()
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
        mask_area_ratios=ratios,
    )


def volume_shape_text(shape: Sequence[int]) -> str:
    """Return the extent of a stored volume in words.

    shape: along each axis

    >>> volume_shape_text((240, 240, 155))
    '240 x 240 x 155 voxels'
    """
    return f"{' x '.join(map(str, shape))} voxels"


def vanished_lesions_text(size: int, min_lesion: int) -> str:
    """Return the description of the number of slices left out for a vanished lesion.

    size: of the planes, in pixels
    min_lesion: in pixels

    >>> vanished_lesions_text(64, 10)
    'slices left out because fewer than 10 pixels of their lesion remain at size 64 (min_lesion)'
    """
    return (
        f"slices left out because fewer than {min_lesion} pixels of their lesion remain at size "
        f"{size} (min_lesion)"
    )
