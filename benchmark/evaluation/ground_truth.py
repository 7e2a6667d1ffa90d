"""The interface of a split's ground truth, and predictions of the split at one noise level.

Letters: L levels, N samples, S one to three spatial axes, P pixels within the regions of interest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .metrics.pixel_scores import Pixels, PixelScores
from .metrics.ranking import Array, MetricValues, image_metrics, pixel_score_metrics
from .predictions import Predictions
from .protocol import Protocol


class GroundTruth(ABC):
    """The pixels of a split that are evaluated, and what is true there, the same at every level.

    label: (N,) bool
    roi: (N, *S) bool, the pixels that count, an array or read as [i:j]; None without maps, masks
        and regions

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> maps = np.array([[[0.1, 0.2], [0.9, 0.8]]], np.float32)  # one level, two signals
    >>> mask = np.array([[0, 0], [1, 0]], bool)
    >>> predictions = Predictions(
    ...     keys=["a", "b"], groups=["a", "b"], label=np.array([False, True]), mask=mask, roi=None,
    ...     spacing=None, tags=[{}, {}], score=None, map=maps)
    >>> level = build_ground_truth(predictions, Protocol(reducer="max")).at_level(0)
    >>> level.score.round(3).tolist(), level.metrics()["pixel_auroc"]
    ([0.2, 0.9], 1.0)
    """

    roi: Any

    def __init__(self, predictions: Predictions, protocol: Protocol) -> None:
        self.predictions, self.protocol = predictions, protocol
        self.label = np.asarray(predictions.label, bool)
        self._scores: dict[int, Array] = {}
        self._pixel_metrics: dict[int, MetricValues] = {}

    @property
    @abstractmethod
    def prevalence(self) -> float | None:
        """The share of abnormal pixels; None without masks or pixels."""

    @abstractmethod
    def at_level(self, index: int) -> LevelPredictions:
        """Scores and pixel scores at one noise level, post-processed as the protocol says.

        index: of the level among those predicted

        Raises ValueError where the method gave neither a score nor a map, or where the protocol
        takes the method's own score and there is none.
        """

    @abstractmethod
    def detections(self, pixels: Pixels, threshold: float | None) -> Iterator[Detections]:
        """All samples with what is above a threshold, without components that are too small: at
        once, or some consecutive ones at a time."""

    def metrics_at(self, index: int) -> MetricValues:
        """`LevelPredictions.metrics` at one noise level.

        index: of the level among those predicted

        Raises ValueError as `at_level` does.
        """
        return self.at_level(index).metrics()

    def pixel_metrics_at(self, index: int, pixels: Pixels) -> MetricValues:
        """`pixel_score_metrics` of the pixels at one level, computed once for each level."""
        if index not in self._pixel_metrics:
            self._pixel_metrics[index] = pixel_score_metrics(pixels, self.protocol.budget)
        return self._pixel_metrics[index]

    def _sample_scores(self, index: int, reduce_maps: Callable[[], Array]) -> Array:
        """(N,) float64, the method's own or of its maps, which are reduced once for each level."""
        if self.protocol.reducer == "method":
            if self.predictions.score is None:
                raise ValueError("the reducer 'method' wants a score, and the method gave none")
            return np.asarray(self.predictions.score[index], np.float64)
        if index not in self._scores:
            self._scores[index] = reduce_maps()
        return self._scores[index]

    def _filtered_maps(self, index: int, samples: Any) -> Array:
        """Post-processed maps of some samples at one level, (n, *S) float32."""
        roi = self.predictions.roi
        region = None if roi is None else np.asarray(roi[samples], bool)
        return self.protocol.filter_maps(self.predictions.read_maps(index, samples), region)


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


@dataclass(frozen=True)
class LevelPredictions:
    """Predictions of a split at one noise level.

    score: (N,)       pixels: with their scores; None without a map
    index: of the level among those predicted

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> split = Predictions([*"abc"], ["1", "1", "2"], np.array([False, True, False]), None, None,
    ...                     None, [{}, {}, {}], np.array([[0.1, 0.9, 0.5]]), None)
    >>> level = build_ground_truth(split, Protocol()).at_level(0)
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
        """`GroundTruth.detections` of the pixels; none without a map."""
        if self.pixels is not None:
            yield from self.ground_truth.detections(self.pixels, threshold)

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
