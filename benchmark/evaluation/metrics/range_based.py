"""Metrics of anomalies in signals that are ranges of time, not points.

Range-AUC and the volume under its surface: Paparrizos, Boniol, Palpanas et al., Volume Under the
Surface, PVLDB 15(11), 2022. Each anomalous range has a slope of half a buffer at either side,
in which a step counts in part; a range is found by any positive step within it or its slopes.

The point-adjusted F1 (Xu et al., WWW 2018) calls a whole range found that one positive step lies
in. A random score comes close to 1 by it (Kim et al., AAAI 2022), so it stands beside a random
score's.

Letters: T steps of time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .connected_components import Array

THRESHOLDS = 250
"""Thresholds of a curve, as in the authors' code."""


class RangeAreas(NamedTuple):
    """Areas under the curves of ranges, in 0..1; higher is better.

    roc: R-AUC-ROC        pr: R-AUC-PR

    >>> from adbench.benchmark.evaluation.metrics.range_based import range_auc
    >>> truth = np.array([False] * 8 + [True] * 4 + [False] * 8)
    >>> range_auc(truth.astype(float), truth, 0).roc  # a perfect score, without slopes
    1.0
    """

    roc: float
    pr: float


def range_auc(score: Array, truth: Array, buffer: int) -> RangeAreas | None:
    """R-AUC-ROC and R-AUC-PR of a signal; None where every or no step is anomalous.

    score: (T,)      truth: (T,) bool      buffer: steps of both slopes of a range together

    Without a buffer, precision and false-positive rate are those of single steps, and the share of
    ranges found multiplies the recall. Thresholds are THRESHOLDS scores, evenly spaced by rank.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.range_based import range_auc
    >>> truth = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 0], bool)
    >>> areas = range_auc(truth.astype(float), truth, buffer=0)
    >>> areas.roc, areas.pr
    (1.0, 1.0)
    """
    return _areas(score, truth, buffer, as_surface=False)


def _areas(score: Array, truth: Array, buffer: int, *, as_surface: bool) -> RangeAreas | None:
    """Areas at one buffer. Under a surface the authors' code counts a slope among the positives
    only where it is called, and takes precision as a step function."""
    score, truth = np.asarray(score, np.float64), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return None
    soft = soft_labels(truth, buffer)
    steps = int(truth.sum())
    slopes = float(soft[~truth].sum())
    ranges = ranges_of(soft > 0)
    ranked = np.sort(score)[::-1]
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    thresholds = ranked[np.linspace(0, score.size - 1, THRESHOLDS).astype(int)]
    called = np.searchsorted(-ranked, -thresholds, "right")  # scores from each threshold up
    hits = np.cumsum(soft[order])[called - 1]
    if as_surface:
        slopes = np.cumsum((soft * ~truth)[order])[called - 1]
    positives = steps + slopes / 2
    peaks = np.sort([score[first : last + 1].max() for first, last in ranges])
    touched = peaks.size - np.searchsorted(peaks, thresholds, "left")
    recall = np.minimum(hits / positives, 1.0) * touched / peaks.size
    false_rate = (called - hits) / (score.size - positives)
    rise = np.concatenate([[0.0], recall, [1.0]])
    run = np.concatenate([[0.0], false_rate, [1.0]])
    roc = float((np.diff(run) * (rise[1:] + rise[:-1]) / 2).sum())
    height = np.concatenate([[1.0], hits / called])
    before = height[1:] if as_surface else height[:-1]
    pr = float((np.diff(rise[:-1]) * (height[1:] + before) / 2).sum())
    return RangeAreas(roc, pr)


