"""Ranks of methods over datasets, with Friedman's test and Nemenyi's critical difference.

Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006: Friedman's
test whether methods differ at all, and Nemenyi's critical difference of mean ranks. Datasets are
what is repeated here; with fewer than five of them neither says much.

Letters: M methods, D datasets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.connected_components import Array

ALPHA = 0.05
"""Level of the tests."""


@dataclass(frozen=True)
class RankTest:
    """Ranks of methods, and which mean ranks are distinguishable.

    ranks: (D, M) rank of each method on each dataset, 1 is the best; equals share their mean
    mean_ranks: (M,) mean rank of each method
    p_value: of Friedman's test, that all methods are alike; None for fewer than 3 methods or 2
        datasets
    critical_difference: mean ranks that lie closer than this are not distinguishable at 5 %; None
        likewise
    cliques: groups of methods none of which is distinguishable from another, as indices from the
        best to the worst: the bars of a critical-difference diagram. Where Friedman's test finds
        no difference at 5 %, all of them are one

    >>> from adbench.benchmark.evaluation.statistics.rank_tests import rank_test
    >>> result = rank_test([[0.9, 0.8], [0.7, 0.7]])  # equal on the second dataset: rank 1.5 each
    >>> result.mean_ranks.tolist(), result.p_value
    ([1.25, 1.75], None)
    """

    ranks: Array
    mean_ranks: Array
    p_value: float | None
    critical_difference: float | None
    cliques: list[list[int]]


def rank_test(
    values: Sequence[Sequence[float | None]], *, lower_is_better: bool = False
) -> RankTest:
    """Rank methods on several datasets, and test whether they differ.

    A missing value shares the last rank of its dataset, for a method that failed is the worst;
    equal values share the mean of their ranks.

    values: (D, M) a metric, one row for each dataset

    Raises ValueError without a dataset or a method, or where rows differ in length.

    >>> from adbench.benchmark.evaluation.statistics.rank_tests import rank_test
    >>> result = rank_test([[0.9, 0.8, 0.1], [0.7, 0.8, None], [0.9, 0.6, 0.2]])
    >>> result.ranks.tolist()
    [[1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 2.0, 3.0]]
    >>> round(result.p_value, 3), result.cliques
    (0.097, [[0, 1, 2]])
    """
    table = np.array([[math.nan if v is None else v for v in row] for row in values], float)
    if table.ndim != 2 or not table.size:
        raise ValueError("ranks want at least one dataset and one method, a row for each dataset")
    from scipy.stats import rankdata

    worth = np.where(np.isnan(table), -np.inf, -table if lower_is_better else table)
    ranks = rankdata(-worth, axis=1)
    mean_ranks, (datasets, methods) = ranks.mean(0), ranks.shape
    if methods < 3 or datasets < 2:
        return RankTest(ranks, mean_ranks, None, None, [])
    critical, p_value = critical_difference(methods, datasets), _friedman_p_value(ranks)
    cliques = _cliques(mean_ranks, critical if p_value < ALPHA else math.inf)
    return RankTest(ranks, mean_ranks, p_value, critical, cliques)


def critical_difference(methods: int, datasets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of mean ranks.

    It is the studentized range over sqrt(2), times the standard deviation of a mean rank.

    >>> from adbench.benchmark.evaluation.statistics.rank_tests import critical_difference
    >>> round(critical_difference(4, 10), 3)
    1.483
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * datasets))


def _friedman_p_value(ranks: Array) -> float:
    """p-value of Friedman's chi-square, corrected for ties, of ranks (D, M)."""
    from scipy.stats import chi2

    datasets, methods = ranks.shape
    variance = float(((ranks - (methods + 1) / 2) ** 2).sum()) / (methods - 1)
    if variance == 0:
        return 1.0
    mean = ranks.mean(0) - (methods + 1) / 2
    return float(chi2.sf(datasets**2 * float((mean**2).sum()) / variance, methods - 1))


def _cliques(mean_ranks: Array, critical: float) -> list[list[int]]:
    """Longest runs of methods in the order of their ranks that span less than `critical`."""
    order = np.argsort(mean_ranks, kind="stable").tolist()
    cliques: list[list[int]] = []
    last_end = 0
    for i, first in enumerate(order):
        within = [
            j for j in range(i, len(order)) if mean_ranks[order[j]] - mean_ranks[first] < critical
        ]
        end = max(within) + 1
        if end - i > 1 and end > last_end:
            cliques.append(order[i:end])
        last_end = max(last_end, end)
    return cliques
