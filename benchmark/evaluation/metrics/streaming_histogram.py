"""Pixel metrics from a histogram that grows with nothing: for more places than can be sorted.

A bin holds the scores that share the first bits of their float32 pattern, which is in the order of
the numbers: no range is needed beforehand, and bins are finest near zero. How far each figure may
be off follows from the counts alone; where that is more than `TOLERANCE` they are refused, as with
scores squashed against 1, which such bins cannot tell apart.

Letters: P places, Q of them abnormal, K bins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .connected_components import Array

BIN_BITS = 22
"""Of a score's 32 that name its bin: a sign, 8 of exponent, 13 of mantissa."""
TOLERANCE = 1e-3
CHUNK_SIZE = 2**24
"""Places taken at a time."""


class CoarseBinsError(ValueError):
    """Bins too coarse for these scores: one line, by how much, and what would do."""


class StreamingHistogram:
    """Counts of positives and negatives per bin. Adding is in any order, with the same result."""

    def __init__(self, bits: int = BIN_BITS) -> None:
        self.bits = bits
        self.positives, self.negatives = np.zeros((2, 2**bits), np.int64)
        self.share = np.zeros(2**bits)

    def add(self, score: Array, truth: Array, share: Array) -> None:
        """Scores (P,), truths (P,) bool, and the shares of the abnormal places in order, (Q,)."""
        past = 0
        for i in range(0, score.size, CHUNK_SIZE):
            bins, true = self.bin_indices(score[i : i + CHUNK_SIZE]), truth[i : i + CHUNK_SIZE]
            positive, size = bins[true], len(self.positives)
            self.positives += np.bincount(positive, minlength=size)
            self.negatives += np.bincount(bins[~true], minlength=size)
            weight = share[past : past + positive.size]
            self.share += np.bincount(positive, weight, minlength=size)
            past += positive.size

    def bin_indices(self, score: Array) -> Array:
        """The bin of each score, ascending with it."""
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
        """auroc, ap, aupro30, aupro05, dice, iou, threshold as of places (metrics.py), and `error`,
        the most that any of them but the threshold is off by.

        Raises CoarseError where that is more than the tolerance.
        """
        names = ("auroc", "ap", "aupro30", "aupro05", "dice", "iou", "threshold")
        if not self.positives.any() or not self.negatives.any():
            return dict.fromkeys(names) | {"error": 0.0}
        found = self.bounds()
        error = max((high - low) / 2 for low, high in found.values())
        if error > tolerance:
            raise CoarseBinsError(
                f"binned pixel metrics may be off by {error:.1e}, more than {tolerance:g}; raise "
                "the protocol's budget so that places are sorted"
            )
        middle = {name: (low + high) / 2 for name, (low, high) in found.items()}
        return {name: middle.get(name) for name in names} | {
            "threshold": self._threshold(),
            "error": error,
        }

    def bounds(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest that each figure can be, given the counts."""
        held = np.flatnonzero(self.positives + self.negatives)[::-1]
        p, n, w = (
            part[held].astype(np.float64) for part in (self.positives, self.negatives, self.share)
        )
        true, false = p.cumsum(), n.cumsum()
        before, clear = true - p, false - n
        positives, negatives = true[-1], false[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            worst = _worst_precision_sums(
                p, before, false
            )  # all negatives of a bin above its positives
            best = np.where(p > 0, p * true / (true + clear), 0)  # below them, and ties
        reached = (2 * true / (true + false + positives)).max()
        hoped = (2 * true / (true + clear + positives))[p > 0].max()
        found = {
            "auroc": _bounds_of(
                p * (negatives - false), p * (negatives - clear), positives * negatives
            ),
            "ap": _bounds_of(worst, best, positives),
            "dice": (float(reached), float(hoped)),
            "iou": (float(reached / (2 - reached)), float(hoped / (2 - hoped))),
        }
        for name, limit in (("aupro30", 0.30), ("aupro05", 0.05)):
            low, high = (np.clip(limit - at / negatives, 0, None) for at in (false, clear))
            found[name] = _bounds_of(w * low, w * high, w.sum() * limit)
        return found

    def _threshold(self) -> float:
        held = np.flatnonzero(self.positives + self.negatives)[::-1]
        true, false = self.positives[held].cumsum(), self.negatives[held].cumsum()
        best = int((2 * true / (true + false + true[-1])).argmax())
        return float(
            np.nextafter(np.float32(self.bin_edge(int(held[best]))), np.float32(-math.inf))
        )


def _worst_precision_sums(p: Array, before: Array, alarms: Array) -> Array:
    """The sum over a bin's positives of precision, where they come one by one after all of its
    negatives: of (before + j) / (before + j + alarms) for j in 1..p, in closed form."""
    from scipy.special import digamma

    missed = alarms * (digamma(before + p + alarms + 1) - digamma(before + alarms + 1))
    return np.where(p > 0, p - missed, 0)


def _bounds_of(low: Array, high: Array, whole: Any) -> tuple[float, float]:
    return float(low.sum() / whole), float(high.sum() / whole)