def volume_under_surface(score: Array, truth: Array, largest_buffer: int) -> RangeAreas | None:
    """VUS-ROC and VUS-PR of a signal: the mean over buffers 0..largest_buffer.

    As the authors' code computes it, in which a slope counts among the positives only where it is
    called: so it is not quite the mean of `range_auc`. None where every or no step is anomalous.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.range_based import volume_under_surface
    >>> truth = np.repeat([False, True, False], 20)
    >>> late = np.roll(truth, 4).astype(float)
    >>> volume_under_surface(late, truth, 0).pr < volume_under_surface(late, truth, 16).pr
    True
    """
    areas = [_areas(score, truth, buffer, as_surface=True) for buffer in range(largest_buffer + 1)]
    defined = [area for area in areas if area is not None]
    if not defined:
        return None
    return RangeAreas(*np.mean(defined, axis=0).tolist())


def soft_labels(truth: Array, buffer: int) -> Array:
    """The share in which each step counts as anomalous, (T,) in 0..1.

    1 within a range; beside it sqrt(1 - d / buffer) at d steps from its end, up to half the buffer.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.range_based import soft_labels
    >>> soft_labels(np.array([0, 0, 0, 1, 0, 0], bool), 4).round(3).tolist()
    [0.0, 0.707, 0.866, 1.0, 0.866, 0.707]
    """
    soft = truth.astype(np.float64)
    distance = np.arange(1, buffer // 2 + 1)
    share = np.sqrt(1 - distance / max(buffer, 1))
    for first, last in ranges_of(truth):
        for steps in (first - distance, last + distance):
            inside = (steps >= 0) & (steps < soft.size)
            soft[steps[inside]] += share[inside]
    np.minimum(soft, 1.0, out=soft)
    return soft


class PointAdjusted(NamedTuple):
    """The best point-adjusted F1 of a score, and of a random score on the same truth.

    f1: of the score        random: the mean over random scores, above which f1 must lie to mean
        anything

    >>> from adbench.benchmark.evaluation.metrics.range_based import point_adjusted_f1
    >>> truth = np.array([False] * 8 + [True] * 4 + [False] * 8)
    >>> score = np.where(np.arange(20) == 9, 1.0, 0.0)  # one step of the range is enough
    >>> point_adjusted_f1(score, truth, np.random.default_rng(0)).f1
    1.0
    """

    f1: float
    random: float


def point_adjusted_f1(
    score: Array, truth: Array, rng: np.random.Generator, *, draws: int = 5
) -> PointAdjusted | None:
    """The highest point-adjusted F1 over all thresholds, beside that of random scores.

    None where every or no step is anomalous.

    score: (T,)      truth: (T,) bool      rng: draws the random scores      draws: how many

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.range_based import point_adjusted_f1
    >>> truth = np.repeat([False, True, False], [400, 200, 400])
    >>> one_hit = np.zeros(1000)
    >>> one_hit[500] = 1  # a single step of 200
    >>> result = point_adjusted_f1(one_hit, truth, np.random.default_rng(0))
    >>> result.f1, result.random > 0.8
    (1.0, True)
    """
    truth = np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return None
    random = [_best_adjusted_f1(rng.random(truth.size), truth) for _ in range(draws)]
    return PointAdjusted(_best_adjusted_f1(np.asarray(score), truth), float(np.mean(random)))


def _best_adjusted_f1(score: Array, truth: Array) -> float:
    """A range is found at every threshold up to its highest score."""
    ranges = ranges_of(truth)
    peaks = np.array([score[first : last + 1].max() for first, last in ranges])
    lengths = np.array([last + 1 - first for first, last in ranges])
    order = np.argsort(-peaks, kind="stable")
    peaks, true = peaks[order], np.cumsum(lengths[order])
    normal = np.sort(score[~truth])
    false = normal.size - np.searchsorted(normal, peaks, "left")
    ends = np.append(peaks[1:] != peaks[:-1], True)  # of equal peaks the last counts them all
    return float((2 * true / (true + false + truth.sum()))[ends].max())


def ranges_of(truth: Array) -> list[tuple[int, int]]:
    """The first and the last step of each run of true steps.

    truth: (T,) bool

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.range_based import ranges_of
    >>> ranges_of(np.array([0, 1, 1, 0, 1], bool))
    [(1, 2), (4, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], truth, [False]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
