"""Pixel metrics on every resample of groups, read from one histogram per group.

Bins are of equal mass, half of them equal in abnormal pixels and half in normal ones, wherever the
scores lie. A value too frequent for its bin has one of its own, so ties stay ties. A resample's
histogram is then a sum of groups' histograms, and all resamples' together one product of matrices.

Letters: P pixels, G groups, B replicates, K bins.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..metrics.connected_components import Array
from ..metrics.pixel_scores import Pixels
from ..metrics.ranking_curves import area_gain

BIN_COUNT = 1024
"""Bins of a histogram, about."""
GROUP_BLOCK = 256
"""Groups whose histograms are in memory at a time."""
REPLICATE_BLOCK = 128
"""Resamples whose metrics are computed at a time."""

FIXED_POINT_UNIT = 2.0**-30
"""Shares of components are counted in multiples of this, so that a sum has no order."""


def bootstrap_ranking_metrics(
    pixels: Pixels, group_index: Array, draw_counts: Array
) -> dict[str, Array]:
    """auroc, ap, aupro30, aupro05 and dice_oracle on every resample, (B,) each.

    NaN on a resample without an abnormal or without a normal pixel. Within a bin that is no tie,
    positives and negatives are taken to alternate. Against exact recomputation that moves ap by
    about 1e-3 of its own and the others by less.

    group_index: (N,) int, the group of each sample
    draw_counts: (B, G), how often each group is drawn

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> from adbench.benchmark.evaluation.statistics.histogram_bootstrap import (
    ...     bootstrap_ranking_metrics)
    >>> maps, masks = np.array([[0.1, 0.9], [0.8, 0.4]]), np.array([[0, 1], [0, 1]], bool)
    >>> pixels = PixelScores.from_maps(maps, masks)
    >>> counts = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])  # both, the first, the second
    >>> bootstrap_ranking_metrics(pixels, np.array([0, 1]), counts)["auroc"].tolist()
    [0.75, 1.0, 0.0]
    """
    if not len(draw_counts):
        return {name: np.zeros(0) for name in ("auroc", "ap", "aupro30", "aupro05", "dice_oracle")}
    edges = _bin_edges(pixels)
    total = np.zeros((3, len(draw_counts), len(edges)))
    for first, histograms in _group_histograms(pixels, group_index, draw_counts.shape[1], edges):
        drawn = draw_counts[:, first : first + histograms.shape[1]].astype(np.float64)
        for row, histogram in zip(total, histograms, strict=True):
            row += drawn @ histogram
    tied = np.append(edges[1:] == np.nextafter(edges[:-1], np.inf), True)  # the last is the maximum
    blocks = [
        binned_metrics(positives, negatives, share, tied[::-1])
        for i in range(0, len(draw_counts), REPLICATE_BLOCK)
        for positives, negatives, share in [total[:, i : i + REPLICATE_BLOCK]]
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def binned_metrics(
    positives: Array, negatives: Array, share: Array | None, tied: Array
) -> dict[str, Array]:
    """auroc, ap, dice_oracle and, with shares, aupro30 and aupro05 of histograms, (B,) each.

    NaN without a positive or without a negative.

    positives, negatives: (B, K) how many there are in each bin, the highest scores first
    share: (B, K) the summed shares of components; None without them
    tied: (K,) bool, whether all scores of a bin are equal

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.histogram_bootstrap import binned_metrics
    >>> positives, negatives = np.array([[2.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 3.0]])
    >>> metrics = binned_metrics(positives, negatives, None, np.ones(3, bool))
    >>> {name: round(float(values[0]), 3) for name, values in metrics.items()}
    {'auroc': 0.958, 'ap': 0.917, 'dice_oracle': 0.857}
    """
    true, false = positives.cumsum(1), negatives.cumsum(1)
    all_positives, all_negatives = true[:, -1:], false[:, -1:]
    at_true, at_false = true, false
    if not tied.all():
        at_true = np.where(tied, true, true - (positives - 1) / 2)
        at_false = np.where(tied, false, false - negatives / 2)
    metrics = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(positives > 0, at_true / (at_true + at_false), 0)
        outranked = (positives * (all_negatives - false + negatives / 2)).sum(1)
        metrics["auroc"] = outranked / (all_positives * all_negatives)[:, 0]
        metrics["ap"] = (positives * precision).sum(1) / all_positives[:, 0]
        metrics["dice_oracle"] = (2 * true / (true + false + all_positives)).max(1)
        if share is not None:
            high = false / all_negatives
            low = (false - negatives) / all_negatives
            for name, limit in (("aupro30", 0.30), ("aupro05", 0.05)):
                area = (share * area_gain(low, high, limit)).sum(1)
                metrics[name] = area / share.sum(1) / limit
    defined = (all_positives > 0)[:, 0] & (all_negatives > 0)[:, 0]
    return {name: np.where(defined, values, np.nan) for name, values in metrics.items()}


def _group_histograms(
    pixels: Pixels, group_index: Array, groups: int, edges: Array
) -> Iterator[tuple[int, Array]]:
    """Histograms of positives, negatives and shares, block of groups by block.

    Yields (first group, (3, block, K)), the highest bin first.
    """
    order = np.argsort(group_index, kind="stable")
    samples = np.split(order, np.cumsum(np.bincount(group_index, minlength=groups))[:-1])
    for first in range(0, groups, GROUP_BLOCK):
        histograms = np.zeros((3, min(GROUP_BLOCK, groups - first), len(edges)))
        for row, members in enumerate(samples[first : first + GROUP_BLOCK]):
            for i in members.tolist():
                sample = pixels.take([i])
                score, truth = sample.score, sample.truth
                histograms[1, row] += _histogram(score[~truth], edges)
                if not truth.any():
                    continue
                bins = np.maximum(np.searchsorted(edges, score[truth], "right") - 1, 0)
                histograms[0, row] += np.bincount(bins, minlength=len(edges))
                weight = sample.component_share
                histograms[2, row] += np.bincount(bins, weight, minlength=len(edges))
        histograms[2] = np.round(histograms[2] / FIXED_POINT_UNIT) * FIXED_POINT_UNIT
        yield first, np.ascontiguousarray(histograms[:, :, ::-1])


def _bin_edges(pixels: Pixels) -> Array:
    """Lower edges of the bins, ascending; a value with a bin of its own ends right after it.

    The highest abnormal pixels have one each, for they weigh most in ap. Other edges lie between
    two scores: a bin that began at an abnormal pixel would rank it lowest.
    """
    edges = []
    abnormal = sum(int(np.count_nonzero(block.truth)) for block in pixels.blocks())
    sizes = {True: abnormal, False: int(pixels.counts.sum()) - abnormal}
    for truth, top in ((True, BIN_COUNT // 2), (False, 0)):
        if size := sizes[truth]:
            ranks = np.linspace(0, size - 1, BIN_COUNT // 2).round().astype(np.int64)
            highest = np.arange(max(0, size - top), size)[:top]
            wanted = np.concatenate([ranks, np.maximum(ranks - 1, 0), highest, [size - 1]])
            values = pixels.order_statistics(wanted.astype(np.int64), truth=truth)
            at, before, tops, last = np.split(
                values, [ranks.size, 2 * ranks.size, 2 * ranks.size + highest.size]
            )
            value, times = np.unique(at, return_counts=True)
            single = np.concatenate([value[times > 1], tops])
            after = np.nextafter(single, np.inf, dtype=values.dtype)
            edges += [at / 2 + before / 2, single, after, last]
    return np.unique(np.concatenate(edges))


def _histogram(score: Array, edges: Array) -> Array:
    below = np.searchsorted(np.sort(score), edges, "left")
    return np.diff(np.append(below, score.size))
