"""Metrics of anomaly maps whose truth is boxes, not masks, as in chest radiographs.

A detection is a connected component of a map above a threshold, and stands where its highest pixel
is; a box is detected when a detection stands in it. So a component that covers the whole image
detects one box at most, and a box need not be outlined: boxes are not masks. The pointing game
(Zhang et al., IJCV 2018) asks only whether the highest pixel of an image lies in a box.

All thresholds are looked at together: each local maximum of a map is a detection from its own value
down to the value at which its component joins a higher one (0-dimensional persistence).

Letters: N samples, S one to three spatial axes, M maxima, K thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from .connected_components import Array

RATES = {"box_recall_025": 0.25, "box_recall_1": 1.0}
"""False positives per normal image at which the recall of boxes is a metric, by its name."""

BOX_METRICS = ("pointing_game", *RATES)

MAX_THRESHOLDS = 512
"""Thresholds that are looked at, at most: quantiles of the maxima of normal images."""


class Maxima(NamedTuple):
    """The local maxima of a map, highest first.

    position: (M, axes) of the highest pixel
    birth: (M,) its value
    death: (M,) the value at which the component joins a higher one; minus infinity of the highest

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.boxes import local_maxima
    >>> maxima = local_maxima(np.array([1.0, 5.0, 2.0, 4.0]), np.ones(4, bool))
    >>> maxima.birth.tolist(), maxima.death.tolist()
    ([5.0, 4.0], [-inf, 2.0])
    """

    position: Array
    birth: Array
    death: Array


def local_maxima(map: Array, roi: Array) -> Maxima:
    """Return the maxima of a map: above any threshold t there are as many connected components as
    maxima with death <= t < birth. Components touch at faces, edges and corners.

    map: (*S)      roi: (*S) bool, outside of which there is nothing

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.boxes import local_maxima
    >>> map = np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    >>> local_maxima(map, np.ones((2, 3), bool)).position.tolist()
    [[0, 0], [1, 2]]
    """
    padded = np.pad(np.where(roi, map, -np.inf).astype(np.float64), 1, constant_values=-np.inf)
    strides = np.array(padded.strides) // padded.itemsize
    offsets = [int(strides @ step) for step in product((-1, 0, 1), repeat=map.ndim) if any(step)]
    flat = padded.ravel()
    order = np.argsort(-flat, kind="stable")[: int(roi.sum())]
    order = order[np.isfinite(flat[order])]
    if not order.size:
        return Maxima(np.zeros((0, map.ndim), np.int64), np.zeros(0), np.zeros(0))
    peak, death = _compiled_persistence()(flat, order, np.array(offsets))
    position = np.stack(np.unravel_index(peak, padded.shape), 1) - 1
    return Maxima(position, flat[peak], death)


@cache
def _compiled_persistence() -> Callable[[Array, Array, Array], tuple[Array, Array]]:
    """`_persistence` as machine code. The import of numba takes a second, which most runs do not
    need."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(_persistence)
    except RuntimeError:  # numba found no folder that it may write to
        return numba.njit(nogil=True)(_persistence)


def _persistence(flat: Array, order: Array, offsets: Array) -> tuple[Array, Array]:
    """Peaks and deaths of the components, in the order of their peaks; pixels join from the highest
    down, and of components that meet the one with the higher peak goes on."""
    parent = np.full(flat.size, -1, np.int64)
    component = np.full(flat.size, -1, np.int64)  # of a root: the number of its peak
    peaks, deaths, count = np.empty(order.size, np.int64), np.empty(order.size), 0
    for pixel in order:
        parent[pixel] = pixel
        for offset in offsets:
            other = pixel + offset
            if parent[other] < 0:
                continue
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = parent[other]
            root = pixel
            while parent[root] != root:
                root = parent[root]
            if root == other:
                continue
            if component[root] < 0:
                parent[root] = other
            elif component[root] < component[other]:
                deaths[component[other]] = flat[pixel]
                parent[other] = root
            else:
                deaths[component[root]] = flat[pixel]
                parent[root] = other
        if parent[pixel] == pixel and component[pixel] < 0:
            component[pixel] = count
            peaks[count], deaths[count] = pixel, -np.inf
            count += 1
    lasting = np.flatnonzero(flat[peaks[:count]] > deaths[:count])
    return peaks[lasting], deaths[lasting]


