"""Predictions of a split, its ground truth pixel by pixel, and both at one noise level.

Letters: L levels, N samples, S one to three spatial axes, P pixels within the regions of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .metrics.connected_components import label_components
from .metrics.pixel_scores import Pixels, PixelScores
from .metrics.ranking import Array, MetricValues, image_metrics, pixel_score_metrics
from .packed_masks import FullMasks, PackedMasks, consecutive_runs
from .protocol import Protocol
from .streamed_pixels import BLOCK_PIXELS, CopiedMaps, StreamedPixels
from .volume_stacks import volume_stacks

BLOCK_SIZE = 2**22
"""Values of a map read and post-processed at a time."""


@dataclass(frozen=True)
class Predictions:
    """Scores and maps of a split from one method, with the ground truth.

    keys, groups, tags: one per sample           label: (N,) bool
    mask, roi: (N, *S) bool, an array or of packed_masks.py, or None
    spacing: mm per step, or None
    score: (L, N) or None                        map: (L, N, *S) float32 or None; may be on disk,
                                                 for only [l, i:j] is ever read
    boxes: of each sample, in place of masks; None where nobody drew boxes
    psnr, ssim: (L, N) of reconstructions of normal samples, NaN for others; None without any
    streamed: whether maps and masks are too many for memory: they are read in blocks, one level at
        a time, and masks and regions may be on disk. Every metric is the same
    scratch: folder of temporary files; None for the system's

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> split = Predictions(
    ...     keys=["a", "b"], groups=["patient 1", "patient 1"], label=np.array([False, True]),
    ...     mask=None, roi=None, spacing=None, tags=[{}, {"lesion": "stroke"}],
    ...     score=np.array([[0.1, 0.9], [0.3, 0.2]]), map=None)
    >>> split.score.shape  # of two levels and two samples
    (2, 2)
    """

    keys: list[str]
    groups: list[str]
    label: Array
    mask: Any
    roi: Any
    spacing: tuple[float, ...] | None
    tags: list[dict[str, str]]
    score: Array | None
    map: Any
    psnr: Array | None = None
    ssim: Array | None = None
    boxes: list[tuple[tuple[int, ...], ...]] | None = None
    streamed: bool = False
    scratch: Path | None = None


class GroundTruth:
    """The pixels of a split that are evaluated, and what is true there, the same at every level.

    roi: (N, *S) bool, the pixels that count; None without maps, masks and regions; on disk, and
        read as [i:j], where predictions are streamed
    pixels: their truth, with scores of 0; None likewise, and where predictions are streamed
    counts: (N,) int, how many there are in each sample; None likewise

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import GroundTruth, Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> maps = np.array([[[0.1, 0.2], [0.9, 0.8]]], np.float32)  # one level, two signals
    >>> mask = np.array([[0, 0], [1, 0]], bool)
    >>> predictions = Predictions(
    ...     keys=["a", "b"], groups=["a", "b"], label=np.array([False, True]), mask=mask, roi=None,
    ...     spacing=None, tags=[{}, {}], score=None, map=maps)
    >>> truth = GroundTruth(predictions, Protocol(reducer="max"))
    >>> level = truth.at_level(0)
    >>> level.score.round(3).tolist(), level.metrics()["pixel_auroc"]
    ([0.2, 0.9], 1.0)
    >>> truth.binarize(level.pixels, 0.5).tolist()
    [False, False, True, True]
    """

    def __init__(self, predictions: Predictions, protocol: Protocol) -> None:
        self.predictions, self.protocol = predictions, protocol
        self.label = np.asarray(predictions.label, bool)
        self.streamed = predictions.streamed and predictions.map is not None
        self.roi: Any = self._streamed_roi() if self.streamed else self._region_of_interest()
        self.pixels = None if self.roi is None or self.streamed else self._pixels(self.roi)
        self.counts: Array | None = None if self.pixels is None else self.pixels.counts
        if self.streamed:
            self.counts, self._abnormal = self._count_pixels()
        self._scores: dict[int, Array] = {}
        self._pixel_metrics: dict[int, MetricValues] = {}
        self._latest: LevelPredictions | None = None

    def _streamed_roi(self) -> Any:
        split = self.predictions
        shape = split.map.shape[1:]
        if split.roi is None or not self.protocol.roi:
            return FullMasks(shape)
        eroded = PackedMasks(shape, split.scratch)
        for samples in self._sample_lists(shape):
            index = np.array(samples)
            eroded.write(samples, self.protocol.erode_roi(np.asarray(split.roi[index], bool)))
        return eroded

    def _sample_lists(self, shape: tuple[int, ...]) -> list[list[int]]:
        """What is post-processed together where predictions are streamed."""
        if self.protocol.stacks_slices:
            return volume_stacks(self.predictions.keys, self.predictions.groups)
        step = max(1, BLOCK_PIXELS // max(1, math.prod(shape[1:])))
        return [list(range(i, min(i + step, shape[0]))) for i in range(0, shape[0], step)]

    def _count_pixels(self) -> tuple[Array, int]:
        """The pixels of each sample, and how many of all are abnormal."""
        counts, abnormal = np.zeros(self.roi.shape[0], np.int64), 0
        step = max(1, BLOCK_PIXELS // max(1, math.prod(self.roi.shape[1:])))
        for i in range(0, len(counts), step):
            roi = self.roi[i : i + step]
            counts[i : i + step] = roi.reshape(len(roi), -1).sum(1)
            if self.predictions.mask is not None:
                abnormal += int(np.count_nonzero(self.predictions.mask[i : i + step] & roi))
        return counts, abnormal

    @property
    def prevalence(self) -> float | None:
        """The share of abnormal pixels; None without masks or pixels."""
        if self.predictions.mask is None or self.counts is None or not self.counts.sum():
            return None
        if self.pixels is not None:
            return float(self.pixels.truth.mean())
        return self._abnormal / int(self.counts.sum())

    def _region_of_interest(self) -> Array | None:
        split = self.predictions
        drawn = next((a for a in (split.roi, split.mask) if a is not None), None)
        if drawn is None and split.map is None:
            return None
        shape = split.map.shape[1:] if drawn is None else drawn.shape
        if split.roi is None or not self.protocol.roi:
            return np.ones(shape, bool)
        roi = np.asarray(split.roi, bool)
        eroded = np.empty_like(roi)
        for stack in self._stacks(len(roi)):
            eroded[stack] = self.protocol.erode_roi(roi[stack])
        return eroded

    def _stacks(self, samples: int) -> list[Any]:
        """What is post-processed together: all samples, or with `volume-` steps those of each
        volume. Each selects samples of an array."""
        if not self.protocol.stacks_slices:
            return [slice(0, samples)]
        return [np.array(s) for s in volume_stacks(self.predictions.keys, self.predictions.groups)]

    def _pixels(self, roi: Array) -> PixelScores:
        counts = roi.reshape(len(roi), math.prod(roi.shape[1:])).sum(1)
        truth, component = np.zeros(int(counts.sum()), bool), np.zeros(0, np.int64)
        if self.predictions.mask is not None:
            mask = np.asarray(self.predictions.mask, bool)
            truth, component = mask[roi], label_components(mask & roi)
        return PixelScores(np.zeros(truth.size, np.float32), truth, counts, component)

    def sample_blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """Blocks of samples that are processed at a time.

        Yields (first sample, past the last, first pixel, past the last).
        """
        assert self.roi is not None and self.pixels is not None
        ends = np.append(0, np.cumsum(self.pixels.counts))
        step = max(1, BLOCK_SIZE // max(1, math.prod(self.roi.shape[1:])))
        for i in range(0, len(self.roi), step):
            j = min(i + step, len(self.roi))
            yield i, j, int(ends[i]), int(ends[j])

    def at_level(self, index: int) -> LevelPredictions:
        """Scores and pixel scores at one noise level, post-processed as the protocol says.

        index: of the level among those predicted

        Raises ValueError where the method gave neither a score nor a map, or where the protocol
        takes the method's own score and there is none.
        """
        split, protocol = self.predictions, self.protocol
        if self.streamed:
            return self._streamed_level(index)
        if split.map is None or self.pixels is None or self.roi is None:
            if split.score is None and len(self.label):
                raise ValueError("a method gave neither a score nor a map")
            score = np.zeros(0) if split.score is None else np.asarray(split.score[index])
            return LevelPredictions(self, score.astype(np.float64), None, index)
        values = self._pixel_values(index)
        if protocol.reducer == "method":
            score = self._method_score(index)
        else:
            if index not in self._scores:
                ends = np.cumsum(self.pixels.counts)[:-1]
                samples = np.split(values, ends) if len(self.label) else []
                scores = [protocol.sample_score(sample) for sample in samples]
                self._scores[index] = np.array(scores, np.float64)
            score = self._scores[index]
        return LevelPredictions(self, score, replace(self.pixels, score=values), index)

    def _method_score(self, index: int) -> Array:
        if self.predictions.score is None:
            raise ValueError("the reducer 'method' wants a score, and the method gave none")
        return np.asarray(self.predictions.score[index], np.float64)

    def metrics_at(self, index: int) -> MetricValues:
        """`LevelPredictions.metrics` at one noise level; of streamed predictions the maps are read
        once for it, while `at_level` copies them, to be read again and again.

        index: of the level among those predicted

        Raises ValueError as `at_level` does.
        """
        level = self._streamed_level(index, once=True) if self.streamed else self.at_level(index)
        return level.metrics()

    def pixel_metrics_at(self, index: int, pixels: Pixels) -> MetricValues:
        """`pixel_score_metrics` of the pixels at one level, computed once for each level."""
        if index not in self._pixel_metrics:
            self._pixel_metrics[index] = pixel_score_metrics(pixels, self.protocol.budget)
        return self._pixel_metrics[index]

    def _streamed_level(self, index: int, *, once: bool = False) -> LevelPredictions:
        """once: whether maps are read only for the score and `metrics`"""
        if self._latest is not None and self._latest.index == index:
            return self._latest
        split, protocol = self.predictions, self.protocol
        assert self.counts is not None
        pixels = StreamedPixels(
            self._map_reader(index, once=once),
            self.roi,
            split.mask,
            self.counts,
            budget=protocol.budget,
            folder=split.scratch,
        )
        if protocol.reducer == "method":
            score = self._method_score(index)
        else:
            if index not in self._scores:
                rank = once and self._abnormal > 0
                self._scores[index] = pixels.sample_scores(protocol.sample_score, rank=rank)
            score = self._scores[index]
        level = LevelPredictions(self, score, pixels, index)
        self._latest = None if once else level  # which lies on disk
        return level

    def _map_reader(self, index: int, *, once: bool) -> Any:
        """What reads the post-processed maps of some samples at a level."""
        maps, shape = self.predictions.map, self.predictions.map.shape[1:]
        if once and not self.protocol.filters_maps:
            return lambda samples: _read_maps(maps, index, np.array(samples))

        def parts() -> Iterator[tuple[list[int], Array]]:
            for samples in self._sample_lists(shape):
                yield samples, self._filter(index, np.array(samples))

        return CopiedMaps(shape, parts, self.predictions.scratch).read

    def filtered_maps(self, index: int) -> Array:
        """The post-processed maps of one level, (N, *S) float32.

        Only of predictions with maps.
        """
        result = np.empty(self.predictions.map.shape[1:], np.float32)
        for members, _ in self._blocks():
            result[members] = self._filter(index, members)
        return result

    def _pixel_values(self, index: int) -> Array:
        """The post-processed maps of one level within the regions of interest, (P,) float32."""
        assert self.roi is not None and self.pixels is not None
        values = np.empty(self.pixels.truth.size, np.float32)
        for members, pixels in self._blocks():
            values[pixels] = self._filter(index, members)[self.roi[members]]
        return values

    def _filter(self, index: int, members: Any) -> Array:
        split = self.predictions
        roi = None if split.roi is None else np.asarray(split.roi[members], bool)
        return self.protocol.filter_maps(_read_maps(split.map, index, members), roi)

    def _blocks(self) -> Iterator[tuple[Any, Any]]:
        """What is read and post-processed at a time: (samples, their pixels), as selections."""
        assert self.roi is not None and self.pixels is not None
        if not self.protocol.stacks_slices:
            for i, j, first, last in self.sample_blocks():
                yield slice(i, j), slice(first, last)
            return
        ends = np.cumsum(self.pixels.counts).tolist()
        counts = self.pixels.counts.tolist()
        for stack in self._stacks(len(self.roi)):
            rows = [np.arange(ends[i] - counts[i], ends[i]) for i in stack.tolist()]
            yield stack, np.concatenate(rows)

    def detected_stacks(self, pixels: Pixels, threshold: float | None) -> PackedMasks:
        """What is above a threshold, without components that are too small, on disk."""
        detected = PackedMasks(self.roi.shape, self.predictions.scratch)
        for samples in self._sample_lists(self.roi.shape):
            roi = self.roi[np.array(samples)]
            masks = np.zeros(roi.shape, bool)
            masks[roi] = pixels.take(samples).score > threshold
            detected.write(samples, self.protocol.remove_small_components(masks))
        return detected

    def binarize(self, pixels: PixelScores, threshold: float) -> Array:
        """The pixels above a threshold, (P,) bool, without components that are too small."""
        positive = pixels.score > threshold
        if self.protocol.removes_small_components and self.roi is not None:
            for members, rows in self._blocks():
                masks = np.zeros(self.roi[members].shape, bool)
                masks[self.roi[members]] = positive[rows]
                masks = self.protocol.remove_small_components(masks)
                positive[rows] = masks[self.roi[members]]
        return positive


@dataclass(frozen=True)
class Detections:
    """Some consecutive samples of a split at one level, and what is above a threshold.

    pixels: of these samples        positive: (P,) bool; None without a threshold
    mask, roi: (n, *S) bool; mask None for none
    """

    pixels: PixelScores
    positive: Array | None
    mask: Array | None
    roi: Array


def _read_maps(maps: Any, index: int, members: Any) -> Array:
    """Maps of some samples at one level, (n, *S) float32; of what is on disk only rows are read."""
    if isinstance(members, slice):
        return np.asarray(maps[index, members], np.float32)
    rows = [
        np.asarray(maps[index, int(members[i]) : int(members[i]) + j - i], np.float32)
        for i, j in consecutive_runs(members)
    ]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


@dataclass(frozen=True)
class LevelPredictions:
    """Predictions of a split at one noise level.

    score: (N,)       pixels: with their scores; None without a map
    index: of the level among those predicted

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import GroundTruth, Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> split = Predictions([*"abc"], ["1", "1", "2"], np.array([False, True, False]), None, None,
    ...                     None, [{}, {}, {}], np.array([[0.1, 0.9, 0.5]]), None)
    >>> level = GroundTruth(split, Protocol()).at_level(0)
    >>> level.score.tolist(), level.metrics()["image_auroc"]
    ([0.1, 0.9, 0.5], 1.0)
    >>> [values.tolist() for values in level.group_scores()]
    [[0.9, 0.5], [True, False]]
    """

    ground_truth: GroundTruth
    score: Array
    pixels: Pixels | None
    index: int

    def detections(self, threshold: float | None) -> Iterator[Detections]:
        """All samples with what is above a threshold, without components that are too small: at
        once, or some consecutive ones at a time where they are streamed."""
        truth, pixels = self.ground_truth, self.pixels
        if pixels is None:
            return
        if isinstance(pixels, PixelScores):
            positive = None if threshold is None else truth.binarize(pixels, threshold)
            yield Detections(pixels, positive, truth.predictions.mask, truth.roi)
            return
        remove = truth.protocol.removes_small_components and threshold is not None
        detected = truth.detected_stacks(pixels, threshold) if remove else None
        first, masks = 0, truth.predictions.mask
        for block in pixels.blocks():
            last = first + len(block.counts)
            roi = truth.roi[first:last]
            positive = None
            if detected is not None:
                positive = detected[first:last][roi]
            elif threshold is not None:
                positive = block.score > threshold
            yield Detections(block, positive, None if masks is None else masks[first:last], roi)
            first = last

    def metrics(self) -> MetricValues:
        """All metrics that need no threshold but the best: image_*, group_auroc, pixel_*.

        None where one is undefined.
        """
        score, label = self.score, self.ground_truth.label
        metrics = {f"image_{name}": value for name, value in image_metrics(score, label).items()}
        metrics["group_auroc"] = image_metrics(*self.group_scores())["auroc"]
        names = {"dice": "pixel_dice_oracle"}
        skipped = ("iou", "threshold", "error")
        return metrics | {
            names.get(name, f"pixel_{name}"): value
            for name, value in self.pixel_metrics.items()
            if name not in skipped
        }

    @cached_property
    def pixel_metrics(self) -> MetricValues:
        """`pixel_score_metrics`; all None without a map."""
        if self.pixels is None:
            names = ("auroc", "ap", "aupro30", "aupro05", "dice", "threshold", "error")
            return dict.fromkeys(names)
        return self.ground_truth.pixel_metrics_at(self.index, self.pixels)

    def group_scores(self) -> tuple[Array, Array]:
        """The highest score of each group, and whether any of its samples is abnormal.

        Groups are in sorted order.
        """
        groups = np.asarray(self.ground_truth.predictions.groups, str)
        names, index = np.unique(groups, return_inverse=True)
        score, label = np.full(len(names), -np.inf), np.zeros(len(names), bool)
        np.maximum.at(score, index, self.score)
        np.logical_or.at(label, index, self.ground_truth.label)
        return score, label
