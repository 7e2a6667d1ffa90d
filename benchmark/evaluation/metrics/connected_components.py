"""Connected regions of masks: one pass over the runs of true places, for a whole stack at once.

Regions touch at faces, edges and corners (8 neighbours in a plane, 26 in space), never across
samples. Work is done for runs of true places along the last axis, not for places, so a stack of
mostly empty masks costs little more than finding what is not empty.

Letters: N samples, S one to three spatial axes, Q true places, R regions.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def label_components(masks: Array) -> Array:
    """The region of every true place of masks (N, *S) bool, (Q,) int in 0..R-1, in order."""
    masks = np.ascontiguousarray(masks, bool)
    at = np.flatnonzero(masks)
    if not at.size:
        return np.zeros(0, np.int64)
    width = masks.shape[-1]
    line = at // width
    new = np.append(True, (np.diff(at) != 1) | (line[1:] != line[:-1]))
    run = np.cumsum(new) - 1
    if masks.ndim == 2:
        return run  # a signal's runs are its regions
    starts = np.flatnonzero(new)
    first, last = at[starts], at[np.append(starts[1:] - 1, at.size - 1)]
    pairs = _touching_runs(first, last, line[starts], masks.shape)
    return _merge_runs(len(starts), *pairs)[run]


def component_sizes(component: Array) -> Array:
    """How many places each region has, (R,), from the regions of places (Q,)."""
    return np.bincount(component)


def _touching_runs(
    first: Array, last: Array, line: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Pairs of runs that touch, from where each begins and ends and the line that it lies on."""
    width, lines = shape[-1], shape[:-1]
    span = width + 2  # so that one column beyond either end is still of the same line
    begin, end = first + 2 * line + 1, last + 2 * line + 1  # line * span + column + 1
    place = np.unravel_index(line, lines)
    strides = [int(np.prod(lines[axis + 1 :])) for axis in range(len(lines))]
    ones, others = [], []
    for step in product((-1, 0, 1), repeat=len(lines) - 1):
        if step <= (0,) * len(step):
            continue  # each pair of lines once
        inside = np.ones(line.size, bool)
        for axis, move in enumerate(step, 1):
            inside &= (place[axis] + move >= 0) & (place[axis] + move < lines[axis])
        shift = span * sum(m * stride for m, stride in zip(step, strides[1:], strict=True))
        low = np.searchsorted(end, begin + shift - 1, "left")
        high = np.searchsorted(begin, end + shift + 1, "right")
        count = np.where(inside, np.maximum(high - low, 0), 0)
        ones.append(np.repeat(np.arange(line.size), count))
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        others.append(np.repeat(low, count) + offset)
    return np.concatenate(ones), np.concatenate(others)


def _merge_runs(runs: int, one: Array, other: Array) -> Array:
    """The region of each run, (runs,), numbered by first appearance."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(one.size, np.int8), (one, other)), shape=(runs, runs))
    found = np.asarray(connected_components(graph, directed=False)[1])
    _, first = np.unique(found, return_index=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first, kind="stable")] = np.arange(len(first))
    return order[found]
