"""What layouts of 2-D images share: one image and perhaps a mask a case, read, fitted and tiled."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .base import DataError, Sample, Spec
from .files import Files, Reading
from .images import colours, extent, read_image, read_mask, resize, resize_mask
from .placing import Case
from .tiles import cut, places


class Pictures(Files, ABC):
    """A layout of images sets these arguments of its constructor by `_fit`, and calls `_measure`
    at the end of its survey. Roles: "image", and "mask" where there is one.

    size: rows and columns (one number for both) that every image is stretched to, as the papers
        do; None keeps them as they are, and then all must have one size
    channels: 1 turns colours to gray, 3 repeats gray; None takes what the first training image
        has, and refuses images that have the other
    tile: cut images into squares of this many pixels after fitting them to `size`; maps are put
        together again before they are judged. overlap: of neighbouring tiles, in pixels
    """

    size: Any
    channels: int | None
    tile: int | None
    overlap: int
    classes = False
    """Whether masks may hold several numbers, each the kind of an anomaly."""

    def _fit(
        self,
        size: int | Sequence[int] | None,
        channels: int | None,
        tile: int | None = None,
        overlap: int = 0,
    ) -> None:
        if channels not in (None, 1, 3):
            raise ValueError(f"channels is 1, 3 or None, not {channels!r}")
        self.size = list(size) if isinstance(size, Sequence) else size
        self.channels, self.tile, self.overlap = channels, tile, overlap
        self._whole = _pair(size)
        if self._whole is not None and channels is not None:
            self._settle(self._whole, channels)

    def _settle(self, whole: tuple[int, int], channels: int) -> None:
        """Now that both are known: what a method is shown."""
        self._whole, self._channels = whole, channels
        shape = whole if self.tile is None else (self.tile, self.tile)
        for full, part in zip(whole, shape, strict=True):
            places(full, part, self.overlap if self.tile else 0)
        self.spec = Spec(channels, shape, labels=self._labels, masks=self._masks)

    _labels = False
    _masks = True

    def _measure(self, cases: Sequence[Case]) -> None:
        """Learn size and channels from the first training image, where they were not given."""
        if hasattr(self, "spec") or not cases:
            return
        first = next((case for case in cases if not case.label), cases[0])
        raw = first.files["image"].read_bytes()
        whole = self._whole or extent(raw, first.name)
        try:
            self._settle(whole, self.channels or colours(raw, first.name))
        except ValueError as error:
            raise DataError(f"dataset '{self.name}': {error}") from None

    def read(self, case: Case) -> Reading:
        raw = case.files["image"].read_bytes()
        x = read_image(raw, _called(case, "image"), channels=self.channels)
        native = tuple(x.shape[1:])
        problems = []
        if x.shape[0] != self._channels:
            other = f"has {x.shape[0]} channels, others {self._channels} (channels=1 or 3)"
            problems.append(f"{case.name} {other}")
        if self.size is None and native != self._whole:
            other = f"has {native} pixels, others {self._whole} (give a size)"
            problems.append(f"{case.name} {other}")
        label, mask = bool(case.label), None
        if "mask" in case.files:
            name = _called(case, "mask")
            mask = read_mask(case.files["mask"].read_bytes(), name, classes=self.classes)
            if tuple(mask.shape) != native:
                shapes = f"{tuple(mask.shape)}, its image {native}"
                problems.append(f"{name} has {shapes} pixels")
            if label and not mask.any():
                problems.append(f"{name} is empty, and its image is called abnormal")
            if not label and mask.any():
                problems.append(f"{name} marks an anomaly, and its image is called normal")
        elif self._masks and not label:
            mask = torch.zeros(native, dtype=torch.bool)
        if problems:
            raise DataError(f"{case.name} is unusable", problems)
        constant = bool((x == x.flatten()[0]).all())
        sample = Sample(
            x=resize(torch.zeros_like(x) if constant else x, self._whole or native),
            key=case.name,
            group=case.group,
            label=label,
            mask=None if mask is None else resize_mask(mask, self._whole or native),
            tags={k: str(v) for k, v in case.extra.items()},
        )
        why = f"{case.name} holds one value only: it becomes zeros, and no method trains on it"
        samples = [sample]
        if self.tile is not None:
            samples = list(cut(sample, (self.tile, self.tile), self.overlap))
        return Reading(samples, [why] if constant else [], train=not constant)


def _called(case: Case, role: str) -> str:
    """How errors call a file of a case: the case, and the file where it is named otherwise."""
    path: Path = case.files[role]
    return case.name if role == "image" else f"{case.name} ({path.parent.name}/{path.name})"


def _pair(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size is a positive number of pixels, or two, not {size!r}")
    return int(height), int(width)
