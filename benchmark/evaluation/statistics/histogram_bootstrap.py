"""Pixel metrics on every resample of groups, read from one histogram per group.

Bins are of equal mass, half of them equal in abnormal places and half in normal ones, wherever the
scores lie. A value too frequent for its bin has one of its own, so ties stay ties. A resample's
histogram is then a sum of groups' histograms, and all resamples' together one product of matrices.

Letters: P places, G groups, B resamples, K bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ..metrics.connected_components import Array
from ..metrics.ranking import PixelScores, area_gain

BIN_COUNT = 1024
GROUP_BLOCK = 256
"""Groups whose histograms are held at a time."""
REPLICATE_BLOCK = 128
"""Resamples whose figures are computed at a time."""

FIXED_POINT_UNIT = 2.0**-30
"""Shares of regions are counted in multiples of this, so that a sum has no order."""


def bootstrap_ranking_metrics(
    pixels: PixelScores, group_index: Array, draw_counts: Array
) -> dict[str, Array]:
    """auroc, ap, aupro30, aupro05 and dice_oracle on every resample, (B,) each; NaN if undefined.

    group_index: (N,) int, the group of each sample     draw_counts: (B, G) float64, how often it
    is drawn

    Within a bin that is no tie, positives and negatives are taken to alternate. Against exact
    recomputation that moves ap by about 1e-3 of its own and the others by less.
    """
    if not len(draw_counts):
        return {name: np.zeros(0) for name in ("auroc", "ap", "aupro30", "aupro05", "dice_oracle")}
    edges = _bin_edges(pixels)
    total = np.zeros((3, len(draw_counts), len(edges)))
    for first, counted in _group_histograms(pixels, group_index, draw_counts.shape[1], edges):
        drawn = draw_counts[:, first : first + counted.shape[1]]
        for row, part in zip(total, counted, strict=True):
            row += drawn @ part
    tied = np.append(edges[1:] == np.nextafter(edges[:-1], np.inf), True)  # the last is the maximum
    parts = [
        binned_metrics(hits, alarms, share, tied[::-1])
        for i in range(0, len(draw_counts), REPLICATE_BLOCK)
        for hits, alarms, share in [total[:, i : i + REPLICATE_BLOCK]]
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def binned_metrics(
    hits: Array, alarms: Array, share: Array | None, tied: Array
) -> dict[str, Array]:
    """auroc, ap, dice_oracle and, with shares of regions, aupro30 and aupro05, (B,) each, of
    positives and negatives (B, K) per bin, the highest scores first."""
    true, false = hits.cumsum(1), alarms.cumsum(1)
    positives, negatives = true[:, -1:], false[:, -1:]
    at_true, at_false = true, false
    if not tied.all():
        at_true = np.where(tied, true, true - (hits - 1) / 2)
        at_false = np.where(tied, false, false - alarms / 2)
    figures = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(hits > 0, at_true / (at_true + at_false), 0)
        outranked = (hits * (negatives - false + alarms / 2)).sum(1)
        figures["auroc"] = outranked / (positives * negatives)[:, 0]
        figures["ap"] = (hits * precision).sum(1) / positives[:, 0]
        figures["dice_oracle"] = (2 * true / (true + false + positives)).max(1)
        if share is not None:
            high = false / negatives
            low = (false - alarms) / negatives
            for name, limit in (("aupro30", 0.30), ("aupro05", 0.05)):
                figures[name] = (share * area_gain(low, high, limit)).sum(1) / share.sum(1) / limit
    defined = (positives > 0)[:, 0] & (negatives > 0)[:, 0]
    return {name: np.where(defined, values, np.nan) for name, values in figures.items()}


def _group_histograms(
    pixels: PixelScores, group_index: Array, groups: int, edges: Array
) -> Iterator[tuple[int, Array]]:
    """(first group, (3, block, K)) of positives, negatives and shares per bin, the highest bin
    first, block by block."""
    ends = np.append(0, np.cumsum(pixels.counts)).tolist()
    true = [np.count_nonzero(pixels.truth[i:j]) for i, j in pairwise(ends)]
    before = np.append(0, np.cumsum(true)).tolist()
    order = np.argsort(group_index, kind="stable")
    samples = np.split(order, np.cumsum(np.bincount(group_index, minlength=groups))[:-1])
    share = pixels.component_share
    for first in range(0, groups, GROUP_BLOCK):
        counted = np.zeros((3, min(GROUP_BLOCK, groups - first), len(edges)))
        for row, own in enumerate(samples[first : first + GROUP_BLOCK]):
            for i in own.tolist():
                score = pixels.score[ends[i] : ends[i + 1]]
                truth = pixels.truth[ends[i] : ends[i + 1]]
                counted[1, row] += _histogram(score[~truth], edges)
                if before[i] == before[i + 1]:
                    continue
                bins = np.maximum(np.searchsorted(edges, score[truth], "right") - 1, 0)
                counted[0, row] += np.bincount(bins, minlength=len(edges))
                weight = share[before[i] : before[i + 1]]
                counted[2, row] += np.bincount(bins, weight, minlength=len(edges))
        counted[2] = np.round(counted[2] / FIXED_POINT_UNIT) * FIXED_POINT_UNIT
        yield first, np.ascontiguousarray(counted[:, :, ::-1])


def _bin_edges(pixels: PixelScores) -> Array:
    """Lower edges of the bins, ascending; a value with a bin of its own ends right after it.

    The highest abnormal places have one each, for they weigh most in ap. Other edges lie between
    two scores: a bin that began at an abnormal place would rank it lowest.
    """
    edges = []
    for score, top in (
        (pixels.score[pixels.truth], BIN_COUNT // 2),
        (pixels.score[~pixels.truth], 0),
    ):
        if score.size:
            score.sort()
            at = np.linspace(0, score.size - 1, BIN_COUNT // 2).round().astype(np.int64)
            value, times = np.unique(score[at], return_counts=True)
            own = np.concatenate([value[times > 1], score[max(0, score.size - top) :][:top]])
            between = score[at] / 2 + score[np.maximum(at - 1, 0)] / 2
            edges += [between, own, np.nextafter(own, np.inf, dtype=score.dtype), score[-1:]]
    return np.unique(np.concatenate(edges))


def _histogram(score: Array, edges: Array) -> Array:
    below = np.searchsorted(np.sort(score), edges, "left")
    return np.diff(np.append(below, score.size))
