"""Pixel metrics from a histogram of fixed size, for more pixels than can be sorted in memory.

A bin holds the scores that share the first bits of their float32 pattern, which is in the order of
the numbers: no range is needed beforehand, and bins are finest near zero. How far each metric may
be off follows from the counts alone; where that is more than `TOLERANCE` they are refused, as with
scores squashed against 1, which such bins cannot tell apart.

Letters: P pixels, Q of them abnormal, K bins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .connected_components import Array

BIN_BITS = 22
"""Of a score's 32 that name its bin: a sign, 8 of exponent, 13 of mantissa."""
TOLERANCE = 1e-3
"""How far a metric may be off at most."""
CHUNK_SIZE = 2**24
"""Pixels counted at a time."""


class CoarseBinsError(ValueError):
    """Bins too coarse for these scores: one line, by how much, and what would do.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.streaming_histogram import (
    ...     CoarseBinsError, StreamingHistogram)
    >>> histogram = StreamingHistogram(bits=12)
    >>> histogram.add(np.array([1.0, 1.0001]), np.array([False, True]), np.ones(1))
    >>> try:
    ...     histogram.metrics()
    ... except CoarseBinsError as error:
    ...     print(error)
    binned pixel metrics may be off by 5.0e-01, more than 0.001; raise the protocol's budget so
    that pixels are sorted
    """


class StreamingHistogram:
    """Counts of abnormal and normal pixels per bin of score, from which pixel metrics are read.

    Adding is in any order, with the same result. Memory is 24 bytes for each of the 2**bits bins.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.streaming_histogram import StreamingHistogram
    >>> histogram = StreamingHistogram(bits=16)
    >>> histogram.add(np.array([0.1, 0.2]), np.array([False, True]), np.ones(1))
    >>> histogram.add(np.array([0.3, 0.4]), np.array([False, True]), np.ones(1))
    >>> metrics = histogram.metrics()
    >>> metrics["auroc"], metrics["error"]
    (0.75, 0.0)
    """

    def __init__(self, bits: int = BIN_BITS) -> None:
        """bits: of a score's float32 pattern that name its bin"""
        self.bits = bits
        self.positives, self.negatives = np.zeros((2, 2**bits), np.int64)
        self.share = np.zeros(2**bits)

    def add(self, score: Array, truth: Array, share: Array) -> None:
        """Count more pixels.

        score: (P,)      truth: (P,) bool, abnormal
        share: (Q,) of each abnormal pixel in order, one over the size of its component
        """
        past = 0
        for i in range(0, score.size, CHUNK_SIZE):
            bins, true = self.bin_indices(score[i : i + CHUNK_SIZE]), truth[i : i + CHUNK_SIZE]
            abnormal, size = bins[true], len(self.positives)
            self.positives += np.bincount(abnormal, minlength=size)
            self.negatives += np.bincount(bins[~true], minlength=size)
            weight = share[past : past + abnormal.size]
            self.share += np.bincount(abnormal, weight, minlength=size)
            past += abnormal.size

    def bin_indices(self, score: Array) -> Array:
        """The bin of each score, ascending with it. Raises ValueError where a score is NaN."""
        if np.isnan(score).any():
            raise ValueError("scores hold NaN, which has no rank")
        pattern = (np.asarray(score, np.float32) + np.float32(0)).view(np.int32)  # no -0.0
        ordered = pattern ^ ((pattern >> 31) & np.int32(0x7FFFFFFF))
        return (ordered >> (32 - self.bits)) + (1 << (self.bits - 1))

    def bin_edge(self, index: int) -> float:
        """The lowest score of a bin."""
        ordered = np.int32((index - (1 << (self.bits - 1))) << (32 - self.bits))
        pattern = np.array(ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF)), np.int32)
        return float(pattern.view(np.float32))

    def metrics(self, tolerance: float = TOLERANCE) -> dict[str, float | None]:
        """auroc, ap, aupro30, aupro05, dice, iou, threshold as of `pixel_metrics`, and `error`.

        error: the most that any of them but the threshold is off by. All others are None without an
        abnormal or without a normal pixel.

        Raises CoarseBinsError where the error is more than the tolerance.
        """
        names = ("auroc", "ap", "aupro30", "aupro05", "dice", "iou", "threshold")
        if not self.positives.any() or not self.negatives.any():
            return dict.fromkeys(names) | {"error": 0.0}
        bounds = self.bounds()
        error = max((high - low) / 2 for low, high in bounds.values())
        if error > tolerance:
            raise CoarseBinsError(
                f"binned pixel metrics may be off by {error:.1e}, more than {tolerance:g}; raise "
                "the protocol's budget so that pixels are sorted"
            )
        middle = {name: (low + high) / 2 for name, (low, high) in bounds.items()}
        return {name: middle.get(name) for name in names} | {
            "threshold": self._threshold(),
            "error": error,
        }

    def bounds(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value that each metric can have, given the counts."""
        filled = np.flatnonzero(self.positives + self.negatives)[::-1]
        p, n, w = (
            counts[filled].astype(np.float64)
            for counts in (self.positives, self.negatives, self.share)
        )
        true, false = p.cumsum(), n.cumsum()
        before, clear = true - p, false - n
        positives, negatives = true[-1], false[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            worst = _worst_precision_sums(p, before, false)  # a bin's negatives above its positives
            best = np.where(p > 0, p * true / (true + clear), 0)  # below them, and ties
        lowest_dice = (2 * true / (true + false + positives)).max()
        highest_dice = (2 * true / (true + clear + positives))[p > 0].max()
        bounds = {
            "auroc": _bounds_of(
                p * (negatives - false), p * (negatives - clear), positives * negatives
            ),
            "ap": _bounds_of(worst, best, positives),
            "dice": (float(lowest_dice), float(highest_dice)),
            "iou": (
                float(lowest_dice / (2 - lowest_dice)),
                float(highest_dice / (2 - highest_dice)),
            ),
        }
        for name, limit in (("aupro30", 0.30), ("aupro05", 0.05)):
            low, high = (np.clip(limit - at / negatives, 0, None) for at in (false, clear))
            bounds[name] = _bounds_of(w * low, w * high, w.sum() * limit)
        return bounds

    def _threshold(self) -> float:
        filled = np.flatnonzero(self.positives + self.negatives)[::-1]
        true, false = self.positives[filled].cumsum(), self.negatives[filled].cumsum()
        best = int((2 * true / (true + false + true[-1])).argmax())
        edge = np.float32(self.bin_edge(int(filled[best])))
        return float(np.nextafter(edge, np.float32(-math.inf)))


def _worst_precision_sums(p: Array, before: Array, false: Array) -> Array:
    """The sum of precision over a bin's positives, if they come after all of its negatives.

    Of (before + j) / (before + j + false) for j in 1..p, in closed form.
    """
    from scipy.special import digamma

    missed = false * (digamma(before + p + false + 1) - digamma(before + false + 1))
    return np.where(p > 0, p - missed, 0)


def _bounds_of(low: Array, high: Array, total: Any) -> tuple[float, float]:
    return float(low.sum() / total), float(high.sum() / total)
