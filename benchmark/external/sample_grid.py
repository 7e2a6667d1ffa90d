"""Maps on the grid of the samples: those given there already, and those on the input's own grid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from PIL import Image
from torch.nn import functional as F

from ...datasets.base import DataError, Dataset
from ...datasets.io.images import ORIENTATION
from ...datasets.io.nifti import Volume
from ...datasets.io.nifti_names import is_nifti
from ...datasets.preparation.file_dataset import FileDataset
from ...datasets.transforms.crops import to_display_axes
from ...datasets.transforms.input_grid import OnInputGrid
from .map_files import MapFile

Array = np.ndarray[Any, Any]

SLICE_KEY = re.compile(r"(?P<subject>.+)/z(?P<index>[+-]?\d+)", re.DOTALL)
"""The key of a slice: that of its subject, and its place in the volume."""

MAX_DISTANCE = 1e-3
"""How far two affines of one grid may differ, in mm."""


def split_slice_key(key: str) -> tuple[str, int] | None:
    """The subject of a slice's key, and its index; None for the key of another sample.

    >>> split_slice_key("p1/z003"), split_slice_key("p1")
    (('p1', 3), None)
    """
    match = SLICE_KEY.fullmatch(key)
    return (match["subject"], int(match["index"])) if match else None


class SampleGrid:
    """Brings stored maps to the grid of the samples of a dataset.

    dataset: prepared        shape: S of a whole image, which its maps have
    subjects: of samples that are slices, the indices of each subject's slices, ascending

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.external.sample_grid import SampleGrid
    >>> from adbench.datasets.phantom import Phantom
    >>> grid = SampleGrid(Phantom(shape=(8,)), (8,), {})
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "p1.npy")
    ...     np.save(path, np.arange(8).reshape(1, 8))  # of a method that keeps an axis of channels
    ...     grid.read(MapFile(path, "npy", "p1.npy"), "p1").tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """

    def __init__(
        self, dataset: Dataset, shape: Sequence[int], subjects: Mapping[str, Sequence[int]]
    ) -> None:
        self.dataset, self.shape, self.subjects = dataset, tuple(shape), subjects
        self._last: tuple[MapFile, Any] | None = None

    def read(self, file: MapFile, key: str) -> Array:
        """The map of a sample, (*S) float32.

        file: of the sample, or a NIfTI file of the subject that the sample is a slice of
        Raises DataError where it has neither the shape of the sample nor the grid of its input.
        """
        stored = self._read(file)
        if isinstance(stored, Volume):
            return self._of_volume(stored, file, key)
        squeezed = stored.squeeze()
        if squeezed.shape == tuple(n for n in self.shape if n > 1):
            return squeezed.reshape(self.shape)
        if len(self.shape) == 2 and stored.shape == self._image_size(key):
            x = torch.from_numpy(np.ascontiguousarray(stored))[None, None]
            high, wide = self.shape
            x = F.interpolate(x, (high, wide), mode="bilinear", antialias=True, align_corners=False)
            return x[0, 0].numpy()
        raise self._wrong_shape(file, stored.shape)

    def _read(self, file: MapFile) -> Array | Volume:
        """The stored map; that of a subject is not read again for its next slice."""
        if self._last is None or self._last[0] != file:
            self._last = (file, file.read())
        return self._last[1]

    def _of_volume(self, volume: Volume, file: MapFile, key: str) -> Array:
        planes, _ = to_display_axes(volume)
        if len(self.shape) == 3:
            if planes.shape == self.shape:
                return planes
            return self._from_input(volume, file, key).numpy()
        slice_of = split_slice_key(key)
        if len(self.shape) != 2 or slice_of is None:
            raise DataError(f"{file.name} is a volume, and {key} is neither one nor a slice of one")
        subject, index = slice_of
        indices = self.subjects[subject]
        if planes.shape[1:] == self.shape and len(planes) == len(indices):
            return planes[list(indices).index(index)]
        if planes.shape[1:] == self.shape and indices[0] >= 0 and indices[-1] < len(planes):
            return planes[index]
        return self._from_input(volume, file, subject)[index].numpy()

    def _from_input(self, volume: Volume, file: MapFile, case: str) -> torch.Tensor:
        """The map on the grid of the input of a case, as samples are made of that."""
        grid = self._input_grid(case)
        shape = volume.data.shape
        if grid is None or grid[0] != shape or not isinstance(self.dataset, OnInputGrid):
            raise self._wrong_shape(file, shape, None if grid is None else grid[0])
        if not np.allclose(grid[1], volume.affine, atol=MAX_DISTANCE):
            raise DataError(
                f"{file.name} has the shape of its input, {_text(shape)}, but another affine: "
                "write it with the affine of the input"
            )
        return self.dataset.map_to_samples(volume)

    @cached_property
    def _input_files(self) -> dict[str, Path]:
        """The (first) image file of each case, by the name of the case."""
        if not isinstance(self.dataset, FileDataset):
            return {}
        cases = self.dataset.build_index(self.dataset.find_root()).cases
        files = {}
        for case in cases:
            images = [path for role, path in case.files.items() if role not in ("mask", "seg")]
            files |= {case.name: images[0]} if images else {}
        return files

    def _input_grid(self, case: str) -> tuple[tuple[int, ...], Array] | None:
        """Shape and affine of the input of a case as `read_volume` orients it, from the header."""
        path = self._input_files.get(case)
        if path is None or not is_nifti(path.name):
            return None
        image = nib.Nifti1Image.from_filename(path)
        shape = tuple(int(n) for n in (*image.shape[:3], 1, 1)[:3])
        axes = io_orientation(image.affine)
        nothing = np.broadcast_to(np.float32(0), shape)
        return apply_orientation(nothing, axes).shape, image.affine @ inv_ornt_aff(axes, shape)

    def _image_size(self, key: str) -> tuple[int, int] | None:
        """Rows and columns of the image file of a sample, upright; None where there is none."""
        path = self._input_files.get(key)
        if path is None or is_nifti(path.name):
            return None
        try:
            with Image.open(path) as image:
                wide, high = image.size
                turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # PIL raises many kinds; the image was read when the data were prepared
            return None
        return (wide, high) if turned else (high, wide)

    def _wrong_shape(
        self, file: MapFile, shape: Sequence[int], own: Sequence[int] | None = None
    ) -> DataError:
        grid = f"the samples have {_text(self.shape)}"
        more = f", the input {_text(own)}" if own is not None else ""
        return DataError(f"{file.name} has the shape {_text(shape)}; {grid}{more}")


def _text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
