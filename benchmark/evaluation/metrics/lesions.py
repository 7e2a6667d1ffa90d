"""Lesion by lesion: which are found, by size; at what price in false findings; and whether the map
stands out there at all. A lesion is a connected region of a mask, within the region of interest.

Letters: N samples, S one to three spatial axes, P places, Q of them abnormal, R lesions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .connected_components import Array, label_components
from .ranking import PixelScores

MIN_OVERLAP = 0.5
"""Of a lesion's places, how many must be found for it to count as found. One place would be too
few: a map of noise at a threshold that 5 % of places exceed hits every lesion of 100 places."""

SIZE_EDGES = (10.0, 100.0, 1000.0, 10000.0)
"""Edges of the size bins, the same for every data set, in the unit of `unit`."""

FALSE_POSITIVE_RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Shares of normal samples' places that exceed the thresholds of a FROC curve."""

RING_WIDTH = 3
"""Places around a lesion that it is held against."""

_UNITS = {1: ("steps", "mm"), 2: ("pixels", "mm²"), 3: ("voxels", "mm³")}


def size_unit(axes: int, spacing: Sequence[float] | None) -> tuple[str, float]:
    """What sizes are told in, and the size of one place: millimetres where the spacing is known."""
    if spacing is None:
        return _UNITS[axes][0], 1.0
    return _UNITS[axes][1], math.prod(spacing)


def detection_thresholds(pixels: PixelScores) -> Array:
    """Of each lesion, (R,), the score that COVER of its places have or exceed.

    A lesion is found at exactly the thresholds below that.
    """
    score = pixels.score[pixels.truth]
    order = np.lexsort((score, pixels.component))  # lesion by lesion, ascending
    size = np.bincount(pixels.component)
    least = np.ceil(MIN_OVERLAP * size - 1e-9).astype(np.int64)
    return score[order][np.cumsum(size) - least]


def detected_lesions(pixels: PixelScores, positive: Array) -> Array:
    """Whether COVER of each lesion's places are among those found (P,) bool, (R,) bool."""
    size = np.bincount(pixels.component)
    hit = np.bincount(pixels.component[positive[pixels.truth]], minlength=len(size))
    return hit >= MIN_OVERLAP * size - 1e-9


def lesion_sample_indices(pixels: PixelScores) -> Array:
    """The sample that each lesion is in, (R,) int."""
    at = np.flatnonzero(pixels.truth)
    sample = np.searchsorted(np.cumsum(pixels.counts), at, "right")
    _, first = np.unique(pixels.component, return_index=True)
    return sample[first]


def sensitivity_by_size(
    pixels: PixelScores, detected: Array, pixel_size: float
) -> list[dict[str, Any]]:
    """Lesion-wise sensitivity by size: low (from), high (below, None without end), n lesions, found
    of them, sensitivity (None of none). Higher is better; pooled over all lesions of all samples.

    detected: (R,) bool      pixel_size: the size of one place
    """
    size = np.bincount(pixels.component) * pixel_size
    edges = [0.0, *SIZE_EDGES, math.inf]
    table = []
    for low, high in pairwise(edges):
        mine = (size >= low) & (size < high)
        n, found = int(mine.sum()), int(detected[mine].sum())
        table.append(
            {
                "low": low,
                "high": None if math.isinf(high) else high,
                "n": n,
                "found": found,
                "sensitivity": found / n if n else None,
            }
        )
    return table


def froc(pixels: PixelScores, label: Array, roi: Array) -> list[dict[str, float]]:
    """Points of a FROC curve, the strictest threshold first: false findings in each normal sample,
    on average, and the share of lesions found there. Empty without lesions or normal samples.

    A false finding is a connected region above the threshold in a normal sample. A map of noise has
    fewer of them when they run together, so its curve may turn back; that is not smoothed out.
    """
    normal = np.flatnonzero(~label)
    healthy = pixels.score[np.repeat(~label, pixels.counts)]
    if not normal.size or not healthy.size or not pixels.component.size:
        return []
    highest = detection_thresholds(pixels)
    at = [min(healthy.size - 1, int(healthy.size * (1 - price))) for price in FALSE_POSITIVE_RATES]
    thresholds = np.partition(healthy, at)[at]
    points = []
    for price, threshold in zip(FALSE_POSITIVE_RATES, thresholds, strict=True):
        if healthy.size * price < 1:
            continue
        picture = np.zeros((normal.size, *roi.shape[1:]), bool)
        picture[roi[normal]] = healthy > threshold
        region = label_components(picture)
        points.append(
            {
                "threshold": float(threshold),
                "false_per_sample": float(region.max() + 1 if region.size else 0) / normal.size,
                "sensitivity": float((highest > threshold).mean()),
            }
        )
    return points


def lesion_contrast(pixels: PixelScores, mask: Array, roi: Array) -> Array:
    """How much the map stands out in each abnormal sample's lesions against a ring RING places wide
    around them: (inside - ring) / (|inside| + |ring|) of mean scores, (N,) in -1..1, higher is
    better. 0 where both are alike, as with a method that leaves every sample as it is; NaN where
    there is no lesion or no ring.

    Unlike every other figure of maps this one looks at values, not at their order: it is of
    residuals, and says whether a lesion was removed more than what is around it.
    """
    from scipy import ndimage

    made = np.full(len(pixels.counts), np.nan)
    ends = np.append(0, np.cumsum(pixels.counts))
    for i in np.flatnonzero(mask.reshape(len(mask), -1).any(1)).tolist():
        near = ndimage.maximum_filter(mask[i].view(np.uint8), 2 * RING_WIDTH + 1).view(bool)
        score = pixels.score[ends[i] : ends[i + 1]].astype(np.float64)
        true, ring = mask[i][roi[i]], (near & ~mask[i])[roi[i]]
        if true.any() and ring.any():
            inside, around = float(score[true].mean()), float(score[ring].mean())
            size = abs(inside) + abs(around)
            made[i] = (inside - around) / size if size else 0.0
    return made
