"""Scores, maps and masks of the samples of one file, as the protocol makes them.

Letters: N samples, W whole images (tiles stitched), S one to three axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...datasets.base import Sample
from ..evaluation.in_memory_ground_truth import InMemoryGroundTruth
from ..evaluation.load_predictions import assemble_predictions
from ..evaluation.metrics.pixel_scores import PixelScores
from ..evaluation.protocol import Protocol

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PredictedFile:
    """What a detector says of the samples of one file.

    samples: N        keys: of the W whole images
    scores: (W,) float64
    maps: (W, *S) float32, post-processed, 0 outside the region of interest; None without maps
    masks: (W, *S) bool, what exceeds the threshold; None without maps or threshold
    abnormal_share: the share of the evaluated pixels above the threshold; None without masks

    >>> import torch
    >>> from adbench.benchmark.prediction.predicted import postprocess
    >>> samples = [Sample(torch.zeros(1, 4), f"p1/z00{z}", "p1", label=False) for z in range(2)]
    >>> maps = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.9]], np.float32)
    >>> predicted = postprocess(samples, np.zeros(2), maps, Protocol(reducer="max"), 0.5)
    >>> predicted.keys, predicted.abnormal_share  # one of eight pixels
    (['p1/z000', 'p1/z001'], 0.125)
    """

    samples: Sequence[Sample]
    keys: Sequence[str]
    scores: Array
    maps: Array | None
    masks: Array | None
    abnormal_share: float | None


def postprocess(
    samples: Sequence[Sample],
    score: Array,
    maps: Array | None,
    protocol: Protocol,
    threshold: float | None,
) -> PredictedFile:
    """Apply a protocol to the raw predictions of some samples at one level.

    score: (N,)        maps: (N, *S) float32 or None
    threshold: above which a pixel is abnormal; None for no masks

    >>> import numpy as np
    >>> import torch
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.benchmark.prediction.predicted import postprocess
    >>> from adbench.datasets.base import Sample
    >>> sample = Sample(torch.zeros(1, 3), "a", "a", label=False)
    >>> maps = np.array([[0.1, 0.2, 0.9]], np.float32)
    >>> predicted = postprocess([sample], np.zeros(1), maps, Protocol(reducer="max"), 0.5)
    >>> predicted.scores.round(2).tolist(), predicted.masks.tolist()
    ([0.9], [[False, False, True]])
    """
    predictions = assemble_predictions(
        samples, score[None], None if maps is None else np.asarray(maps)[None]
    )
    truth = InMemoryGroundTruth(predictions, protocol)
    at_level = truth.at_level(0)
    if truth.roi is None or not isinstance(at_level.pixels, PixelScores):
        return PredictedFile(samples, predictions.keys, at_level.score, None, None, None)
    whole = np.zeros(truth.roi.shape, np.float32)
    whole[truth.roi] = at_level.pixels.score
    masks = share = None
    if threshold is not None:
        masks = np.zeros(truth.roi.shape, bool)
        masks[truth.roi] = truth.binarize(at_level.pixels, threshold)
        share = float(masks[truth.roi].mean()) if truth.roi.any() else 0.0
    return PredictedFile(samples, predictions.keys, at_level.score, whole, masks, share)
