"""A split as one method saw it, and the truth about it: its places, and how they look at a level.

Letters: L levels, N samples, S one to three spatial axes, P places within the regions of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .metrics.connected_components import regions
from .metrics.ranking import Array, Figures, Places, image_metrics, place_metrics
from .protocol import Protocol

BLOCK = 2**22
"""Values of a map read and post-processed at a time."""


@dataclass(frozen=True)
class Seen:
    """A split as one method saw it, and the truth about it.

    keys, groups, tags: one per sample           label: (N,) bool
    mask, roi: (N, *S) bool or None              spacing: mm per step, or None
    score: (L, N) or None                        map: (L, N, *S) float32 or None; may be on disk,
                                                 for only [l, i:j] is ever asked of it
    psnr, ssim: (L, N) of reconstructions of normal samples, NaN for others; None without any
    """

    keys: list[str]
    groups: list[str]
    label: Array
    mask: Array | None
    roi: Array | None
    spacing: tuple[float, ...] | None
    tags: list[dict[str, str]]
    score: Array | None
    map: Any
    psnr: Array | None = None
    ssim: Array | None = None


class Ground:
    """A split's places: where they are and what is true there, the same at every level."""

    def __init__(self, seen: Seen, protocol: Protocol) -> None:
        self.seen, self.protocol = seen, protocol
        self.label = np.asarray(seen.label, bool)
        self.roi = self._regions()
        self.places = None if self.roi is None else self._places(self.roi)

    def _regions(self) -> Array | None:
        seen = self.seen
        known = next((a for a in (seen.roi, seen.mask) if a is not None), None)
        if known is None and seen.map is None:
            return None
        shape = seen.map.shape[1:] if known is None else known.shape
        if seen.roi is None or not self.protocol.roi:
            return np.ones(shape, bool)
        return self.protocol.within(np.asarray(seen.roi, bool))

    def _places(self, roi: Array) -> Places:
        counts = roi.reshape(len(roi), math.prod(roi.shape[1:])).sum(1)
        truth, region = np.zeros(int(counts.sum()), bool), np.zeros(0, np.int64)
        if self.seen.mask is not None:
            mask = np.asarray(self.seen.mask, bool)
            truth, region = mask[roi], regions(mask & roi)
        return Places(np.zeros(truth.size, np.float32), truth, counts, region)

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """(first sample, past the last, first place, past the last) of blocks of samples."""
        assert self.roi is not None and self.places is not None
        ends = np.append(0, np.cumsum(self.places.counts))
        step = max(1, BLOCK // max(1, math.prod(self.roi.shape[1:])))
        for i in range(0, len(self.roi), step):
            j = min(i + step, len(self.roi))
            yield i, j, int(ends[i]), int(ends[j])

    def look(self, index: int) -> Look:
        """The split at one level, post-processed."""
        seen, protocol = self.seen, self.protocol
        if seen.map is None or self.places is None or self.roi is None:
            if seen.score is None and len(self.label):
                raise ValueError("a method gave neither a score nor a map")
            score = np.zeros(0) if seen.score is None else np.asarray(seen.score[index])
            return Look(self, score.astype(np.float64), None)
        values = np.empty(self.places.truth.size, np.float32)
        for i, j, first, last in self.blocks():
            maps = np.asarray(seen.map[index, i:j], np.float32)
            values[first:last] = protocol.smooth(maps)[self.roi[i:j]]
        if protocol.reducer == "method":
            if seen.score is None:
                raise ValueError("the reducer 'method' wants a score, and the method gave none")
            score = np.asarray(seen.score[index], np.float64)
        else:
            parts = np.split(values, np.cumsum(self.places.counts)[:-1]) if len(self.label) else []
            score = np.array([protocol.reduce(part) for part in parts], np.float64)
        return Look(self, score, replace(self.places, score=values))

    def found(self, places: Places, threshold: float) -> Array:
        """What exceeds the threshold, (P,) bool, without components that are too small."""
        found = places.score > threshold
        if self.protocol.cleans and self.roi is not None:
            for i, j, first, last in self.blocks():
                picture = np.zeros(self.roi[i:j].shape, bool)
                picture[self.roi[i:j]] = found[first:last]
                found[first:last] = self.protocol.clean(picture)[self.roi[i:j]]
        return found


@dataclass(frozen=True)
class Look:
    """A split at one level: scores (N,), and the places' scores or None without a map."""

    ground: Ground
    score: Array
    places: Places | None

    def figures(self) -> Figures:
        """All that needs no threshold but the best: image_*, group_auroc, pixel_*."""
        score, label = self.score, self.ground.label
        image = {f"image_{name}": value for name, value in image_metrics(score, label).items()}
        image["group_auroc"] = image_metrics(*self.grouped())["auroc"]
        pixel = self.pixel
        names = {"dice": "pixel_dice_oracle"}
        skipped = ("iou", "threshold", "error")
        return image | {
            names.get(name, f"pixel_{name}"): value
            for name, value in pixel.items()
            if name not in skipped
        }

    @cached_property
    def pixel(self) -> Figures:
        """place_metrics; None each without a map."""
        if self.places is None:
            names = ("auroc", "ap", "aupro30", "aupro05", "dice", "threshold", "error")
            return dict.fromkeys(names)
        return place_metrics(self.places, self.ground.protocol.budget)

    def grouped(self) -> tuple[Array, Array]:
        """The highest score, and whether any sample is abnormal, of each group in sorted order."""
        names, member = np.unique(np.asarray(self.ground.seen.groups, str), return_inverse=True)
        score, label = np.full(len(names), -np.inf), np.zeros(len(names), bool)
        np.maximum.at(score, member, self.score)
        np.logical_or.at(label, member, self.ground.label)
        return score, label
