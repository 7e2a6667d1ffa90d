"""AUPIMO: the recall of each abnormal image at false-positive rates so low that normal images stay
clean.

Bertoldo, Ortega and Reiss et al., AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High
Speed and Low Tolerance, BMVC 2024, https://arxiv.org/abs/2401.01984. The rate of a threshold is the
mean over normal images of the share of their pixels at or above it; the recall is that of one
image. The area under recall over the logarithm of the rate is exact here, where the authors' code
takes thresholds on a grid: an abnormal pixel adds to it from the rate of its own score on.

Letters: N samples, P pixels within the regions of interest.
"""

from __future__ import annotations

import math

import numpy as np

from .connected_components import Array
from .pixel_scores import Pixels

LIMITS = (1e-5, 1e-4)
"""Rates of false positives between which the paper integrates."""


def aupimo(pixels: Pixels, label: Array, limits: tuple[float, float] = LIMITS) -> Array:
    """AUPIMO of each sample, (N,) in 0..1; higher is better.

    NaN for samples without an abnormal pixel, which do not count in a mean, and for all where no
    sample is normal.

    label: (N,) bool, abnormal        limits: the lower and the upper rate of false positives

    Raises ValueError unless 0 < lower < upper <= 1.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.aupimo import aupimo
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.35, 0.2]])
    >>> masks = np.array([[0, 0, 0, 0], [1, 0, 1, 0]], bool)
    >>> values = aupimo(PixelScores.from_maps(maps, masks), masks.any(1), (0.1, 1.0))
    >>> values.round(3).tolist()  # 0.9 is above all normal pixels, 0.35 below a quarter of them
    [nan, 0.801]
    """
    lower, upper = limits
    if not 0 < lower < upper <= 1:
        raise ValueError(f"limits are rates 0 < lower < upper <= 1, not {lower:g} and {upper:g}")
    result = np.full(len(pixels.counts), np.nan)
    normal = ~np.asarray(label, bool) & (pixels.counts > 0)
    if not normal.any():
        return result
    rates = _false_positive_rates(pixels, normal, upper)
    i = 0
    for block in pixels.blocks():
        first = 0
        for last in np.cumsum(block.counts).tolist():
            abnormal = block.score[first:last][block.truth[first:last]]
            if abnormal.size:
                rate = np.maximum(rates(abnormal), lower)
                area = np.clip(np.log(upper / rate), 0, None)
                result[i] = math.fsum(area.tolist()) / area.size / math.log(upper / lower)
            i, first = i + 1, last
    return result


class _FalsePositiveRates:
    """The rate of false positives at a threshold, exact up to a limit, and above it too high.

    scores: (K,) of normal pixels, ascending        above: (K + 1,) the rate at each and above
    floor: the rate of scores below the lowest of `scores`
    """

    def __init__(self, scores: Array, weights: Array) -> None:
        order = np.argsort(scores, kind="stable")
        self.scores = scores[order]
        self.above = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)

    def __call__(self, thresholds: Array) -> Array:
        return self.above[np.searchsorted(self.scores, thresholds, "left")]


def _false_positive_rates(pixels: Pixels, normal: Array, upper: float) -> _FalsePositiveRates:
    """Rates from the highest scores of normal samples, as many as can lie below the rate `upper`:
    the others are never looked at, and are not sorted."""
    samples = int(normal.sum())
    needed = math.floor(upper * samples * int(pixels.counts[normal].max())) + 2
    scores, weights, first = np.zeros(0, np.float32), np.zeros(0), 0
    for block in pixels.blocks():
        chosen = normal[first : first + len(block.counts)]
        first += len(block.counts)
        counts = block.counts[chosen]
        score = block.score[np.repeat(chosen, block.counts)]
        weight = np.repeat(1 / (counts * samples), counts)
        parts = [_highest(score, weight, needed)]
        if scores.size:
            parts.insert(0, (scores, weights))
        scores, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        scores, weights = _highest(scores, weights, needed)
    return _FalsePositiveRates(scores, weights)


def _highest(scores: Array, weights: Array, count: int) -> tuple[Array, Array]:
    """The `count` highest scores in their order, with their weights; of those that tie with the
    lowest of these the first, for all of these are at rates above the limit."""
    if count >= scores.size:
        return scores, weights
    cut = np.partition(scores, scores.size - count)[scores.size - count]
    above, ties = scores > cut, np.flatnonzero(scores == cut)
    above[ties[: count - np.count_nonzero(above)]] = True
    return scores[above], weights[above]
