"""Ranks of methods over data sets, and by how much mean ranks must differ to mean something.

Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006: Friedman's
test whether methods differ at all, and Nemenyi's critical difference of mean ranks. Data sets are
what is repeated here; with fewer than five of them neither says much.

Letters: M methods, D data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.connected_components import Array

ALPHA = 0.05


@dataclass(frozen=True)
class RankTest:
    """ranks: (D, M) rank of each method on each data set, 1 is the best; equals share their mean
    mean_ranks: (M,) mean rank of each method
    p_value: of Friedman's test, that all methods are alike; None for fewer than 3 methods or 2
    data sets
    critical_difference: mean ranks that lie closer than this are not distinguishable at 5 %; None
    likewise
    cliques: groups of methods none of which is distinguishable from another, as indices from the
        best to the worst: the bars of a critical-difference diagram. Where Friedman's test finds
        no difference at 5 %, all of them are one
    """

    ranks: Array
    mean_ranks: Array
    p_value: float | None
    critical_difference: float | None
    cliques: list[list[int]]


def rank_test(
    values: Sequence[Sequence[float | None]], *, lower_is_better: bool = False
) -> RankTest:
    """Of figures (D, M), one row for each data set. lower_is_better: whether lower is better.

    A missing figure shares the last rank of its data set, for a method that failed is the worst;
    equal figures share the mean of their ranks.
    """
    table = np.array([[math.nan if v is None else v for v in row] for row in values], float)
    if table.ndim != 2 or not table.size:
        raise ValueError("ranks want at least one data set and one method, a row for each data set")
    from scipy.stats import rankdata

    worth = np.where(np.isnan(table), -np.inf, -table if lower_is_better else table)
    place = rankdata(-worth, axis=1)
    mean, (sets, methods) = place.mean(0), place.shape
    if methods < 3 or sets < 2:
        return RankTest(place, mean, None, None, [])
    critical, p = critical_difference(methods, sets), _friedman_p_value(place)
    cliques = _cliques(mean, critical if p < ALPHA else math.inf)
    return RankTest(place, mean, p, critical, cliques)


def critical_difference(methods: int, datasets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's: the studentized range over sqrt(2), times the spread of mean ranks."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * datasets))


def _friedman_p_value(ranks: Array) -> float:
    """p of Friedman's chi-square, corrected for ties, of ranks (D, M)."""
    from scipy.stats import chi2

    sets, methods = ranks.shape
    spread = float(((ranks - (methods + 1) / 2) ** 2).sum()) / (methods - 1)
    if spread == 0:
        return 1.0
    mean = ranks.mean(0) - (methods + 1) / 2
    return float(chi2.sf(sets**2 * float((mean**2).sum()) / spread, methods - 1))


def _cliques(mean: Array, critical: float) -> list[list[int]]:
    """Longest runs of methods in the order of their ranks that span less than `critical`."""
    order = np.argsort(mean, kind="stable").tolist()
    found: list[list[int]] = []
    reached = 0
    for i, first in enumerate(order):
        end = max(j for j in range(i, len(order)) if mean[order[j]] - mean[first] < critical) + 1
        if end - i > 1 and end > reached:
            found.append(order[i:end])
        reached = max(reached, end)
    return found
