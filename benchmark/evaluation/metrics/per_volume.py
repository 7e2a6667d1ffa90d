"""Pixel metrics of one volume at a time, of which papers on brain scans report the mean.

A volume is all pixels of one group: the slices of a patient, or a single volume. pDDPM (Behrendt et
al., MIDL 2023) and UAD-IMAG (arXiv 2512.01534) report such means. A patient with a small lesion
weighs as much as one with a large lesion, unlike in metrics pooled over all pixels.

Letters: N samples, P pixels within the regions of interest, G groups, V volumes with an abnormal
pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .connected_components import Array
from .ranking import PixelScores, Ranking

VOLUME_METRICS = ("volume_ap", "volume_dice", "volume_sensitivity", "volume_precision")

MAX_THRESHOLDS = 2000
"""Thresholds that `best_volume_dice` tries at most."""


def per_volume_metrics(
    pixels: PixelScores, groups: Sequence[str], positive: Array | None
) -> dict[str, Array]:
    """AP, and at a threshold Dice, sensitivity and precision, of each volume by itself, (N,) each.

    The value of a volume stands at its first sample, with NaN at its others, so that a mean over
    samples is one over volumes. Volumes without an abnormal pixel are NaN: they do not count in a
    mean. Higher is better.

    groups: (N,) of each sample
    positive: (P,) bool, the pixels above the threshold; None without one, and then all but AP are
        NaN

    volume_ap: NaN where every pixel is abnormal
    volume_precision: 0 where nothing is positive

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import per_volume_metrics
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores
    >>> maps = np.array([[[0.1, 0.9]], [[0.2, 0.8]], [[0.7, 0.3]]])  # two slices, and one more
    >>> masks = np.array([[[0, 1]], [[0, 0]], [[0, 0]]], bool)
    >>> pixels = PixelScores.from_maps(maps, masks)
    >>> for name, values in per_volume_metrics(pixels, ["a", "a", "b"], pixels.score > 0.5).items():
    ...     print(name, values.round(3).tolist())
    volume_ap [1.0, nan, nan]
    volume_dice [0.667, nan, nan]
    volume_sensitivity [1.0, nan, nan]
    volume_precision [0.5, nan, nan]
    """
    metrics = {name: np.full(len(pixels.counts), np.nan) for name in VOLUME_METRICS}
    for first, rows in _abnormal_volumes(pixels, groups):
        truth = np.concatenate([pixels.truth[row] for row in rows])
        ranking = Ranking.from_scores(np.concatenate([pixels.score[row] for row in rows]), truth)
        if ranking is not None:
            metrics["volume_ap"][first] = ranking.ap()
        if positive is not None:
            detected = np.concatenate([positive[row] for row in rows])
            both, called = int((detected & truth).sum()), int(detected.sum())
            abnormal = int(truth.sum())
            metrics["volume_dice"][first] = 2 * both / (called + abnormal)
            metrics["volume_sensitivity"][first] = both / abnormal
            metrics["volume_precision"][first] = both / called if called else 0.0
    return metrics


def healthy_volume_rates(pixels: PixelScores, groups: Sequence[str], positive: Array) -> Array:
    """The share of positive pixels of each volume without an abnormal one, (N,); lower is better.

    The value of a volume stands at its first sample, with NaN at its others and at those of volumes
    with an abnormal pixel.

    groups: (N,) of each sample      positive: (P,) bool, the pixels above the threshold

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import healthy_volume_rates
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores
    >>> maps = np.array([[[0.1, 0.9]], [[0.2, 0.3]], [[0.7, 0.3]]])
    >>> pixels = PixelScores.from_maps(maps, np.array([[[0, 0]], [[0, 0]], [[1, 0]]], bool))
    >>> healthy_volume_rates(pixels, ["a", "a", "b"], pixels.score > 0.5).tolist()
    [0.25, nan, nan]
    """
    rates = np.full(len(pixels.counts), np.nan)
    for first, rows in pixels_of_volumes(pixels, groups):
        size = sum(row.stop - row.start for row in rows)
        if size and not any(pixels.truth[row].any() for row in rows):
            rates[first] = sum(int(positive[row].sum()) for row in rows) / size
    return rates


def best_volume_dice(
    pixels: PixelScores, groups: Sequence[str]
) -> tuple[float | None, float | None]:
    """The highest mean Dice of volumes at one threshold for all of them, and that threshold.

    Pixels above it are positive. An upper bound, for it looks at these masks. Tried are the scores
    of abnormal pixels, between which no threshold is better; of more than MAX_THRESHOLDS of them
    that many quantiles, and then the result may be a little too low. (None, None) without an
    abnormal pixel.

    groups: (N,) of each sample

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import best_volume_dice
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores
    >>> maps = np.array([[[0.1, 0.9]], [[0.6, 0.8]]])
    >>> masks = np.array([[[0, 1]], [[1, 1]]], bool)
    >>> dice, threshold = best_volume_dice(PixelScores.from_maps(maps, masks), ["a", "b"])
    >>> dice, round(threshold, 3)
    (1.0, 0.6)
    """
    candidates = np.unique(pixels.score[pixels.truth])
    if not candidates.size:
        return None, None
    if candidates.size > MAX_THRESHOLDS:
        picked = np.linspace(0, candidates.size - 1, MAX_THRESHOLDS).round().astype(int)
        candidates = candidates[picked]
    total, volumes = np.zeros(candidates.size), 0
    for _, rows in _abnormal_volumes(pixels, groups):
        score = np.concatenate([pixels.score[row] for row in rows])
        abnormal = np.sort(score[np.concatenate([pixels.truth[row] for row in rows])])
        score.sort()
        called = score.size - np.searchsorted(score, candidates, "left")
        both = abnormal.size - np.searchsorted(abnormal, candidates, "left")
        total += 2 * both / (called + abnormal.size)
        volumes += 1
    best = int(total.argmax())
    return float(total[best] / volumes), float(np.nextafter(candidates[best], -np.inf))


def _abnormal_volumes(pixels: PixelScores, groups: Sequence[str]) -> list[tuple[int, list[slice]]]:
    """Those of `pixels_of_volumes` with an abnormal pixel."""
    volumes = pixels_of_volumes(pixels, groups)
    return [each for each in volumes if any(pixels.truth[row].any() for row in each[1])]


def pixels_of_volumes(pixels: PixelScores, groups: Sequence[str]) -> list[tuple[int, list[slice]]]:
    """The first sample of each volume, and where the pixels of its samples lie; ordered by the
    names of groups, so that sums do not depend on the order of samples.

    groups: (N,) of each sample

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import pixels_of_volumes
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores
    >>> maps = np.zeros((3, 1, 2))
    >>> pixels_of_volumes(PixelScores.from_maps(maps, maps > 0), ["b", "a", "b"])
    [(1, [slice(2, 4, None)]), (0, [slice(0, 2, None), slice(4, 6, None)])]
    """
    ends, counts = np.cumsum(pixels.counts).tolist(), pixels.counts.tolist()
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [
        (members[group][0], [slice(ends[i] - counts[i], ends[i]) for i in members[group]])
        for group in sorted(members)
    ]
