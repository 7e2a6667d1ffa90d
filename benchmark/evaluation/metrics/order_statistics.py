"""Exact order statistics of more float32 scores than memory holds, in two passes over them.

A score's bit pattern, made to ascend with the number, is split in two: the first pass counts the
high parts, which says where each rank lies, the second the low parts of those few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
