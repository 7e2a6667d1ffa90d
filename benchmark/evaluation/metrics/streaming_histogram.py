"""Pixel metrics from a histogram of fixed size, for more pixels than can be sorted in memory.

A bin holds the scores that share the first bits of their float32 pattern, which is in the order of
the numbers: no range is needed beforehand, and bins are finest near zero. How far each metric may
be off follows from the counts alone. Where that is more than `TOLERANCE`, as with scores squashed
against 1 or of few distinct values, a second pass counts the bins that make it uncertain score by
score; if that is not enough, the metrics are refused.

Letters: P pixels, Q of them abnormal, K bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from .connected_components import Array
from .order_statistics import ascending_patterns, scores_of_patterns
from .ranking_curves import area_gain

BIN_BITS = 22
"""Of a score's 32 that name its bin: a sign, 8 of exponent, 13 of mantissa."""
TOLERANCE = 1e-3
"""How far a metric may be off at most."""
CHUNK_SIZE = 2**24
"""Pixels counted at a time."""
SPLIT_SCORES = 2**22
"""Scores that a second pass counts one by one at most, in 100 MB: those of 4,096 bins."""

Block = tuple[Array, Array, Array]
"""score (P,), truth (P,) bool, and the component share (Q,) of each abnormal pixel in order."""


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


def histogram_metrics(
    histogram: StreamingHistogram, blocks: Callable[[], Iterable[Block]]
) -> dict[str, float | None]:
    """Return `StreamingHistogram.metrics`, after a second pass where bins are too coarse.

    histogram: of all pixels
    blocks: gives all of them once more, block by block

    Raises CoarseBinsError where the second pass leaves an error of more than `TOLERANCE`.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.streaming_histogram import (
    ...     StreamingHistogram, histogram_metrics)
    >>> block = np.array([1.0, 1.0001, 1.0002]), np.array([False, True, True]), np.ones(2)
    >>> histogram = StreamingHistogram(bits=12)
    >>> histogram.add(*block)
    >>> metrics = histogram_metrics(histogram, lambda: [block])
    >>> metrics["auroc"], metrics["error"]
    (1.0, 0.0)
    """
    with suppress(CoarseBinsError):
        return histogram.metrics()
    histogram.split_coarse_bins()
    for block in blocks():
        histogram.add_to_split_bins(*block)
    return histogram.metrics()


