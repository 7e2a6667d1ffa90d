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

from .metrics.connected_components import label_components
from .metrics.ranking import Array, MetricValues, PixelScores, image_metrics, pixel_score_metrics
from .protocol import Protocol

BLOCK_SIZE = 2**22
"""Values of a map read and post-processed at a time."""


@dataclass(frozen=True)
class Predictions:
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


class GroundTruth:
    """A split's pixels: where they are and what is true there, the same at every level."""

    def __init__(self, predictions: Predictions, protocol: Protocol) -> None:
        self.predictions, self.protocol = predictions, protocol
        self.label = np.asarray(predictions.label, bool)
        self.roi = self._region_of_interest()
        self.pixels = None if self.roi is None else self._pixels(self.roi)

    def _region_of_interest(self) -> Array | None:
        seen = self.predictions
        known = next((a for a in (seen.roi, seen.mask) if a is not None), None)
        if known is None and seen.map is None:
            return None
        shape = seen.map.shape[1:] if known is None else known.shape
        if seen.roi is None or not self.protocol.roi:
            return np.ones(shape, bool)
        return self.protocol.erode_roi(np.asarray(seen.roi, bool))

    def _pixels(self, roi: Array) -> PixelScores:
        counts = roi.reshape(len(roi), math.prod(roi.shape[1:])).sum(1)
        truth, region = np.zeros(int(counts.sum()), bool), np.zeros(0, np.int64)
        if self.predictions.mask is not None:
            mask = np.asarray(self.predictions.mask, bool)
            truth, region = mask[roi], label_components(mask & roi)
        return PixelScores(np.zeros(truth.size, np.float32), truth, counts, region)

    def sample_blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """(first sample, past the last, first place, past the last) of blocks of samples."""
        assert self.roi is not None and self.pixels is not None
        ends = np.append(0, np.cumsum(self.pixels.counts))
        step = max(1, BLOCK_SIZE // max(1, math.prod(self.roi.shape[1:])))
        for i in range(0, len(self.roi), step):
            j = min(i + step, len(self.roi))
            yield i, j, int(ends[i]), int(ends[j])

    def at_level(self, index: int) -> LevelPredictions:
        """The split at one level, post-processed."""
        seen, protocol = self.predictions, self.protocol
        if seen.map is None or self.pixels is None or self.roi is None:
            if seen.score is None and len(self.label):
                raise ValueError("a method gave neither a score nor a map")
            score = np.zeros(0) if seen.score is None else np.asarray(seen.score[index])
            return LevelPredictions(self, score.astype(np.float64), None)
        values = np.empty(self.pixels.truth.size, np.float32)
        for i, j, first, last in self.sample_blocks():
            maps = np.asarray(seen.map[index, i:j], np.float32)
            values[first:last] = protocol.filter_maps(maps)[self.roi[i:j]]
        if protocol.reducer == "method":
            if seen.score is None:
                raise ValueError("the reducer 'method' wants a score, and the method gave none")
            score = np.asarray(seen.score[index], np.float64)
        else:
            parts = np.split(values, np.cumsum(self.pixels.counts)[:-1]) if len(self.label) else []
            score = np.array([protocol.sample_score(part) for part in parts], np.float64)
        return LevelPredictions(self, score, replace(self.pixels, score=values))

    def binarize(self, pixels: PixelScores, threshold: float) -> Array:
        """What exceeds the threshold, (P,) bool, without components that are too small."""
        found = pixels.score > threshold
        if self.protocol.removes_small_components and self.roi is not None:
            for i, j, first, last in self.sample_blocks():
                picture = np.zeros(self.roi[i:j].shape, bool)
                picture[self.roi[i:j]] = found[first:last]
                found[first:last] = self.protocol.remove_small_components(picture)[self.roi[i:j]]
        return found


@dataclass(frozen=True)
class LevelPredictions:
    """A split at one level: scores (N,), and the places' scores or None without a map."""

    ground_truth: GroundTruth
    score: Array
    pixels: PixelScores | None

    def metrics(self) -> MetricValues:
        """All that needs no threshold but the best: image_*, group_auroc, pixel_*."""
        score, label = self.score, self.ground_truth.label
        image = {f"image_{name}": value for name, value in image_metrics(score, label).items()}
        image["group_auroc"] = image_metrics(*self.group_scores())["auroc"]
        pixel = self.pixel_metrics
        names = {"dice": "pixel_dice_oracle"}
        skipped = ("iou", "threshold", "error")
        return image | {
            names.get(name, f"pixel_{name}"): value
            for name, value in pixel.items()
            if name not in skipped
        }

    @cached_property
    def pixel_metrics(self) -> MetricValues:
        """place_metrics; None each without a map."""
        if self.pixels is None:
            names = ("auroc", "ap", "aupro30", "aupro05", "dice", "threshold", "error")
            return dict.fromkeys(names)
        return pixel_score_metrics(self.pixels, self.ground_truth.protocol.budget)

    def group_scores(self) -> tuple[Array, Array]:
        """The highest score, and whether any sample is abnormal, of each group in sorted order."""
        names, member = np.unique(
            np.asarray(self.ground_truth.predictions.groups, str), return_inverse=True
        )
        score, label = np.full(len(names), -np.inf), np.zeros(len(names), bool)
        np.maximum.at(score, member, self.score)
        np.logical_or.at(label, member, self.ground_truth.label)
        return score, label
