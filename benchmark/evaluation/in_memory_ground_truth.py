"""The ground truth of a split whose pixels fit into memory.

Letters: N samples, S one to three spatial axes, P pixels within the regions of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .ground_truth import Detections, GroundTruth, LevelPredictions
from .metrics.connected_components import label_components
from .metrics.pixel_scores import Pixels, PixelScores
from .metrics.ranking import Array
from .predictions import BLOCK_SIZE, Predictions
from .protocol import Protocol
from .volume_stacks import volume_stacks


class SampleBlock(NamedTuple):
    """Samples that are read and post-processed at a time, and their pixels, as selections."""

    samples: Any
    pixels: Any


class InMemoryGroundTruth(GroundTruth):
    """The ground truth with all pixels in memory; maps may be on disk, and are read in blocks.

    pixels: (P,) their truth, with scores of 0; None without maps, masks and regions

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.in_memory_ground_truth import InMemoryGroundTruth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> maps = np.array([[[0.1, 0.2], [0.9, 0.8]]], np.float32)  # one level, two signals
    >>> predictions = Predictions(
    ...     keys=["a", "b"], groups=["a", "b"], label=np.array([False, True]), mask=None, roi=None,
    ...     spacing=None, tags=[{}, {}], score=None, map=maps)
    >>> truth = InMemoryGroundTruth(predictions, Protocol(reducer="max"))
    >>> truth.binarize(truth.at_level(0).pixels, 0.5).tolist()
    [False, False, True, True]
    """

    def __init__(self, predictions: Predictions, protocol: Protocol) -> None:
        super().__init__(predictions, protocol)
        self.roi = self._region_of_interest()
        self.pixels = None if self.roi is None else self._pixels(self.roi)

    @property
    def prevalence(self) -> float | None:
        if self.predictions.mask is None or self.pixels is None or not self.pixels.truth.size:
            return None
        return float(self.pixels.truth.mean())

    def at_level(self, index: int) -> LevelPredictions:
        split, roi, pixels = self.predictions, self.roi, self.pixels
        if split.map is None or pixels is None or roi is None:
            if split.score is None and len(self.label):
                raise ValueError("a method gave neither a score nor a map")
            score = np.zeros(0) if split.score is None else np.asarray(split.score[index])
            return LevelPredictions(self, score.astype(np.float64), None, index)
        values = np.empty(pixels.truth.size, np.float32)
        for block in self._blocks(roi, pixels):
            values[block.pixels] = self._filtered_maps(index, block.samples)[roi[block.samples]]

        def reduce_maps() -> Array:
            ends = np.cumsum(pixels.counts)[:-1]
            samples = np.split(values, ends) if len(self.label) else []
            return np.array([self.protocol.sample_score(each) for each in samples], np.float64)

        score = self._sample_scores(index, reduce_maps)
        return LevelPredictions(self, score, replace(pixels, score=values), index)

    def detections(self, pixels: Pixels, threshold: float | None) -> Iterator[Detections]:
        assert isinstance(pixels, PixelScores) and self.roi is not None
        positive = None if threshold is None else self.binarize(pixels, threshold)
        yield Detections(pixels, positive, self.predictions.mask, self.roi)

    def binarize(self, pixels: PixelScores, threshold: float) -> Array:
        """The pixels above a threshold, (P,) bool, without components that are too small."""
        positive = pixels.score > threshold
        if self.protocol.removes_small_components and self.roi is not None:
            for block in self._blocks(self.roi, pixels):
                roi = self.roi[block.samples]
                masks = np.zeros(roi.shape, bool)
                masks[roi] = positive[block.pixels]
                positive[block.pixels] = self.protocol.remove_small_components(masks)[roi]
        return positive

    def filtered_maps(self, index: int) -> Array:
        """The post-processed maps of one level, (N, *S) float32.

        Only of predictions with maps.
        """
        assert self.roi is not None and self.pixels is not None
        result = np.empty(self.predictions.map.shape[1:], np.float32)
        for block in self._blocks(self.roi, self.pixels):
            result[block.samples] = self._filtered_maps(index, block.samples)
        return result

    def _region_of_interest(self) -> Array | None:
        split = self.predictions
        drawn = next((a for a in (split.roi, split.mask) if a is not None), None)
        if drawn is None and split.map is None:
            return None
        shape = split.map.shape[1:] if drawn is None else drawn.shape
        if split.roi is None or not self.protocol.roi:
            return np.ones(shape, bool)
        roi = np.asarray(split.roi, bool)
        if not self.protocol.stacks_slices:
            return self.protocol.erode_roi(roi)
        eroded = np.empty_like(roi)
        for stack in self._volumes():
            eroded[stack] = self.protocol.erode_roi(roi[stack])
        return eroded

    def _pixels(self, roi: Array) -> PixelScores:
        counts = roi.reshape(len(roi), math.prod(roi.shape[1:])).sum(1)
        truth, component = np.zeros(int(counts.sum()), bool), np.zeros(0, np.int64)
        if self.predictions.mask is not None:
            mask = np.asarray(self.predictions.mask, bool)
            truth, component = mask[roi], label_components(mask & roi)
        return PixelScores(np.zeros(truth.size, np.float32), truth, counts, component)

    def _blocks(self, roi: Array, pixels: PixelScores) -> Iterator[SampleBlock]:
        """Consecutive samples, or with `volume-` steps the slices of each volume."""
        ends = [0, *np.cumsum(pixels.counts).tolist()]
        if self.protocol.stacks_slices:
            for stack in self._volumes():
                rows = [np.arange(ends[i], ends[i + 1]) for i in stack.tolist()]
                yield SampleBlock(stack, np.concatenate(rows))
            return
        step = max(1, BLOCK_SIZE // max(1, math.prod(roi.shape[1:])))
        for first in range(0, len(roi), step):
            last = min(first + step, len(roi))
            yield SampleBlock(slice(first, last), slice(ends[first], ends[last]))

    def _volumes(self) -> list[Array]:
        return [np.array(s) for s in volume_stacks(self.predictions.keys, self.predictions.groups)]
