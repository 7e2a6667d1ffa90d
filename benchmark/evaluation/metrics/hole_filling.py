"""Filling of holes in anomaly maps, before any threshold is chosen.

A map is filled so that its pixels above any threshold are those of the map as it was, with holes
filled: a pixel is raised to the height over which every way to the border must lead. This is the
morphological reconstruction by erosion (Soille, Morphological Image Analysis, 2003, section 6.3.7),
computed by flooding from the border with a priority queue (Barnes, Lehman and Mulla, Computers &
Geosciences 62, 2014). scipy fills binary masks alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np

from .connected_components import Array


def fill_holes(image: Array) -> Array:
    """Fill the holes of a map (*S) of one to three axes at every threshold; float32.

    As in `scipy.ndimage.binary_fill_holes`, a hole touches the outside at no face; it may touch it
    at an edge or a corner.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.hole_filling import fill_holes
    >>> ring = np.array([[0, 0, 0, 0], [0, 9, 8, 9], [0, 9, 2, 9], [0, 9, 9, 9]])
    >>> fill_holes(ring)[2].tolist()  # the lowest way out of the hole leads over 8
    [0.0, 9.0, 8.0, 9.0]
    """
    values = np.ascontiguousarray(image, np.float32)
    padded = np.pad(values, 1, constant_values=-np.inf)
    inside = np.zeros(padded.shape, np.bool_)
    inside[(slice(1, -1),) * values.ndim] = True
    strides = [int(np.prod(padded.shape[axis + 1 :])) for axis in range(values.ndim)]
    steps = np.array([sign * stride for stride, sign in product(strides, (-1, 1))], np.int64)
    # pixels at the border of the image: every way out of them leads over themselves
    eroded = np.zeros(padded.shape, np.bool_)
    if min(values.shape) > 2:
        eroded[(slice(2, -2),) * values.ndim] = True
    border = np.flatnonzero((inside & ~eroded).reshape(-1))
    filled = _compiled_flood()(padded.reshape(-1), inside.reshape(-1), border, steps)
    return filled.reshape(padded.shape)[(slice(1, -1),) * values.ndim]


@cache
def _compiled_flood() -> Callable[[Array, Array, Array, Array], Array]:
    """`_flood` as machine code. The import of numba takes a second, which most runs do not need."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(_flood)
    except RuntimeError:  # numba found no folder that it may write to
        return numba.njit(nogil=True)(_flood)


def _flood(heights: Array, inside: Array, border: Array, steps: Array) -> Array:
    filled = heights.copy()
    open_ = inside.copy()
    queue = [(heights[i], i) for i in border]
    for i in border:
        open_[i] = False
    heapq.heapify(queue)
    while queue:
        height, i = heapq.heappop(queue)
        for step in steps:
            j = i + step
            if open_[j]:
                open_[j] = False
                filled[j] = max(heights[j], height)
                heapq.heappush(queue, (filled[j], j))
    return filled