def pointing_game(map: Array, roi: Array, boxes: Sequence[Sequence[int]]) -> float:
    """Return the share of the highest pixels of a map that lie in a box: 1 or 0 but for ties.

    map: (*S)      roi: (*S) bool
    boxes: each (first of every axis, past the last of every axis), in pixels; NaN without any

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.boxes import pointing_game
    >>> map = np.array([[0.0, 9.0], [9.0, 0.0]])
    >>> pointing_game(map, np.ones((2, 2), bool), [(0, 1, 1, 2)])  # row 0, column 1
    0.5
    """
    highest = np.argwhere(roi & (map == np.max(map, where=roi, initial=-np.inf)))
    if not boxes or not len(highest):
        return float("nan")
    return float(_inside(highest, boxes).any(1).mean())


class BoxCounts(NamedTuple):
    """What is detected at each threshold, from the strictest down.

    thresholds: (K,)
    detected: (N, K) boxes in which a detection stands
    false: (N, K) detections in a normal sample; 0 in others
    boxes: (N,) of each sample        normal: (N,) bool

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.boxes import box_counts
    >>> maps = np.array([[[1.0, 0.0, 3.0]], [[0.0, 9.0, 0.0]]])
    >>> counts = box_counts(maps, np.ones(maps.shape, bool), [[], [(0, 1, 1, 2)]], np.array([0, 1]))
    >>> counts.thresholds.tolist(), counts.false[0].tolist(), counts.detected[1].tolist()
    ([3.0, 1.0, -inf], [0, 1, 1], [1, 1, 1])
    """

    thresholds: Array
    detected: Array
    false: Array
    boxes: Array
    normal: Array


def box_counts(
    maps: Iterable[Array], roi: Array, boxes: Sequence[Sequence[Sequence[int]]], label: Array
) -> BoxCounts:
    """Count boxes detected and false detections of every sample at every threshold.

    maps: N of (*S), looked at one by one      roi: (N, *S) bool      label: (N,) bool, abnormal
    boxes: of each sample, none of a normal one

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.boxes import box_counts
    >>> box_counts(np.zeros((0, 4)), np.zeros((0, 4), bool), [], np.zeros(0)).detected.shape
    (0, 1)
    """
    normal = ~np.asarray(label, bool)
    maxima = [local_maxima(map, region) for map, region in zip(maps, roi, strict=True)]
    births = [maximum.birth for maximum, healthy in zip(maxima, normal, strict=True) if healthy]
    values = np.unique(np.concatenate([np.zeros(0), *births]))[::-1]
    if values.size > MAX_THRESHOLDS:
        values = values[np.linspace(0, values.size - 1, MAX_THRESHOLDS).round().astype(int)]
    thresholds = np.append(values, -np.inf)
    detected = np.zeros((len(maxima), thresholds.size), np.int32)
    false = np.zeros_like(detected)
    for i, maximum in enumerate(maxima):
        alive = maximum.birth[:, None] > thresholds
        alive &= maximum.death[:, None] <= thresholds  # (M, K)
        if normal[i]:
            false[i] = alive.sum(0)
        elif boxes[i] and len(maximum.birth):
            inside = _inside(maximum.position, boxes[i])  # (M, boxes)
            detected[i] = (inside.T.astype(np.int64) @ alive > 0).sum(0)
    return BoxCounts(thresholds, detected, false, np.array([len(b) for b in boxes], int), normal)


def recall_at_rate(
    detected: Array, false: Array, boxes: Array, normal: Array, rate: float
) -> Array:
    """Return the highest share of boxes detected at a threshold with at most `rate` false
    detections per normal sample, (B,); higher is better. NaN without boxes or normal samples.

    The best threshold is taken, not the lowest: in maps of noise detections run together below, and
    the rate falls again; a map that is one component detects little.

    detected, false: (B, K) sums over samples      boxes, normal: (B,) sums

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.boxes import recall_at_rate
    >>> detected, false = np.array([[1, 2, 4]]), np.array([[0, 5, 30]])
    >>> recall_at_rate(detected, false, np.array([4]), np.array([10]), rate=1.0)
    array([0.5])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        allowed = false / normal[:, None] <= rate
        recall = np.where(allowed, detected, 0).max(1, initial=0) / boxes
    return np.where((boxes > 0) & (normal > 0), recall, np.nan)


def _inside(positions: Array, boxes: Sequence[Sequence[int]]) -> Array:
    """Whether positions (M, axes) lie in boxes, (M, boxes) bool."""
    corners = np.asarray(boxes)
    axes = positions.shape[1]
    above = positions[:, None] >= corners[:, :axes]
    return np.asarray((above & (positions[:, None] < corners[:, axes:])).all(2))
