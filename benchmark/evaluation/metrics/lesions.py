"""Lesion-wise metrics: which lesions are detected, by size; FROC; and contrast of lesions in a map.

A lesion is a connected component of a mask within the region of interest.
Letters: N samples, S one to three spatial axes, P pixels, Q of them abnormal, R lesions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .connected_components import Array, label_components
from .pixel_scores import Pixels, PixelScores

MIN_OVERLAP = 0.5
"""Share of a lesion's pixels that must be positive for it to count as detected. One pixel would be
too few: a map of noise at a threshold that 5 % of pixels exceed hits every lesion of 100 pixels."""

SIZE_EDGES = (10.0, 100.0, 1000.0, 10000.0)
"""Edges of the size bins, the same for every dataset, in the unit of `size_unit`."""

FALSE_POSITIVE_RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Shares of normal samples' pixels that exceed the thresholds of a FROC curve."""

RING_WIDTH = 3
"""Pixels around a lesion that it is compared with."""

_UNITS = {1: ("steps", "mm"), 2: ("pixels", "mm²"), 3: ("voxels", "mm³")}


def size_unit(axes: int, spacing: Sequence[float] | None) -> tuple[str, float]:
    """The unit in which lesion sizes are given, and the size of one pixel in it.

    axes: 1, 2 or 3        spacing: millimetres per step along each axis; None if unknown

    >>> from adbench.benchmark.evaluation.metrics.lesions import size_unit
    >>> size_unit(2, None), size_unit(3, (1.0, 1.0, 2.5))
    (('pixels', 1.0), ('mm³', 2.5))
    """
    if spacing is None:
        return _UNITS[axes][0], 1.0
    return _UNITS[axes][1], math.prod(spacing)


def detection_thresholds(pixels: Pixels) -> Array:
    """The score that MIN_OVERLAP of each lesion's pixels reach or exceed, (R,).

    A lesion is detected at exactly the thresholds below that.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.lesions import detection_thresholds
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps, masks = np.array([[0.1, 0.9, 0.4, 0.2]]), np.array([[0, 1, 1, 0]], bool)
    >>> detection_thresholds(PixelScores.from_maps(maps, masks)).tolist()
    [0.9]
    """
    parts = [np.zeros(0)]
    for block in pixels.blocks():
        score = block.score[block.truth]
        order = np.lexsort((score, block.component))  # lesion by lesion, ascending
        size = np.bincount(block.component)
        least = np.ceil(MIN_OVERLAP * size - 1e-9).astype(np.int64)
        parts.append(score[order][np.cumsum(size) - least])
    return np.concatenate(parts)


def lesion_sizes(pixels: Pixels) -> Array:
    """The pixels of each lesion, (R,) int.

    >>> from adbench.benchmark.evaluation.metrics.lesions import lesion_sizes
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> masks = np.array([[1, 0, 1, 1], [0, 0, 0, 1]], bool)
    >>> lesion_sizes(PixelScores.from_maps(np.zeros((2, 4)), masks)).tolist()
    [1, 2, 1]
    """
    sizes = [np.bincount(block.component) for block in pixels.blocks()]
    return np.concatenate([np.zeros(0, np.int64), *sizes])


def detected_lesions(pixels: PixelScores, positive: Array) -> Array:
    """Whether MIN_OVERLAP of each lesion's pixels are positive, (R,) bool.

    positive: (P,) bool, the pixels above a threshold

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.lesions import detected_lesions
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps, masks = np.array([[0.9, 0.1, 0.0, 0.3]]), np.array([[1, 1, 0, 1]], bool)
    >>> pixels = PixelScores.from_maps(maps, masks)
    >>> detected_lesions(pixels, pixels.score > 0.5).tolist()
    [True, False]
    """
    size = np.bincount(pixels.component)
    detected = np.bincount(pixels.component[positive[pixels.truth]], minlength=len(size))
    return detected >= MIN_OVERLAP * size - 1e-9


def lesion_sample_indices(pixels: Pixels) -> Array:
    """The index of the sample that each lesion lies in, (R,) int.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.lesions import lesion_sample_indices
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> masks = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], bool)
    >>> lesion_sample_indices(PixelScores.from_maps(np.zeros((3, 3)), masks)).tolist()
    [0, 0, 2]
    """
    parts, samples = [np.zeros(0, np.int64)], 0
    for block in pixels.blocks():
        abnormal = np.flatnonzero(block.truth)
        sample = np.searchsorted(np.cumsum(block.counts), abnormal, "right")
        _, first = np.unique(block.component, return_index=True)
        parts.append(samples + sample[first])
        samples += len(block.counts)
    return np.concatenate(parts)


