"""Positives ranked among negatives: counts at every threshold, and what metrics sum of them.

Why not scikit-learn: see `ranking`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from .connected_components import Array


class RankingMetrics(Protocol):
    """The metrics of a ranking, wherever it lies: of a `Ranking` or an `ExternalRanking`."""

    def auroc(self) -> float: ...
    def ap(self) -> float: ...
    def best_dice(self) -> tuple[float, float]: ...
    def aupro(self, limit: float) -> float: ...


class Ranking(NamedTuple):
    """Positives ranked among negatives: counts at each distinct score of a positive.

    All metrics below are sums over positives only; negatives enter as counts.

    thresholds: (E,) distinct scores of positives, ascending
    positive_counts: (E,) positives at that score
    true_positives: (E,) positives there or above
    false_positives_above: (E,) negatives above that score
    false_positives: (E,) negatives there or above
    component_shares: (E,) components' shares at that score, summed
    negatives: how many negatives there are

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking_curves import Ranking
    >>> ranking = Ranking.from_scores(np.array([1, 2, 2, 3]), np.array([0, 1, 0, 1], bool))
    >>> ranking.true_positives.tolist(), ranking.false_positives.tolist(), ranking.auroc()
    ([2, 1], [1, 0], 0.875)
    """

    thresholds: Array
    positive_counts: Array
    true_positives: Array
    false_positives_above: Array
    false_positives: Array
    component_shares: Array
    negatives: int

    @classmethod
    def from_scores(
        cls, score: Array, truth: Array, component_share: Array | None = None
    ) -> Ranking | None:
        """Rank scores (P,) by truths (P,) bool; None where either kind is missing.

        component_share: (Q,) of each positive in order, for AUPRO; None for 1 each

        Raises ValueError where a score is NaN.
        """
        positive, negative = score[truth], score[~truth]
        if not positive.size or not negative.size:
            return None
        negative.sort()  # values alone: an argsort of all pixels takes 16 times as long
        order = np.argsort(positive, kind="stable")
        positive = positive[order]
        if np.isnan(positive[-1]) or np.isnan(negative[-1]):
            raise ValueError("scores hold NaN, which has no rank")
        start = np.flatnonzero(np.append(True, positive[1:] != positive[:-1]))
        thresholds = positive[start]
        below = np.searchsorted(negative, thresholds, "left")
        tied = np.flatnonzero(negative[np.minimum(below, negative.size - 1)] == thresholds)
        up_to = below.copy()
        up_to[tied] = np.maximum(up_to[tied], np.searchsorted(negative, thresholds[tied], "right"))
        shares = np.ones(positive.size) if component_share is None else component_share[order]
        return cls(
            thresholds=thresholds,
            positive_counts=np.diff(np.append(start, positive.size)),
            true_positives=positive.size - start,
            false_positives_above=negative.size - up_to,
            false_positives=negative.size - below,
            component_shares=np.add.reduceat(shares, start),
            negatives=negative.size,
        )

    @property
    def positives(self) -> int:
        return int(self.true_positives[0])

    def auroc(self) -> float:
        """The chance that a positive outranks a negative, ties counting half."""
        return int(self.outranked().sum()) / (2 * self.positives * self.negatives)

    def outranked(self) -> Array:
        """Twice the negatives that the positives at each score outrank, ties counting half."""
        return self.positive_counts * (
            2 * self.negatives - self.false_positives_above - self.false_positives
        )

    def ap(self) -> float:
        """Average precision: the mean over positives of the precision at their score."""
        return float(self.precision_sums().sum() / self.positives)

    def precision_sums(self) -> Array:
        """The precision at each score, once for each positive there."""
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return self.positive_counts * precision

    def best_dice(self, positives: int | None = None) -> tuple[float, float]:
        """The highest Dice (F1) over all thresholds, and that threshold; above it is positive.

        positives: how many there are, where these are not all scores; None for all
        """
        positives = self.positives if positives is None else positives
        dice = 2 * self.true_positives / (self.true_positives + self.false_positives + positives)
        best = int(dice.argmax())
        return float(dice[best]), float(np.nextafter(self.thresholds[best], -np.inf))

    def fpr_at_recall(self, recall: float) -> float:
        """The share of negatives at or above the highest score that keeps this recall, 0..1."""
        enough = np.flatnonzero(self.true_positives >= recall * self.positives - 1e-9)
        return float(self.false_positives[enough[-1]] / self.negatives)

    def precision_at_recall(self, recall: float) -> float:
        """The precision at the highest score that keeps this recall, 0..1."""
        enough = np.flatnonzero(self.true_positives >= recall * self.positives - 1e-9)[-1]
        true, false = int(self.true_positives[enough]), int(self.false_positives[enough])
        return true / (true + false)

    def aupro(self, limit: float) -> float:
        """Area under per-region overlap over false-positive rate, 0..limit, divided by limit.

        A positive pixel adds its share at all rates past its own; where it ties with negatives the
        curve rises in a straight line, which `limit` may cut.
        """
        area = self.component_areas(limit).sum()
        return float(area / self.component_shares.sum() / limit)

    def component_areas(self, limit: float) -> Array:
        """What the positives at each score add to the area, weighted by their shares."""
        low = self.false_positives_above / self.negatives
        area = area_gain(low, self.false_positives / self.negatives, limit)
        return self.component_shares * area


def area_gain(low: Array, high: Array, limit: float) -> Array:
    """Area that a step adds under a curve over false-positive rate, from 0 to limit.

    The curve rises by one, in a straight line from rate `low` to rate `high`.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking_curves import area_gain
    >>> area_gain(np.array([0.0, 0.0, 0.5]), np.array([0.0, 0.2, 0.5]), 0.4).round(6).tolist()
    [0.4, 0.3, 0.0]
    """
    width = np.where(high > low, high - low, 1)
    cut = np.clip(limit - low, 0, None) ** 2 / (2 * width)
    return np.where(low >= limit, 0, np.where(high <= limit, limit - (low + high) / 2, cut))
