"""Exact order statistics of more float32 scores than memory holds, and the distinct ones of them.

A score's bit pattern, made to ascend with the number, is split in two: a first pass counts the
high parts, which says where each rank lies, a second the low parts of those few. Of distinct scores
there are at most as many as patterns, and each is a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .connected_components import Array

LOW_BITS = 12
"""Of a pattern's 32 that the second pass counts."""


def ascending_patterns(score: Array) -> Array:
    """Whole numbers in the order of the scores, (P,) int32; of both zeros the same.

    score: (P,) float32

    Raises ValueError where a score is NaN.

    >>> ascending_patterns(np.array([-0.0, 0.0, -1.0, 2.0], np.float32)).argsort().tolist()
    [2, 0, 1, 3]
    """
    if np.isnan(score).any():
        raise ValueError("scores hold NaN, which has no rank")
    pattern = (np.asarray(score, np.float32) + np.float32(0)).view(np.int32)  # no -0.0
    return pattern ^ ((pattern >> 31) & np.int32(0x7FFFFFFF))


def scores_of_patterns(ordered: Array) -> Array:
    """The scores (P,) float32 that `ascending_patterns` (P,) int32 stand for.

    >>> score = np.array([-1.5, 0.25], np.float32)
    >>> scores_of_patterns(ascending_patterns(score)).tolist()
    [-1.5, 0.25]
    """
    ordered = np.asarray(ordered, np.int32)
    return (ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def streamed_order_statistics(blocks: Callable[[], Iterable[Array]], ranks: Array) -> Array:
    """The scores at some ranks of all scores in ascending order, as `np.sort(scores)[ranks]`.

    blocks: gives all scores (P,) float32, block by block, the same ones at each call
    ranks: (K,) int, from 0 on and below the number of scores

    >>> score = np.array([0.3, -0.1, 0.2, 0.2], np.float32)
    >>> streamed_order_statistics(lambda: [score[:2], score[2:]], np.array([0, 2, 3])).tolist()
    [-0.10000000149011612, 0.20000000298023224, 0.30000001192092896]
    """
    if not len(ranks):
        return np.zeros(0, np.float32)
    half = 1 << (31 - LOW_BITS)
    counts = np.zeros(2 * half, np.int64)
    for score in blocks():
        high = (ascending_patterns(score) >> LOW_BITS) + half
        counts += np.bincount(high, minlength=2 * half)
    ends = np.cumsum(counts)
    at = np.searchsorted(ends, ranks, "right")
    needed, row_of_rank = np.unique(at, return_inverse=True)
    row = np.full(2 * half, -1)
    row[needed] = np.arange(needed.size)
    low_counts = np.zeros(needed.size << LOW_BITS, np.int64)
    for score in blocks():
        ordered = ascending_patterns(score)
        rows = row[(ordered >> LOW_BITS) + half]
        inside = rows >= 0
        low = ordered[inside] & ((1 << LOW_BITS) - 1)
        low_counts += np.bincount((rows[inside] << LOW_BITS) + low, minlength=low_counts.size)
    low_ends = np.cumsum(low_counts.reshape(needed.size, -1), 1)
    before = (ends - counts)[at]
    low = [
        np.searchsorted(low_ends[k], rank, "right")
        for k, rank in zip(row_of_rank.tolist(), (ranks - before).tolist(), strict=True)
    ]
    return scores_of_patterns(((at - half) << LOW_BITS) + np.array(low, np.int64))


class DistinctScores:
    """The distinct ones among any number of float32 scores, of 512 MB at most.

    A bit stands for each pattern; memory is taken where scores are, 1 MB for every octave of them.

    >>> distinct = DistinctScores()
    >>> for score in ([0.5, -1.0], [0.5, 2.0]):
    ...     distinct.add(np.array(score, np.float32))
    >>> distinct.size(), distinct.take(np.array([0, 2])).tolist()
    (3, [-1.0, 2.0])
    """

    def __init__(self) -> None:
        self._bits = np.zeros((2**16, 2**13), np.uint8)  # by the high part, by the low part
        self._occurs = np.zeros(2**16, bool)

    def add(self, score: Array) -> None:
        """Add scores (P,) float32. Raises ValueError where one is NaN."""
        pattern = np.unique(ascending_patterns(score)).astype(np.int64) + 2**31
        self._occurs[pattern >> 16] = True
        bit = np.left_shift(1, pattern & 7).astype(np.uint8)
        np.bitwise_or.at(self._bits.reshape(-1), pattern >> 3, bit)

    def size(self) -> int:
        """How many distinct scores there are."""
        return sum(low.size for _, low in self._parts())

    def take(self, places: Array) -> Array:
        """The scores at some places of all in ascending order, (K,) float32.

        places: (K,) int, ascending, from 0 on
        """
        patterns, past = [np.zeros(0, np.int64)], 0
        for high, low in self._parts():
            here = places[np.searchsorted(places, past) : np.searchsorted(places, past + low.size)]
            patterns.append((high << 16) + low[here - past] - 2**31)
            past += low.size
        return scores_of_patterns(np.concatenate(patterns))

    def _parts(self) -> Iterator[tuple[int, Array]]:
        """Each high part that occurs, ascending, and the low parts that occur with it."""
        for high in np.flatnonzero(self._occurs).tolist():
            yield high, np.flatnonzero(np.unpackbits(self._bits[high], bitorder="little"))
