"""Base class of datasets of 2-D images: an image and perhaps a mask per case, resized and tiled."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from ..base import DataError, Sample, Spec
from ..io.directories import find_files
from ..io.folder_names import is_mask_folder
from ..io.hdf5_arrays import Array
from ..io.images import SUFFIXES, read_image, read_mask, resize, resize_mask, stored_colours
from ..io.value_range import ValueRange, outside_range_text
from ..splits.assignment import Case
from ..transforms.tiles import cut_tiles, tile_starts
from .cases import CaseSamples, DatasetIndex
from .file_dataset import FileDataset


class ImageDataset(FileDataset, ABC):
    """Base class for image folders; file roles are "image", and "mask" where there is one;
    several masks ("mask 2", ...) are united.

    A subclass sets these constructor arguments with `_set_image_options`, and calls `_infer_spec`
    at the end of `build_index`.

    size: rows and columns (one number for both) that every image is stretched to, as the papers do;
        None keeps them, and then all images must have one size
    channels: 1 converts colours to gray, 3 repeats gray; None takes the channels of the first
        training image, and refuses images with others
    tile: cut images into squares of this many pixels after resizing; the maps of tiles are joined
        before evaluation
    overlap: of neighbouring tiles, in pixels
    range: the stored numbers that become 0 and 1, such as (0, 4095), or "train" for the smallest
        and the largest of all normal training images; what lies beyond is cut off and counted. None
        takes integers by the ends of their type, and floats must lie in 0..1

    >>> from adbench.datasets.visa import VisA
    >>> VisA(size=(512, 256), channels=1).spec.shape
    (512, 256)
    >>> VisA(size=512, tile=128, overlap=64).spec.shape  # of each tile
    (128, 128)
    """

    preparation_version = 2  # 2: palette masks by their colours

    size: Any
    channels: int | None
    tile: int | None
    overlap: int

    multiclass_masks = False
    """Whether masks may hold several numbers, each the kind of an anomaly."""

    zero_is_background = False
    """Whether what is exactly 0 is outside of what there is to judge (skull-stripped brains)."""

    _has_labels = False
    _has_masks = True

    def _set_image_options(
        self,
        size: int | Sequence[int] | None,
        channels: int | None,
        tile: int | None = None,
        overlap: int = 0,
        range: ValueRange | None = None,
    ) -> None:
        self._set_range(range)
        if channels not in (None, 1, 3):
            raise ValueError(f"channels is 1, 3 or None, not {channels!r}")
        self.size = list(size) if isinstance(size, Sequence) else size
        self.channels, self.tile, self.overlap = channels, tile, overlap
        self._given, self._shown = _height_and_width(size), channels
        if self._given is not None and channels is not None:
            self._set_spec(self._given, channels)

    def _set_spec(self, size: tuple[int, int], channels: int) -> None:
        """Set `spec` from the image size and the channels."""
        self._whole, self._channels = size, channels
        shape = size if self.tile is None else (self.tile, self.tile)
        for extent, tile_extent in zip(size, shape, strict=True):
            tile_starts(extent, tile_extent, self.overlap if self.tile else 0)
        self.spec = Spec(channels, shape, labels=self._has_labels, masks=self._has_masks)

    def _infer_spec(self, cases: Sequence[Case]) -> None:
        """Set `spec`; size and channels that were not given are those of the first readable normal
        image, training images before others. (Unreadable images are reported when all are read.)
        """
        image_shape: tuple[int, ...] | None = None
        if self._given is None or self._shown is None:
            for case in sorted(cases, key=lambda c: (c.pool != "train", bool(c.label))):
                with suppress(Exception):  # named by its file when all are read
                    image_shape = tuple(self._read_pixels(case).shape)
                    break
        channels, *extent = image_shape or (1, self.tile or 1, self.tile or 1)
        try:
            self._set_spec(self._given or (extent[0], extent[1]), self._shown or channels)
        except ValueError as error:
            raise DataError(f"dataset '{self.name}': {error}") from None

    new_file_suffixes = SUFFIXES

    def find_new_cases(self, path: Path) -> DatasetIndex:
        base = path if path.is_dir() else path.parent
        files = find_files(path, self.new_file_suffixes) if path.is_dir() else [path]
        cases, problems = [], []
        for file in files:
            parts = file.relative_to(base).parts
            if any(map(is_mask_folder, parts[:-1])):
                continue
            name = "/".join(parts)
            group = self.group_of_file(file)
            if group is None:
                problems.append(f"{name}: its name does not say whom it shows (group)")
                continue
            cases.append(Case(name, group or name, {"image": file}, label=False))
        return DatasetIndex(cases, problems)

    def without_masks(self, case: Case) -> Case:
        files = {role: path for role, path in case.files.items() if not is_mask_role(role)}
        return super().without_masks(replace(case, files=files))

    def read_picture(self, case: Case) -> Tensor:
        """Return the image of a case at its own size, (C, H, W) float32 in 0..1.

        Raises DataError where it cannot be read.
        """
        return self._read_pixels(case).clamp(0, 1)

    def group_of_file(self, image: Path) -> str | None:
        """Return whom an image shows; "" where each stands for itself, None where its name should
        say so and does not.

        image: path of the file
        """
        return ""

    def preprocessing_state(self) -> dict[str, Any]:
        whole = {"size": list(self._whole), "stored": self._channels, "read": self._shown}
        return {**super().preprocessing_state(), **whole}

    def restore_preprocessing(self, state: Mapping[str, Any]) -> None:
        super().restore_preprocessing(state)
        height, width = state["size"]
        self._shown = state["read"]
        self._set_spec((height, width), state["stored"])

    def _read_pixels(self, case: Case) -> Tensor:
        """Return the image of a case as (C, H, W) float32 in 0..1, before resizing.

        With a range, values beyond it lie below 0 or above 1; they are the stored numbers while
        that of the training images is not known yet.
        """
        limits = self._limits or (None if self.range is None else (0.0, 1.0))
        image = case.files["image"].read_bytes()
        return read_image(image, case.name, channels=self._shown, limits=limits)

    def _training_values(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> Iterator[Array]:
        self._limits = None
        for case in cases:
            if split_of.get(case.name) == "train" and not case.label:
                with suppress(Exception):  # named by its file when it is read
                    yield self._read_pixels(case).numpy()

    def read(self, case: Case) -> CaseSamples:
        x, mask, problems = self._read_image_and_mask(case)
        if x is None or problems:
            raise DataError(f"{case.name} is unusable", problems)
        label, size = bool(case.label), self._whole
        if mask is None and self._has_masks and not label:
            mask = torch.zeros(x.shape[1:], dtype=torch.bool)
        constant = bool((x == x.flatten()[0]).all())
        counts, background = {}, 0.0
        if self._limits is not None:
            low, high = self._limits
            background = float(np.float32((0.0 - low) / (high - low)))
            counts[outside_range_text(self._limits)] = int(((x < 0) | (x > 1)).sum())
        roi = None
        if self.zero_is_background and not constant:
            roi = _foreground(x != background, mask)
            x = x if self._limits is None else torch.where(roi, x, 0)
        if self._limits is not None:
            x = x.clamp(0, 1)
        sample = Sample(
            x=resize(torch.zeros_like(x) if constant else x, size),
            key=case.name,
            group=case.group,
            label=label,
            mask=None if mask is None else resize_mask(mask, size),
            roi=None if roi is None else resize_mask(roi, size),
            tags={k: str(v) for k, v in case.extra.items() if k != "boxes"},
            boxes=_scaled_boxes(case, x.shape[1:], size),
        )
        colours, ratios = stored_colours(case.files["image"].read_bytes()), list[float]()
        if mask is not None and sample.mask is not None and mask.any():
            ratios.append(float(sample.mask.float().mean() / mask.float().mean()))
        note = f"{case.name} holds one value only: it becomes zeros, and no method trains on it"
        samples = [sample]
        if self.tile is not None:
            samples = list(cut_tiles(sample, (self.tile, self.tile), self.overlap))
        return CaseSamples(
            samples,
            [note] if constant else [],
            not constant,
            counts,
            f"{_extent_text(x.shape[1:])} {colours}".strip(),
            ratios,
        )

    def _read_image_and_mask(self, case: Case) -> tuple[Tensor | None, Tensor | None, list[str]]:
        """Return image and mask of a case, and everything that is wrong with them."""
        x, mask, problems = None, None, list[str]()
        try:
            x = self._read_pixels(case)
            problems += self._image_problems(case, x)
        except DataError as error:
            problems.append(error.summary)
        for role in filter(is_mask_role, case.files):
            name = _describe_file(case, role)
            try:
                part = read_mask(
                    case.files[role].read_bytes(),
                    name,
                    multiclass=self.multiclass_masks,
                    size=None if x is None else x.shape[1:],
                )
                problems += self._mask_problems(case, name, part)
                mask = part if mask is None or mask.shape != part.shape else mask | part
            except DataError as error:
                problems.append(error.summary)
        return x, mask, problems

    def _image_problems(self, case: Case, x: Tensor) -> Iterator[str]:
        """Yield how an image differs from the others."""
        if x.shape[0] != self._channels:
            difference = f"has {_channels_text(x.shape[0])}, others {self._channels}"
            yield f"{case.name} {difference} (channels=1 or channels=3 makes all alike)"
        if self.size is None and tuple(x.shape[1:]) != self._whole:
            difference = (
                f"has {_extent_text(x.shape[1:])} pixels, others {_extent_text(self._whole)}"
            )
            yield f"{case.name} {difference} (size=256 stretches all to one size)"

    def _mask_problems(self, case: Case, name: str, mask: Tensor) -> Iterator[str]:
        """Yield how a mask contradicts the label of its image."""
        if case.label and not mask.any():
            yield f"{name} is empty, and its image is called abnormal: draw it, or move the image"
        if not case.label and mask.any():
            yield f"{name} marks an anomaly, and its image is called normal"


def is_mask_role(role: str) -> bool:
    """Return whether a case's file of this role is a mask: "mask", or "mask 2" of several.

    role: a key of the case's files

    >>> [is_mask_role(role) for role in ("image", "mask", "mask 2")]
    [False, True, True]
    """
    return role == "mask" or role.startswith("mask ")


def _scaled_boxes(
    case: Case, stored: Sequence[int], size: tuple[int, int]
) -> tuple[tuple[int, ...], ...] | None:
    """Return the boxes of a case in pixels of its resized image: (top, left, bottom, right) each,
    the pixels that they touch; None where nobody drew any.

    Raises DataError where a box lies beyond the image.
    """
    boxes = case.extra.get("boxes")
    if boxes is None:
        return None
    scaled = []
    for top, left, bottom, right in boxes:
        if top < 0 or left < 0 or bottom > stored[0] or right > stored[1]:
            corners = f"rows {top:g} to {bottom:g} and columns {left:g} to {right:g}"
            raise DataError(f"{case.name}: a box of {corners} lies beyond {_extent_text(stored)}")
        rows, columns = (new / old for new, old in zip(size, stored, strict=True))
        scaled.append(
            (
                math.floor(top * rows),
                math.floor(left * columns),
                max(math.ceil(bottom * rows), math.floor(top * rows) + 1),
                max(math.ceil(right * columns), math.floor(left * columns) + 1),
            )
        )
    return tuple(scaled)


def _foreground(shown: Tensor, mask: Tensor | None) -> Tensor:
    """Return (H, W) bool: what an image shows (C, H, W), holes filled, or its mask marks."""
    filled = torch.from_numpy(binary_fill_holes(shown.any(0).numpy()))
    return filled if mask is None else filled | mask


def _extent_text(extent: Sequence[int]) -> str:
    return " x ".join(map(str, extent))


def _channels_text(channels: int) -> str:
    return f"{channels} channel" if channels == 1 else f"{channels} channels"


def _describe_file(case: Case, role: str) -> str:
    """Return the name of a case's file for errors: the case, and the file if named otherwise."""
    path: Path = case.files[role]
    return case.name if role == "image" else f"{case.name} ({path.parent.name}/{path.name})"


def _height_and_width(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size is a positive number of pixels, or two, not {size!r}")
    return int(height), int(width)
