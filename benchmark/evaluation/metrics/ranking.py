"""Detection metrics, exact, from one sort of the scores; apart from what chooses a threshold.

Every metric here ranks: a score has an order, not a scale, so any strictly increasing change of all
scores changes none of them. Equal scores count as one step: half of a pair, one threshold.
Higher scores are more anomalous. All are pooled over all samples (or places), and all but FPR95
are better when higher. Where there is no positive or no negative there is nothing to rank, and
every metric is None; a board counts that as the worst.

Letters: N samples, S one to three spatial axes, P places (pixels, voxels, time steps) within the
regions of interest of all samples, Q of them abnormal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .connected_components import Array, component_sizes, label_components

MetricValues = dict[str, float | None]

LOWER_IS_BETTER = frozenset({"image_fpr95", "healthy_fp"})
"""Metrics of a record that are better when lower; all others are better when higher."""


def image_metrics(score: Array, label: Array) -> MetricValues:
    """auroc, ap, f1max, fpr95 of scores (N,) against labels (N,) bool, pooled over samples.

    auroc: the chance that an abnormal sample outranks a normal one, ties counting half
    ap: average precision, the area under precision over recall as a step function
    f1max: the highest F1 over all thresholds; an upper bound, for it looks at these labels
    fpr95: the share of normal samples above the highest threshold that finds 95 % of the abnormal
    """
    ranking = Ranking.from_scores(np.asarray(score), np.asarray(label, bool))
    if ranking is None:
        return dict.fromkeys(("auroc", "ap", "f1max", "fpr95"))
    return {
        "auroc": ranking.auroc(),
        "ap": ranking.ap(),
        "f1max": ranking.best_dice()[0],
        "fpr95": ranking.fpr_at_recall(0.95),
    }


def pixel_metrics(
    maps: Sequence[Array] | Array, masks: Sequence[Array] | Array, roi: Any = None
) -> MetricValues:
    """auroc, ap, aupro30, aupro05, dice, iou, threshold of maps (*S) against masks (*S) bool.

    Pooled over all places of all samples within `roi` (*S) bool; None is everywhere.

    auroc, ap: as for images, of places
    aupro30, aupro05: per-region overlap, the mean share of a connected region that is found,
        integrated over false-positive rates 0..0.30 (0.05) and divided by that (Bergmann et al.,
        IJCV 2021). Every region counts alike, however large
    dice, iou, threshold: the best Dice over all thresholds, its IoU, and that threshold; what lies
        above it is found. An upper bound, for it looks at these masks
    """
    figures = pixel_score_metrics(PixelScores.from_maps(maps, masks, roi))
    return {name: value for name, value in figures.items() if name != "error"}


def pixel_score_metrics(pixels: PixelScores, budget: int | None = None) -> MetricValues:
    """`pixel_metrics` of places that are already in one row, and `error`, the most that a figure is
    off by: 0, for places are sorted; of more than `budget` of them bins are counted (streaming.py),
    which takes no memory to speak of."""
    if budget is not None and pixels.truth.size > budget:
        from .streaming_histogram import StreamingHistogram

        stream = StreamingHistogram()
        stream.add(pixels.score, pixels.truth, pixels.component_share)
        return stream.metrics()
    ranking = Ranking.from_scores(pixels.score, pixels.truth, pixels.component_share)
    if ranking is None:
        names = ("auroc", "ap", "aupro30", "aupro05", "dice", "iou", "threshold")
        return dict.fromkeys(names) | {"error": 0.0}
    dice, threshold = ranking.best_dice()
    return {
        "auroc": ranking.auroc(),
        "ap": ranking.ap(),
        "aupro30": ranking.aupro(0.30),
        "aupro05": ranking.aupro(0.05),
        "dice": dice,
        "iou": dice / (2 - dice),
        "threshold": threshold,
        "error": 0.0,
    }


def dice_at_threshold(threshold: float, pixels: PixelScores) -> float | None:
    """Dice of what lies above a threshold, pooled over all places; None without a true place."""
    return overlap_metrics(pixels.score > threshold, pixels.truth)["dice"]


def overlap_metrics(positive: Array, truth: Array) -> MetricValues:
    """dice and iou of two sets of places (P,) bool, higher is better; None without a true place."""
    both, either = int((positive & truth).sum()), int(positive.sum()) + int(truth.sum())
    if not truth.any():
        return {"dice": None, "iou": None}
    return {"dice": 2 * both / either, "iou": both / (either - both)}


@dataclass(frozen=True)
class PixelScores:
    """The places of N samples that are judged, sample after sample in one row.

    score: (P,)                 truth: (P,) bool, abnormal
    counts: (N,) int, places of each sample
    component: (Q,) int of the abnormal places in order, the connected region they belong to
    """

    score: Array
    truth: Array
    counts: Array
    component: Array

    @property
    def component_share(self) -> Array:
        """(Q,) of the abnormal places in order, one over the size of their region."""
        return 1 / component_sizes(self.component)[self.component]

    @classmethod
    def from_maps(
        cls, maps: Sequence[Array] | Array, masks: Sequence[Array] | Array, roi: Any = None
    ) -> PixelScores:
        """Maps, masks and regions of interest of (*S) each; samples may differ in size."""
        if isinstance(maps, np.ndarray) and isinstance(masks, np.ndarray) and roi is None:
            counts = np.full(len(maps), math.prod(maps.shape[1:]))
            truth = np.ascontiguousarray(masks, bool)
            return cls(maps.reshape(-1), truth.reshape(-1), counts, label_components(truth))
        inside = [True if roi is None else np.asarray(roi[i], bool) for i in range(len(maps))]
        masks = [np.asarray(mask, bool) & where for mask, where in zip(masks, inside, strict=True)]
        if not masks:
            return cls(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), np.zeros(0, int))
        scores = [np.asarray(m)[where].ravel() for m, where in zip(maps, inside, strict=True)]
        truths = [mask[where].ravel() for mask, where in zip(masks, inside, strict=True)]
        each = [label_components(mask[None]) for mask in masks]
        past = np.cumsum([0, *(part.max() + 1 if part.size else 0 for part in each)])
        return cls(
            score=np.concatenate(scores),
            truth=np.concatenate(truths),
            counts=np.array([part.size for part in scores]),
            component=np.concatenate([k + part for k, part in zip(past[:-1], each, strict=True)]),
        )


class Ranking(NamedTuple):
    """Positives among negatives: all that the metrics need, at each distinct positive score.

    All figures below are sums over positives only; negatives enter as counts.

    thresholds: (E,) distinct scores of positives, ascending
    positive_counts: (E,) positives at that score        true_positives: (E,) positives there or
    above
    false_positives_above: (E,) negatives above that score     false_positives: (E,) negatives
    there or above
    component_shares: (E,) regions' shares at that score, summed
    """

    thresholds: Array
    positive_counts: Array
    true_positives: Array
    false_positives_above: Array
    false_positives: Array
    component_shares: Array
    negatives: int

    @classmethod
    def from_scores(cls, score: Array, truth: Array, share: Array | None = None) -> Ranking | None:
        """Of scores (P,) and truths (P,) bool, or None where either kind is missing."""
        positive, negative = score[truth], score[~truth]
        if not positive.size or not negative.size:
            return None
        negative.sort()  # values alone: an argsort of all places takes 16 times as long
        order = np.argsort(positive, kind="stable")
        positive = positive[order]
        if np.isnan(positive[-1]) or np.isnan(negative[-1]):
            raise ValueError("scores hold NaN, which has no rank")
        start = np.flatnonzero(np.append(True, positive[1:] != positive[:-1]))
        edge = positive[start]
        below = np.searchsorted(negative, edge, "left")
        tied = np.flatnonzero(negative[np.minimum(below, negative.size - 1)] == edge)
        upto = below.copy()
        upto[tied] = np.maximum(upto[tied], np.searchsorted(negative, edge[tied], "right"))
        share = np.ones(positive.size) if share is None else share[order]
        return cls(
            thresholds=edge,
            positive_counts=np.diff(np.append(start, positive.size)),
            true_positives=positive.size - start,
            false_positives_above=negative.size - upto,
            false_positives=negative.size - below,
            component_shares=np.add.reduceat(share, start),
            negatives=negative.size,
        )

    @property
    def positives(self) -> int:
        return int(self.true_positives[0])

    def auroc(self) -> float:
        outranked = self.positive_counts * (
            2 * self.negatives - self.false_positives_above - self.false_positives
        )
        return int(outranked.sum()) / (2 * self.positives * self.negatives)

    def ap(self) -> float:
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float((self.positive_counts * precision).sum() / self.positives)

    def best_dice(self) -> tuple[float, float]:
        """The highest Dice (F1), and the threshold that what counts as found lies above."""
        dice = (
            2 * self.true_positives / (self.true_positives + self.false_positives + self.positives)
        )
        best = int(dice.argmax())
        return float(dice[best]), float(np.nextafter(self.thresholds[best], -np.inf))

    def fpr_at_recall(self, recall: float) -> float:
        """The share of negatives at or above the highest score that keeps this recall."""
        enough = np.flatnonzero(self.true_positives >= recall * self.positives - 1e-9)
        return float(self.false_positives[enough[-1]] / self.negatives)

    def aupro(self, limit: float) -> float:
        """Per-region overlap over false-positive rate, 0..limit, divided by limit.

        A positive place adds its share at all rates past its own; where it ties with negatives the
        curve rises in a straight line, which `limit` may cut.
        """
        gained = area_gain(
            self.false_positives_above / self.negatives,
            self.false_positives / self.negatives,
            limit,
        )
        return float((self.component_shares * gained).sum() / self.component_shares.sum() / limit)


def area_gain(low: Array, high: Array, limit: float) -> Array:
    """What a place adds to the area under a curve over false-positive rate, 0..limit, that rises in
    a straight line from rate `low` to `high`."""
    width = np.where(high > low, high - low, 1)
    cut = np.clip(limit - low, 0, None) ** 2 / (2 * width)
    return np.where(low >= limit, 0, np.where(high <= limit, limit - (low + high) / 2, cut))