def sensitivity_by_size(pixels: Pixels, detected: Array, pixel_size: float) -> list[dict[str, Any]]:
    """Lesion-wise sensitivity in bins of lesion size; higher is better.

    Pooled over all lesions of all samples.

    detected: (R,) bool      pixel_size: the size of one pixel, in the unit of SIZE_EDGES

    Returns one row for each bin: low (from), high (below; None without end), n lesions, found (how
    many of them are detected), sensitivity (None where n is 0).

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.lesions import sensitivity_by_size
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> masks = np.array([[1, 0, 1, 1]], bool)
    >>> pixels = PixelScores.from_maps(np.zeros((1, 4)), masks)
    >>> sensitivity_by_size(pixels, np.array([True, False]), pixel_size=1.0)[0]
    {'low': 0.0, 'high': 10.0, 'n': 2, 'found': 1, 'sensitivity': 0.5}
    """
    size = lesion_sizes(pixels) * pixel_size
    edges = [0.0, *SIZE_EDGES, math.inf]
    table = []
    for low, high in pairwise(edges):
        selected = (size >= low) & (size < high)
        n, count = int(selected.sum()), int(detected[selected].sum())
        table.append(
            {
                "low": low,
                "high": None if math.isinf(high) else high,
                "n": n,
                "found": count,
                "sensitivity": count / n if n else None,
            }
        )
    return table


def froc(pixels: Pixels, label: Array, roi: Any) -> list[dict[str, float]]:
    """Points of the FROC curve: lesion-wise sensitivity over false detections per normal sample.

    A false detection is a connected component above the threshold in a normal sample. A map of
    noise has fewer of them when they run together, so its curve may turn back; that is not
    smoothed out.

    label: (N,) bool, abnormal
    roi: (N, *S) bool, where the P pixels lie; only [i:j] is ever read

    Returns one point for each of FALSE_POSITIVE_RATES, the strictest threshold first: threshold,
    false_per_sample (lower is better), sensitivity (higher is better). A rate of which the normal
    pixels are too few to tell is left out. Empty without lesions or normal samples.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.lesions import froc
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps = np.stack([np.linspace(0, 1, 100), np.full(100, 2.0)])
    >>> masks = np.zeros((2, 100), bool)
    >>> masks[1, 10:20] = True
    >>> pixels = PixelScores.from_maps(maps, masks)
    >>> points = froc(pixels, np.array([False, True]), np.ones((2, 100), bool))
    >>> [(p["false_per_sample"], p["sensitivity"]) for p in points]
    [(0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]
    """
    normal, size = int(np.sum(~label)), int(pixels.counts[~label].sum())
    lesion_thresholds = detection_thresholds(pixels)
    if not normal or not size or not lesion_thresholds.size:
        return []
    rates = [rate for rate in FALSE_POSITIVE_RATES if size * rate >= 1]
    ranks = np.array([min(size - 1, int(size * (1 - rate))) for rate in rates], np.int64)
    thresholds = pixels.order_statistics(ranks, samples=~label)
    counts = _false_detections(pixels, label, roi, thresholds)
    return [
        {
            "threshold": float(threshold),
            "false_per_sample": float(count) / normal,
            "sensitivity": float((lesion_thresholds > threshold).mean()),
        }
        for threshold, count in zip(thresholds, counts, strict=True)
    ]


def _false_detections(pixels: Pixels, label: Array, roi: Any, thresholds: Array) -> list[int]:
    """Connected components above each threshold in all normal samples."""
    counts, first = [0] * len(thresholds), 0
    for block in pixels.blocks():
        last = first + len(block.counts)
        normal = ~label[first:last]
        healthy, inside = block.score[np.repeat(normal, block.counts)], roi[first:last][normal]
        for number, threshold in enumerate(thresholds):
            positive = np.zeros(inside.shape, bool)
            positive[inside] = healthy > threshold
            component = label_components(positive)
            counts[number] += int(component.max()) + 1 if component.size else 0
        first = last
    return counts


def lesion_contrast(pixels: PixelScores, mask: Array, roi: Array) -> Array:
    """Contrast between each abnormal sample's lesions and a ring around them, (N,) in -1..1.

    It is (inside - ring) / (|inside| + |ring|) of mean scores, the ring RING_WIDTH pixels wide;
    higher is better. 0 where both are alike, as with a method that leaves every sample as it is;
    NaN where there is no lesion or no ring within the region of interest.

    Unlike every other metric of maps this one depends on values, not on their order: it is meant
    for residuals, and says whether a lesion was removed more than what is around it.

    mask, roi: (N, *S) bool

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.lesions import lesion_contrast
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps, masks = np.array([[1.0, 3.0, 1.0], [1.0, 1.0, 1.0]]), np.zeros((2, 3), bool)
    >>> masks[0, 1] = True
    >>> pixels = PixelScores.from_maps(maps, masks)
    >>> lesion_contrast(pixels, masks, np.ones((2, 3), bool)).tolist()
    [0.5, nan]
    """
    from scipy import ndimage

    contrast = np.full(len(pixels.counts), np.nan)
    ends = np.append(0, np.cumsum(pixels.counts))
    for i in np.flatnonzero(mask.reshape(len(mask), -1).any(1)).tolist():
        near = ndimage.maximum_filter(mask[i].view(np.uint8), 2 * RING_WIDTH + 1).view(bool)
        score = pixels.score[ends[i] : ends[i + 1]].astype(np.float64)
        lesion, ring = mask[i][roi[i]], (near & ~mask[i])[roi[i]]
        if lesion.any() and ring.any():
            inside, around = float(score[lesion].mean()), float(score[ring].mean())
            total = abs(inside) + abs(around)
            contrast[i] = (inside - around) / total if total else 0.0
    return contrast