class Counts(NamedTuple):
    """Counts of pixels by descending score, (K,) each.

    positives, negatives: how many abnormal and normal pixels there are
    share: of the abnormal ones, summed
    equal: whether all of these pixels have the same score
    lowest: pattern of the lowest score that they may have

    >>> from adbench.benchmark.evaluation.metrics.streaming_histogram import StreamingHistogram
    >>> StreamingHistogram(bits=8).counts().positives.size
    0
    """

    positives: Array
    negatives: Array
    share: Array
    equal: Array
    lowest: Array


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
        self._bins = _BinCounts(2**bits)
        self._split = np.zeros(0, np.int64)
        self._split_bins, self._slots = _BinCounts(0), np.zeros(0, np.int32)

    def add(self, score: Array, truth: Array, share: Array) -> None:
        """Count more pixels.

        score: (P,)      truth: (P,) bool, abnormal
        share: (Q,) of each abnormal pixel in order, one over the size of its component
        """
        past = 0
        for i in range(0, score.size, CHUNK_SIZE):
            bins, true = self.bin_indices(score[i : i + CHUNK_SIZE]), truth[i : i + CHUNK_SIZE]
            count = int(np.count_nonzero(true))
            self._bins.add(bins, true, share[past : past + count])
            past += count

    def split_coarse_bins(self) -> None:
        """Choose the bins that make metrics most uncertain; `add_to_split_bins` then wants all
        pixels once more, in any order."""
        filled = self._filled()
        width = _widths(self._counts_of(filled))
        widest = np.argsort(-width, kind="stable")[: SPLIT_SCORES >> (32 - self.bits)]
        self._split = np.sort(filled[widest[width[widest] > 0]])
        self._split_bins = _BinCounts(len(self._split) << (32 - self.bits))
        self._slots = np.full(2**self.bits, -1, np.int32)
        self._slots[self._split] = np.arange(len(self._split))

    def add_to_split_bins(self, score: Array, truth: Array, share: Array) -> None:
        """Count pixels of split bins score by score; as `add`, of which all were counted there."""
        past, low = 0, 32 - self.bits
        for i in range(0, score.size, CHUNK_SIZE):
            pattern = ascending_patterns(score[i : i + CHUNK_SIZE])
            true = truth[i : i + CHUNK_SIZE]
            slot = self._slots[(pattern >> low) + (1 << (self.bits - 1))]
            inside = slot >= 0
            place = (slot[inside].astype(np.int64) << low) + (pattern[inside] & ((1 << low) - 1))
            count = int(np.count_nonzero(true))
            weight = share[past : past + count][inside[true]]
            self._split_bins.add(place, true[inside], weight)
            past += count

    def bin_indices(self, score: Array) -> Array:
        """The bin of each score, ascending with it. Raises ValueError where a score is NaN."""
        return (ascending_patterns(score) >> (32 - self.bits)) + (1 << (self.bits - 1))

    def counts(self) -> Counts:
        """The counts of all bins that are not empty, of split ones score by score."""
        if not len(self._split):
            return self._counts_of(self._filled())
        whole = self._counts_of(np.setdiff1d(self._filled(), self._split))
        low = 32 - self.bits
        place = np.flatnonzero(self._split_bins.positives + self._split_bins.negatives)
        bins = self._split[place >> low]
        pattern = self._lowest_pattern(bins) + (place & ((1 << low) - 1))
        split = Counts(*self._split_bins.at(place), np.ones(len(place), bool), pattern)
        joined = [np.concatenate(pair) for pair in zip(whole, split, strict=True)]
        order = np.argsort(-joined[-1], kind="stable")
        return Counts(*(values[order] for values in joined))

    def metrics(self, tolerance: float = TOLERANCE) -> dict[str, float | None]:
        """auroc, ap, aupro30, aupro05, dice, iou, threshold as of `pixel_metrics`, and `error`.

        error: the most that any of them but the threshold is off by. All others are None without an
        abnormal or without a normal pixel.

        Raises CoarseBinsError where the error is more than the tolerance.
        """
        names = ("auroc", "ap", "aupro30", "aupro05", "dice", "iou", "threshold")
        if not self._bins.positives.any() or not self._bins.negatives.any():
            return dict.fromkeys(names) | {"error": 0.0}
        counts = self.counts()
        bounds = _bounds(counts)
        error = max((high - low) / 2 for low, high in bounds.values())
        if error > tolerance:
            raise CoarseBinsError(
                f"binned pixel metrics may be off by {error:.1e}, more than {tolerance:g}; raise "
                "the protocol's budget so that pixels are sorted"
            )
        middle = {name: (low + high) / 2 for name, (low, high) in bounds.items()}
        return {name: middle.get(name) for name in names} | {
            "threshold": _threshold(counts),
            "error": error,
        }

    def bounds(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value that each metric can have, given the counts."""
        return _bounds(self.counts())

    def _filled(self) -> Array:
        """Bins that are not empty, by descending score."""
        return np.flatnonzero(self._bins.positives + self._bins.negatives)[::-1]

    def _counts_of(self, bins: Array) -> Counts:
        lowest = self._lowest_pattern(bins)
        return Counts(*self._bins.at(bins), np.zeros(len(bins), bool), lowest)

    def _lowest_pattern(self, bins: Array) -> Array:
        return (bins.astype(np.int64) - (1 << (self.bits - 1))) << (32 - self.bits)


class _BinCounts:
    """Positives, negatives and shares of numbered bins."""

    def __init__(self, size: int) -> None:
        self.positives, self.negatives = np.zeros((2, size), np.int64)
        self.share = np.zeros(size)

    def add(self, bins: Array, truth: Array, share: Array) -> None:
        """bins: (P,) of each pixel      truth: (P,) bool      share: (Q,)"""
        if not bins.size:
            return
        first = int(bins.min())  # a count of all bins takes longer than one of so many pixels
        bins = bins - first
        abnormal, counts = bins[truth], np.bincount(bins)
        positives = np.bincount(abnormal, minlength=counts.size)
        part = slice(first, first + counts.size)
        self.positives[part] += positives
        self.negatives[part] += counts - positives
        self.share[part] += np.bincount(abnormal, share, minlength=counts.size)

    def at(self, bins: Array) -> tuple[Array, Array, Array]:
        return self.positives[bins], self.negatives[bins], self.share[bins]


def _bounds(counts: Counts) -> dict[str, tuple[float, float]]:
    lowest_dice, highest_dice = _dice_bounds(counts)
    dice = float(lowest_dice.max()), float(highest_dice[counts.positives > 0].max())
    sums = {
        name: (float(low.sum() / total), float(high.sum() / total))
        for name, (total, low, high) in _parts_of_sums(counts).items()
    }
    return sums | {"dice": dice, "iou": (dice[0] / (2 - dice[0]), dice[1] / (2 - dice[1]))}


def _widths(counts: Counts) -> Array:
    """How much each row adds to the uncertainty of all metrics, (K,)."""
    lowest_dice, highest_dice = _dice_bounds(counts)
    width = np.clip(highest_dice - lowest_dice.max(), 0, None)
    for total, low, high in _parts_of_sums(counts).values():
        width = width + (high - low) / total
    return np.where((counts.positives > 0) & (counts.negatives > 0), width, 0)


def _threshold(counts: Counts) -> float:
    best = int(_dice_bounds(counts)[0].argmax())
    (edge,) = scores_of_patterns(counts.lowest[best : best + 1])
    return float(np.nextafter(edge, np.float32(-math.inf)))


def _parts_of_sums(counts: Counts) -> dict[str, tuple[float, Array, Array]]:
    """Of each metric that is a sum over rows: what it is divided by, and the lowest and the highest
    part (K,) of each row."""
    positives, negatives, share = (float(values.sum()) for values in counts[:3])
    return {
        "auroc": (positives * negatives, *_outranked_bounds(counts)),
        "ap": (positives, *_precision_bounds(counts)),
        "aupro30": (share * 0.30, *_area_bounds(counts, 0.30)),
        "aupro05": (share * 0.05, *_area_bounds(counts, 0.05)),
    }


def _outranked_bounds(counts: Counts) -> tuple[Array, Array]:
    """How many negatives the positives of each row outrank, at least and at most."""
    p, n = (values.astype(np.float64) for values in counts[:2])
    false = n.cumsum()
    low, high = p * (false[-1] - false), p * (false[-1] - false + n)
    middle = (low + high) / 2  # ties count half
    return np.where(counts.equal, middle, low), np.where(counts.equal, middle, high)


def _precision_bounds(counts: Counts) -> tuple[Array, Array]:
    """The sum of precision over the positives of each row: with the negatives of its bin all above
    them, and with all below them and the positives tied."""
    from scipy.special import digamma

    p, n = (values.astype(np.float64) for values in counts[:2])
    true, false = p.cumsum(), n.cumsum()
    before, clear = true - p, false - n
    with np.errstate(invalid="ignore", divide="ignore"):
        # of (before + j) / (before + j + false) for j in 1..p, in closed form
        missed = false * (digamma(before + p + false + 1) - digamma(before + false + 1))
        worst = np.where(p > 0, p - missed, 0)
        best = np.where(p > 0, p * true / (true + clear), 0)
        tied = np.where(p > 0, p * true / (true + false), 0)
    return np.where(counts.equal, tied, worst), np.where(counts.equal, tied, best)


def _area_bounds(counts: Counts, limit: float) -> tuple[Array, Array]:
    """The area that each row adds under per-region overlap over false-positive rates to a limit."""
    n = counts.negatives.astype(np.float64)
    false = n.cumsum()
    rate, clear = false / false[-1], (false - n) / false[-1]
    low, high = (np.clip(limit - at, 0, None) for at in (rate, clear))
    tied = area_gain(clear, rate, limit)
    return (
        counts.share * np.where(counts.equal, tied, low),
        counts.share * np.where(counts.equal, tied, high),
    )


def _dice_bounds(counts: Counts) -> tuple[Array, Array]:
    """Dice with a threshold below each row, and the most that one within it can have."""
    p, n = (values.astype(np.float64) for values in counts[:2])
    true, false = p.cumsum(), n.cumsum()
    low = 2 * true / (true + false + true[-1])
    high = 2 * true / (true + false - n + true[-1])
    return low, np.where(counts.equal, low, high)
