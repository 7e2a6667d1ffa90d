"""Ranking metrics of images and pixels (AUROC, AP, AUPRO, F1, FPR95, best Dice), exact.

All come from one sort of the scores. Every metric here ranks: a score has an order, not a scale, so
any strictly increasing change of all scores changes none of them. Equal scores count as one step:
half of a pair, one threshold. Higher scores are more anomalous. All are pooled over all samples (or
pixels), and all but FPR95 are better when higher. Where there is no positive or no negative there
is nothing to rank, and every metric is None; the leaderboard counts that as the worst.

Why not scikit-learn: all pixel metrics together were measured 57 times as fast as scikit-learn's
with a loop for AUPRO, and in 0.81 of the time of adeval. Only the scores of positives are sorted
with their indices; negatives are sorted as plain values and enter as counts. The tests compare
every metric with scikit-learn's.

Letters: N samples, S one to three spatial axes, P pixels (voxels, time steps) within the regions of
interest of all samples, Q of them abnormal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from .connected_components import Array, component_sizes, label_components

MANY_RANKS = 16
"""Ranks from which on sorting all scores is faster than partitioning by them."""

MetricValues = dict[str, float | None]
"""Metrics by name; None where one is undefined."""

LOWER_IS_BETTER = frozenset({"image_fpr95", "healthy_fp", "healthy_volume_fp"})
"""Metrics of a record that are better when lower; all others are better when higher."""


def image_metrics(score: Array, label: Array) -> MetricValues:
    """AUROC, AP, best F1 and FPR95 of image scores, pooled over samples.

    score: (N,), higher is more anomalous       label: (N,) bool, abnormal

    Returns, by name; all None without an abnormal or without a normal sample:
    auroc: the chance that an abnormal sample outranks a normal one, ties counting half; higher is
        better
    ap: average precision, the area under precision over recall as a step function; higher is better
    f1max: the highest F1 over all thresholds; an upper bound, for it looks at these labels
    fpr95: the share of normal samples above the highest threshold that detects 95 % of the
        abnormal; lower is better

    Raises ValueError where a score is NaN.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import image_metrics
    >>> image_metrics(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    {'auroc': 0.75, 'ap': 0.8333333333333333, 'f1max': 0.8, 'fpr95': 0.5}
    >>> image_metrics(np.array([0.1, 0.4]), np.array([False, False]))["auroc"] is None
    True
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
    """AUROC, AP, AUPRO and best Dice of anomaly maps, pooled over all pixels of all samples.

    maps: N arrays (*S), higher is more anomalous     masks: N arrays (*S) bool, abnormal
    roi: N arrays (*S) bool, the pixels that count; None for all. Samples may differ in size.

    Returns, by name; all None without an abnormal or without a normal pixel; higher is better:
    auroc, ap: as for images, of pixels
    aupro30, aupro05: per-region overlap, the mean share of a connected component that is detected,
        integrated over false-positive rates 0..0.30 (0.05) and divided by that (Bergmann et al.,
        IJCV 2021). Every component counts alike, however large
    dice, iou, threshold: the best Dice over all thresholds, its IoU, and that threshold; pixels
        above it are positive. An upper bound, for it looks at these masks

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import pixel_metrics
    >>> maps = np.array([[[0.1, 0.2], [0.3, 0.9]], [[0.4, 0.7], [0.0, 0.2]]])
    >>> masks = np.array([[[0, 0], [0, 1]], [[1, 1], [0, 0]]], bool)
    >>> metrics = pixel_metrics(maps, masks)
    >>> metrics["auroc"], metrics["ap"], metrics["aupro30"], metrics["dice"]
    (1.0, 1.0, 1.0, 1.0)
    """
    metrics = pixel_score_metrics(PixelScores.from_maps(maps, masks, roi))
    return {name: value for name, value in metrics.items() if name != "error"}


def pixel_score_metrics(pixels: Pixels, budget: int | None = None) -> MetricValues:
    """`pixel_metrics` of pixels that already lie in one row, and `error`, the largest deviation.

    budget: pixels that are sorted at most, with error 0; None for any number. Of more, the metrics
        are read from a histogram of fixed memory (streaming_histogram.py), and error says how far
        any of them may be off

    Raises CoarseBinsError where the histogram is too coarse for these scores.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores, pixel_score_metrics
    >>> maps, masks = np.array([[0.1, 0.6, 0.5, 0.9]]), np.array([[0, 0, 1, 1]], bool)
    >>> metrics = pixel_score_metrics(PixelScores.from_maps(maps, masks))
    >>> metrics["auroc"], metrics["dice"], metrics["error"]
    (0.75, 0.8, 0.0)
    """
    if budget is not None and int(pixels.counts.sum()) > budget:
        from .streaming_histogram import StreamingHistogram

        histogram = StreamingHistogram()
        for block in pixels.blocks():
            histogram.add(block.score, block.truth, block.component_share)
        return histogram.metrics()
    ranking = pixels.ranking()
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


def aupro_at_limits(
    pixels: PixelScores, limits: Sequence[float] = (0.01, 0.05, 0.1, 0.3)
) -> dict[float, float] | None:
    """AUPRO integrated to each of several false-positive rates, by the rate; higher is better.

    None without an abnormal or without a normal pixel. Raises ValueError on a rate outside 0..1.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores, aupro_at_limits
    >>> maps, masks = np.array([[0.1, 0.6, 0.5, 0.9]]), np.array([[0, 0, 1, 1]], bool)
    >>> aupro_at_limits(PixelScores.from_maps(maps, masks), [0.3, 1.0])
    {0.3: 0.5, 1.0: 0.75}
    """
    if wrong := [limit for limit in limits if not 0 < limit <= 1]:
        raise ValueError(f"a limit is a rate above 0 and up to 1, not {wrong[0]:g}")
    ranking = Ranking.from_scores(pixels.score, pixels.truth, pixels.component_share)
    return None if ranking is None else {limit: ranking.aupro(limit) for limit in limits}


def ppv_at_sensitivity(score: Array, label: Array, sensitivity: float = 0.95) -> float | None:
    """The share of abnormal samples among those at or above the highest score that detects this
    share of the abnormal: the positive predictive value; higher is better.

    It depends on the share of abnormal samples, which in a benchmark is seldom that of a clinic.
    None without an abnormal or without a normal sample.

    score: (N,)      label: (N,) bool      sensitivity: above 0, up to 1

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import ppv_at_sensitivity
    >>> ppv_at_sensitivity(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1], bool), 1.0)
    0.6666666666666666
    """
    ranking = Ranking.from_scores(np.asarray(score), np.asarray(label, bool))
    return None if ranking is None else ranking.precision_at_recall(sensitivity)


def dice_at_threshold(threshold: float, pixels: PixelScores) -> float | None:
    """Dice of the pixels above a threshold, pooled over all pixels; higher is better.

    None without an abnormal pixel.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores, dice_at_threshold
    >>> maps, masks = np.array([[0.1, 0.6, 0.5, 0.9]]), np.array([[0, 0, 1, 1]], bool)
    >>> dice_at_threshold(0.55, PixelScores.from_maps(maps, masks))
    0.5
    """
    return overlap_metrics(pixels.score > threshold, pixels.truth)["dice"]


def overlap_metrics(positive: Array, truth: Array) -> MetricValues:
    """Dice and IoU of two sets of pixels; higher is better.

    positive, truth: (P,) bool, what is detected and what is abnormal

    Returns dice and iou, both None without an abnormal pixel.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import overlap_metrics
    >>> overlap_metrics(np.array([True, True, False]), np.array([False, True, False]))
    {'dice': 0.6666666666666666, 'iou': 0.5}
    """
    sets = (truth, positive, positive & truth)
    return pooled_overlap(np.array([[truth.size, *map(np.count_nonzero, sets)]]))


def pooled_overlap(overlaps: Array) -> MetricValues:
    """As `overlap_metrics`, pooled over samples whose pixels are counted.

    overlaps: (N, 4), of `overlap_counts`

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import pooled_overlap
    >>> pooled_overlap(np.array([[3, 1, 2, 1]]))  # of 3 pixels 1 is abnormal, and 2 are positive
    {'dice': 0.6666666666666666, 'iou': 0.5}
    """
    _, abnormal, positive, both = overlaps.sum(0).tolist()
    if not abnormal:
        return {"dice": None, "iou": None}
    total = positive + abnormal
    return {"dice": 2 * both / total, "iou": both / (total - both)}


def overlap_counts(pixels: PixelScores, positive: Array) -> Array:
    """Counts of each sample's pixels: all, abnormal, positive, abnormal and positive, (N, 4) int.

    positive: (P,) bool

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores, overlap_counts
    >>> maps, masks = np.array([[0.9, 0.8, 0.1]]), np.array([[1, 0, 1]], bool)
    >>> overlap_counts(PixelScores.from_maps(maps, masks), maps[0] > 0.5).tolist()
    [[3, 2, 2, 1]]
    """
    ends = np.append(0, np.cumsum(pixels.counts)).tolist()
    rows = []
    for first, last in pairwise(ends):
        true, hit = pixels.truth[first:last], positive[first:last]
        rows.append((last - first, *map(np.count_nonzero, (true, hit, true & hit))))
    return np.array(rows, np.int64).reshape(-1, 4)


class RankingMetrics(Protocol):
    """The metrics of a ranking, wherever it lies: of a `Ranking` or an `ExternalRanking`."""

    def auroc(self) -> float: ...
    def ap(self) -> float: ...
    def best_dice(self) -> tuple[float, float]: ...
    def aupro(self, limit: float) -> float: ...


class Pixels(Protocol):
    """Scores and truth of the pixels of N samples: in memory (`PixelScores`), or read in blocks.

    counts: (N,) int, pixels of each sample
    """

    @property
    def counts(self) -> Array: ...

    def blocks(self) -> Iterator[PixelScores]:
        """All samples, some consecutive ones at a time, with components of their own numbers."""
        ...

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some samples, in this order."""
        ...

    def ranking(self, selected: Array | None = None) -> RankingMetrics | None:
        """The ranking of the pixels of selected samples (N,) bool; None for all. None where they
        lack abnormal or normal pixels."""
        ...

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks, in ascending order from 0 on, of the pixels of that truth in
        the selected samples (N,) bool; None for all."""
        ...

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; of more than `most` so many, evenly
        spread by their places."""
        ...


def evenly_spread(size: int, most: int) -> Array:
    """Places 0..size-1, or `most` of them that are evenly spread.

    >>> from adbench.benchmark.evaluation.metrics.ranking import evenly_spread
    >>> evenly_spread(9, 3).tolist(), evenly_spread(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(int)


@dataclass(frozen=True)
class PixelScores:
    """Scores and truth of the pixels of N samples, sample after sample in one row.

    score: (P,)                 truth: (P,) bool, abnormal
    counts: (N,) int, pixels of each sample
    labels: (Q,) int, the connected component of each abnormal pixel, in order, or what computes it
        when it is asked for; read it as `component`

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores
    >>> masks = np.array([[1, 1, 0, 1]], bool)
    >>> pixels = PixelScores.from_maps(np.array([[0.5, 0.1, 0.2, 0.9]]), masks)
    >>> pixels.component.tolist(), pixels.component_share.tolist()
    ([0, 0, 1], [0.5, 0.5, 1.0])
    """

    score: Array
    truth: Array
    counts: Array
    labels: Array | Callable[[], Array]

    @cached_property
    def component(self) -> Array:
        """The connected component of each abnormal pixel in order, (Q,) int."""
        return self.labels() if callable(self.labels) else self.labels

    @property
    def component_share(self) -> Array:
        """One over the size of its component, for each abnormal pixel in order, (Q,)."""
        return 1 / component_sizes(self.component)[self.component]

    def blocks(self) -> Iterator[PixelScores]:
        """All samples at once, for they are in memory."""
        yield self

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some samples, in this order; components are numbered anew."""
        rows = [self._rows[i] for i in samples]
        components, number = list[Array](), 0
        for component in (self.component[self._abnormal_rows[i]] for i in samples):
            if component.size:
                components.append(component - int(component.min()) + number)
                number = int(components[-1].max()) + 1
        return PixelScores(
            _concatenate([self.score[row] for row in rows], self.score.dtype),
            _concatenate([self.truth[row] for row in rows], np.dtype(bool)),
            self.counts[list(samples)],
            _concatenate(components, np.dtype(np.int64)),
        )

    def ranking(self, selected: Array | None = None) -> Ranking | None:
        """The ranking of the pixels of selected samples (N,) bool; None for all."""
        if selected is None:
            return Ranking.from_scores(self.score, self.truth, self.component_share)
        rows = np.repeat(selected, self.counts)
        return Ranking.from_scores(self.score[rows], self.truth[rows])

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks of the pixels of that truth in the selected samples."""
        chosen: Any = ... if samples is None else np.repeat(samples, self.counts)
        if truth is not None:
            chosen = self.truth == truth if samples is None else chosen & (self.truth == truth)
        scores = self.score[chosen]
        if len(ranks) < MANY_RANKS:
            return np.partition(scores, ranks)[ranks] if len(ranks) else scores[:0]
        return np.sort(scores)[ranks]

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; `most` of more."""
        distinct = np.unique(self.score[self.truth])
        return distinct[evenly_spread(distinct.size, most)]

    @cached_property
    def _rows(self) -> list[slice]:
        """Where the pixels of each sample lie."""
        ends = np.cumsum(self.counts)
        return [slice(*pair) for pair in pairwise([0, *ends.tolist()])]

    @cached_property
    def _abnormal_rows(self) -> list[slice]:
        """Where they lie among the abnormal ones."""
        ends = np.cumsum([np.count_nonzero(self.truth[row]) for row in self._rows]).tolist()
        return [slice(*pair) for pair in pairwise([0, *ends])]

    @classmethod
    def from_maps(
        cls, maps: Sequence[Array] | Array, masks: Sequence[Array] | Array, roi: Any = None
    ) -> PixelScores:
        """Gather the pixels of maps, masks and regions of interest of (*S) each.

        Samples may differ in size. roi: None for all pixels
        """
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
        components = [label_components(mask[None]) for mask in masks]
        counts = (labels.max() + 1 if labels.size else 0 for labels in components)
        offsets = np.cumsum([0, *counts])
        return cls(
            score=np.concatenate(scores),
            truth=np.concatenate(truths),
            counts=np.array([score.size for score in scores]),
            labels=np.concatenate(
                [offset + labels for offset, labels in zip(offsets[:-1], components, strict=True)]
            ),
        )


class SelectedPixels:
    """The pixels of some of the samples of a `Pixels`, which are one themselves.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.ranking import PixelScores, SelectedPixels
    >>> maps = np.arange(6.0).reshape(3, 2)
    >>> pixels = SelectedPixels(PixelScores.from_maps(maps, maps > 3), np.array([1, 0, 1], bool))
    >>> pixels.counts.tolist(), pixels.take([1]).score.tolist()
    ([2, 2], [4.0, 5.0])
    """

    def __init__(self, pixels: Pixels, selected: Array) -> None:
        """selected: (N,) bool"""
        self._pixels, self._selected = pixels, np.asarray(selected, bool)
        self._index = np.flatnonzero(selected).tolist()
        self.counts = pixels.counts[self._selected]

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some of the selected samples, in this order."""
        return self._pixels.take([self._index[i] for i in samples])

    def blocks(self) -> Iterator[PixelScores]:
        """The selected samples, some at a time."""
        first = 0
        for block in self._pixels.blocks():
            last = first + len(block.counts)
            chosen = np.flatnonzero(self._selected[first:last]).tolist()
            if chosen:
                yield block.take(chosen)
            first = last

    def ranking(self, selected: Array | None = None) -> RankingMetrics | None:
        """The ranking of the pixels of all selected samples, or of some of these."""
        return self._pixels.ranking(self._among(selected))

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks of the pixels of that truth in the selected samples."""
        return self._pixels.order_statistics(ranks, truth=truth, samples=self._among(samples))

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; `most` of more."""
        parts = [np.unique(block.score[block.truth]) for block in self.blocks()]
        distinct = np.unique(_concatenate(parts, np.dtype(np.float32)))
        return distinct[evenly_spread(distinct.size, most)]

    def _among(self, samples: Array | None) -> Array:
        """Of samples among the selected ones, which of all they are."""
        if samples is None:
            return self._selected
        chosen = np.zeros(len(self._selected), bool)
        chosen[self._index] = samples
        return chosen


def _concatenate(parts: Sequence[Array], dtype: Any) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])


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
    >>> from adbench.benchmark.evaluation.metrics.ranking import Ranking
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
    >>> from adbench.benchmark.evaluation.metrics.ranking import area_gain
    >>> area_gain(np.array([0.0, 0.0, 0.5]), np.array([0.0, 0.2, 0.5]), 0.4).round(6).tolist()
    [0.4, 0.3, 0.0]
    """
    width = np.where(high > low, high - low, 1)
    cut = np.clip(limit - low, 0, None) ** 2 / (2 * width)
    return np.where(low >= limit, 0, np.where(high <= limit, limit - (low + high) / 2, cut))
