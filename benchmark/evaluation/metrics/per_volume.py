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
from .pixel_scores import Pixels
from .ranking_curves import Ranking

VOLUME_METRICS = ("volume_ap", "volume_dice", "volume_sensitivity", "volume_precision")

MAX_THRESHOLDS = 2000
"""Thresholds that `best_volume_dice` tries at most."""


def per_volume_metrics(
    pixels: Pixels, groups: Sequence[str], overlaps: Array | None
) -> dict[str, Array]:
    """AP, and at a threshold Dice, sensitivity and precision, of each volume by itself, (N,) each.

    The value of a volume stands at its first sample, with NaN at its others, so that a mean over
    samples is one over volumes. Volumes without an abnormal pixel are NaN: they do not count in a
    mean. Higher is better.

    groups: (N,) of each sample
    overlaps: (N, 4), of `overlap_counts`; None without a threshold, and then all but AP are NaN

    volume_ap: NaN where every pixel is abnormal
    volume_precision: 0 where nothing is positive

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import per_volume_metrics
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> from adbench.benchmark.evaluation.metrics.ranking import overlap_counts
    >>> maps = np.array([[[0.1, 0.9]], [[0.2, 0.8]], [[0.7, 0.3]]])  # two slices, and one more
    >>> masks = np.array([[[0, 1]], [[0, 0]], [[0, 0]]], bool)
    >>> pixels = PixelScores.from_maps(maps, masks)
    >>> overlaps = overlap_counts(pixels, pixels.score > 0.5)
    >>> for name, values in per_volume_metrics(pixels, ["a", "a", "b"], overlaps).items():
    ...     print(name, values.round(3).tolist())
    volume_ap [1.0, nan, nan]
    volume_dice [0.667, nan, nan]
    volume_sensitivity [1.0, nan, nan]
    volume_precision [0.5, nan, nan]
    """
    metrics = {name: np.full(len(pixels.counts), np.nan) for name in VOLUME_METRICS}
    for members in samples_of_volumes(groups):
        first, volume = members[0], pixels.take(members)
        if not volume.truth.any():
            continue
        ranking = Ranking.from_scores(volume.score, volume.truth)
        if ranking is not None:
            metrics["volume_ap"][first] = ranking.ap()
        if overlaps is not None:
            _, abnormal, called, both = overlaps[members].sum(0).tolist()
            metrics["volume_dice"][first] = 2 * both / (called + abnormal)
            metrics["volume_sensitivity"][first] = both / abnormal
            metrics["volume_precision"][first] = both / called if called else 0.0
    return metrics


def healthy_volume_rates(groups: Sequence[str], overlaps: Array) -> Array:
    """The share of positive pixels of each volume without an abnormal one, (N,); lower is better.

    The value of a volume stands at its first sample, with NaN at its others and at those of volumes
    with an abnormal pixel.

    groups: (N,) of each sample      overlaps: (N, 4), of `overlap_counts`

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import healthy_volume_rates
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> from adbench.benchmark.evaluation.metrics.ranking import overlap_counts
    >>> maps = np.array([[[0.1, 0.9]], [[0.2, 0.3]], [[0.7, 0.3]]])
    >>> pixels = PixelScores.from_maps(maps, np.array([[[0, 0]], [[0, 0]], [[1, 0]]], bool))
    >>> overlaps = overlap_counts(pixels, pixels.score > 0.5)
    >>> healthy_volume_rates(["a", "a", "b"], overlaps).tolist()
    [0.25, nan, nan]
    """
    rates = np.full(len(overlaps), np.nan)
    for members in samples_of_volumes(groups):
        size, abnormal, called, _ = overlaps[members].sum(0).tolist()
        if size and not abnormal:
            rates[members[0]] = called / size
    return rates


def best_volume_dice(pixels: Pixels, groups: Sequence[str]) -> tuple[float | None, float | None]:
    """The highest mean Dice of volumes at one threshold for all of them, and that threshold.

    Pixels above it are positive. An upper bound, for it looks at these masks. Tried are the scores
    of abnormal pixels, between which no threshold is better; of more than MAX_THRESHOLDS of them
    that many quantiles, and then the result may be a little too low. (None, None) without an
    abnormal pixel.

    groups: (N,) of each sample

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_volume import best_volume_dice
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps = np.array([[[0.1, 0.9]], [[0.6, 0.8]]])
    >>> masks = np.array([[[0, 1]], [[1, 1]]], bool)
    >>> dice, threshold = best_volume_dice(PixelScores.from_maps(maps, masks), ["a", "b"])
    >>> dice, round(threshold, 3)
    (1.0, 0.6)
    """
    candidates = pixels.distinct_abnormal(MAX_THRESHOLDS)
    if not candidates.size:
        return None, None
    total, volumes = np.zeros(candidates.size), 0
    for members in samples_of_volumes(groups):
        volume = pixels.take(members)
        if not volume.truth.any():
            continue
        abnormal, score = np.sort(volume.score[volume.truth]), np.sort(volume.score)
        called = score.size - np.searchsorted(score, candidates, "left")
        both = abnormal.size - np.searchsorted(abnormal, candidates, "left")
        total += 2 * both / (called + abnormal.size)
        volumes += 1
    best = int(total.argmax())
    return float(total[best] / volumes), float(np.nextafter(candidates[best], -np.inf))


def samples_of_volumes(groups: Sequence[str]) -> list[list[int]]:
    """The samples of each volume; ordered by the names of groups, so that sums do not depend on
    the order of samples.

    groups: (N,) of each sample

    >>> from adbench.benchmark.evaluation.metrics.per_volume import samples_of_volumes
    >>> samples_of_volumes(["b", "a", "b"])
    [[1], [0, 2]]
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [members[group] for group in sorted(members)]
