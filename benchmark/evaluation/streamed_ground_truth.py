"""The ground truth of a split whose maps and masks are too many for memory.

Maps are read from files block by block, one level at a time, and masks and regions of interest may
be on disk. Every metric is that of `InMemoryGroundTruth`, to the bit.

Letters: N samples, S one to three spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .ground_truth import Detections, GroundTruth, LevelPredictions
from .metrics.pixel_scores import Pixels
from .metrics.ranking import Array, MetricValues
from .packed_masks import FullMasks, PackedMasks
from .predictions import Predictions
from .protocol import Protocol
from .streamed_pixels import BLOCK_PIXELS, CopiedMaps, ReadMaps, StreamedPixels
from .volume_stacks import volume_stacks


class StreamedGroundTruth(GroundTruth):
    """The ground truth of predictions with maps, read in blocks.

    roi: on disk, read as [i:j]

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.streamed_ground_truth import StreamedGroundTruth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> maps = np.array([[[0.1, 0.2], [0.9, 0.8]]], np.float32)  # one level, two signals
    >>> predictions = Predictions(
    ...     keys=["a", "b"], groups=["a", "b"], label=np.array([False, True]), mask=None, roi=None,
    ...     spacing=None, tags=[{}, {}], score=None, map=maps)
    >>> truth = StreamedGroundTruth(predictions, Protocol(reducer="max"))
    >>> truth.metrics_at(0)["image_auroc"]
    1.0
    """

    def __init__(self, predictions: Predictions, protocol: Protocol) -> None:
        super().__init__(predictions, protocol)
        self.roi = self._region_of_interest()
        self._counts, self._abnormal = self._count_pixels()
        self._latest: LevelPredictions | None = None

    @property
    def prevalence(self) -> float | None:
        if self.predictions.mask is None or not self._counts.sum():
            return None
        return self._abnormal / int(self._counts.sum())

    def at_level(self, index: int) -> LevelPredictions:
        """As `GroundTruth.at_level`; the maps are copied into a temporary file, to be read again
        and again. The latest level is there until another one is asked for."""
        if self._latest is None or self._latest.index != index:
            self._latest = self._level(index, read_once=False)
        return self._latest

    def metrics_at(self, index: int) -> MetricValues:
        """As `GroundTruth.metrics_at`; the maps are read once, for it alone."""
        latest = self._latest
        if latest is None or latest.index != index:
            return self._level(index, read_once=True).metrics()
        return latest.metrics()

    def detections(self, pixels: Pixels, threshold: float | None) -> Iterator[Detections]:
        assert isinstance(pixels, StreamedPixels)
        detected = None
        if threshold is not None and self.protocol.removes_small_components:
            detected = self._large_components(pixels, threshold)
        masks, first = self.predictions.mask, 0
        for block in pixels.blocks():
            last = first + len(block.counts)
            roi = self.roi[first:last]
            positive = None
            if detected is not None:
                positive = detected[first:last][roi]
            elif threshold is not None:
                positive = block.score > threshold
            yield Detections(block, positive, None if masks is None else masks[first:last], roi)
            first = last

    def _large_components(self, pixels: StreamedPixels, threshold: float) -> PackedMasks:
        """What is above a threshold, without components that are too small, on disk."""
        detected = PackedMasks(self.roi.shape, self.predictions.scratch)
        for samples in self._blocks():
            roi = self.roi[np.array(samples)]
            masks = np.zeros(roi.shape, bool)
            masks[roi] = pixels.take(samples).score > threshold
            detected.write(samples, self.protocol.remove_small_components(masks))
        return detected

    def _level(self, index: int, *, read_once: bool) -> LevelPredictions:
        """read_once: whether maps are read for the score and `metrics` only"""
        split = self.predictions
        pixels = StreamedPixels(
            self._map_reader(index, read_once=read_once),
            self.roi,
            split.mask,
            self._counts,
            budget=self.protocol.budget,
            folder=split.scratch,
        )
        rank = read_once and self._abnormal > 0
        score = self._sample_scores(
            index, lambda: pixels.sample_scores(self.protocol.sample_score, rank=rank)
        )
        return LevelPredictions(self, score, pixels, index)

    def _map_reader(self, index: int, *, read_once: bool) -> ReadMaps:
        """What reads the post-processed maps of some samples at a level."""
        split = self.predictions
        if read_once and not self.protocol.filters_maps:
            return lambda samples: split.read_maps(index, np.array(samples))

        def parts() -> Iterator[tuple[list[int], Array]]:
            for samples in self._blocks():
                yield samples, self._filtered_maps(index, np.array(samples))

        return CopiedMaps(split.map.shape[1:], parts, split.scratch).read

    def _region_of_interest(self) -> FullMasks | PackedMasks:
        split = self.predictions
        shape = split.map.shape[1:]
        if split.roi is None or not self.protocol.roi:
            return FullMasks(shape)
        eroded = PackedMasks(shape, split.scratch)
        for samples in self._blocks():
            roi = np.asarray(split.roi[np.array(samples)], bool)
            eroded.write(samples, self.protocol.erode_roi(roi))
        return eroded

    def _count_pixels(self) -> tuple[Array, int]:
        """The pixels of each sample, and how many of all are abnormal."""
        counts, abnormal = np.zeros(self.roi.shape[0], np.int64), 0
        step = self._block_samples()
        for i in range(0, len(counts), step):
            roi = self.roi[i : i + step]
            counts[i : i + step] = roi.reshape(len(roi), -1).sum(1)
            if self.predictions.mask is not None:
                abnormal += int(np.count_nonzero(self.predictions.mask[i : i + step] & roi))
        return counts, abnormal

    def _blocks(self) -> list[list[int]]:
        """The samples that are post-processed together: some consecutive ones, or with `volume-`
        steps those of each volume."""
        if self.protocol.stacks_slices:
            return volume_stacks(self.predictions.keys, self.predictions.groups)
        samples, step = range(len(self.label)), self._block_samples()
        return [list(samples[first : first + step]) for first in samples[::step]]

    def _block_samples(self) -> int:
        return max(1, BLOCK_PIXELS // max(1, math.prod(self.predictions.map.shape[2:])))
