"""Maps of planes and volumes put back on the grid of the file that they were cut from.

The way back is the way there in reverse: enlarge, undo crop or padding, stack planes, turn the axes
as they are stored. How much was cropped is read off the samples: their spacing is that of the file
times the factor by which they were made smaller.

Letters: N planes, h x w pixels of a sample, X Y Z voxels to the patient's right, front and top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from torch.nn import functional as F

from ...datasets.base import DataError, Sample
from ...datasets.io.nifti import MM_PER_UNIT, STORED_ORIENTATION
from .inputs import PLANE

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class VolumeGrid:
    """The grid of a NIfTI file, and how samples were cut from it.

    image: the file, its voxels unread
    shape: (X, Y, Z) with axes to the right, front and top, or as stored
    spacing: mm per step along them
    axes: the orientation of the file that leads there
    display: whether samples are turned for display; else they lie as they are stored
    step: of each so many planes, one was looked at
    """

    image: nib.Nifti1Image
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: Array
    display: bool
    step: int = 1

    @classmethod
    def of_file(cls, path: Path, *, display: bool, step: int = 1) -> VolumeGrid:
        """Read the header of a file; display, step: as of the grid.

        >>> import nibabel as nib
        >>> import numpy as np
        >>> from adbench.benchmark.prediction.grids import VolumeGrid
        >>> affine = np.diag([-1.0, 1.0, 3.0, 1.0])
        >>> nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine).to_filename("grid.nii")
        >>> grid = VolumeGrid.of_file(Path("grid.nii"), display=True)
        >>> grid.shape, grid.spacing
        ((4, 5, 6), (1.0, 1.0, 3.0))
        """
        image = nib.load(path)
        assert isinstance(image, nib.Nifti1Image)  # it was read as one before
        stored = (*image.shape, 1, 1)[:3]
        affine = np.asarray(image.affine, np.float64)
        axes = io_orientation(affine) if display else STORED_ORIENTATION
        canonical = affine @ inv_ornt_aff(axes, stored)
        unit = MM_PER_UNIT.get(str(image.header.get_xyzt_units()[0]), 1.0)
        order = np.argsort(axes[:, 0])
        x, y, z = (stored[i] for i in order.tolist())
        dx, dy, dz = (float(step) * unit for step in voxel_sizes(canonical))
        return cls(image, (x, y, z), (dx, dy, dz), axes, display, step)

    def restore(self, maps: Array, samples: Sequence[Sample], *, smooth: bool = True) -> Array:
        """Maps of the samples of a file as one array with the axes of the file, as stored.

        Planes that the dataset passes over for its `step` get values between those of their
        neighbours; whatever else was not looked at is 0.

        maps: (N, h, w) of planes, or (1, d, h, w) of the whole volume
        samples: whose maps they are
        smooth: interpolate; false takes the nearest value, for masks
        Raises DataError where the samples do not fit the file.
        """
        values = torch.from_numpy(np.ascontiguousarray(maps, np.float32))
        if maps.ndim == 4:
            volume = self._restore_volume(values[0], samples[0], smooth=smooth)
        else:
            volume = self._restore_planes(values, samples, smooth=smooth)
        back = ornt_transform(STORED_ORIENTATION, self.axes)
        return np.ascontiguousarray(apply_orientation(volume, back))

    def _restore_planes(
        self, maps: torch.Tensor, samples: Sequence[Sample], *, smooth: bool
    ) -> Array:
        x, y, z = self.shape
        if not self.display:
            if z != 1 or len(samples) != 1:
                raise DataError("is no single plane: its maps cannot be put back")
            side = self._extent(samples[0], 0, self.spacing[0])
            return _fit(_enlarge(maps, (side, side), smooth=smooth), (x, y))[0][..., None].numpy()
        side = self._extent(samples[0], 0, self.spacing[1])
        planes = _fit(_enlarge(maps, (side, side), smooth=smooth), (y, x)).numpy()
        levels = [int(match[1]) for s in samples if (match := PLANE.search(s.key))]
        if len(levels) != len(samples) or max(levels) >= z:
            raise DataError("holds planes whose place is unknown: their maps cannot be put back")
        stack = np.zeros((z, y, x), np.float32)
        stack[levels] = planes[:, ::-1, ::-1]
        _fill_between(stack, levels, self.step, smooth=smooth)
        return stack.T

    def _restore_volume(self, values: torch.Tensor, sample: Sample, *, smooth: bool) -> Array:
        x, y, z = self.shape
        mm = self.spacing[::-1] if self.display else self.spacing
        extents = [self._extent(sample, axis, mm[axis]) for axis in range(3)]
        enlarged = _enlarge(values[None], extents, smooth=smooth)
        if not self.display:
            return _fit(enlarged, (x, y, z))[0].numpy()
        return np.ascontiguousarray(_fit(enlarged, (z, y, x))[0].numpy()[:, ::-1, ::-1].T)

    def _extent(self, sample: Sample, axis: int, mm: float) -> int:
        """Voxels of the file along an axis of a sample, before it was made smaller."""
        size = sample.x.shape[1 + axis]
        if sample.spacing is None:
            raise DataError("has no spacing: its maps cannot be put back")
        extent = sample.spacing[axis] * size / mm
        if abs(extent - round(extent)) > 0.01:
            raise DataError("was resampled in a way that is unknown: its maps cannot be put back")
        return round(extent)

    def save(self, values: Array, path: Path) -> None:
        """Write values on the grid of the file, with its affine and codes; bool becomes uint8.

        values: (X, Y, Z) as stored
        """
        data = values.astype(np.uint8) if values.dtype == np.bool_ else values.astype(np.float32)
        header = self.image.header.copy()
        header.set_data_dtype(data.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        nib.save(type(self.image)(data, self.image.affine, header), path)


def _enlarge(maps: torch.Tensor, size: Sequence[int], *, smooth: bool) -> torch.Tensor:
    """Maps (N, *S) at a larger size; the centre of an area stays where it is."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    mode = "nearest-exact"
    if smooth:
        mode = "bilinear" if maps.ndim == 3 else "trilinear"
    corners = False if smooth else None
    return F.interpolate(maps[:, None], list(size), mode=mode, align_corners=corners)[:, 0]


def _fit(maps: torch.Tensor, extents: Sequence[int]) -> torch.Tensor:
    """Undo a crop or padding around the centre: maps (N, *S) of the extents, 0 where cut off."""
    pads: list[int] = []
    for extent, side in zip(reversed(extents), reversed(maps.shape[1:]), strict=True):
        before = (side - extent) // 2  # as pad_or_crop_square has it
        if maps.ndim == 4:
            before = -((extent - side) // 2)  # as crop_and_resize has it
        pads += [-before, extent - side + before]
    return F.pad(maps, pads)


def _fill_between(stack: Array, levels: Sequence[int], step: int, *, smooth: bool) -> None:
    """Fill the planes between two levels that are at most `step` apart, in place."""
    for low, high in pairwise(levels):
        for level in range(low + 1, high) if high - low <= step else ():
            share = (level - low) / (high - low)
            if not smooth:
                share = float(share > 0.5)
            stack[level] = (1 - share) * stack[low] + share * stack[high]
