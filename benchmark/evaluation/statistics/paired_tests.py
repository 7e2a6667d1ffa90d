"""Paired comparison of methods: the difference of two, and which are as good as the best.

Two methods are compared replicate by replicate on the same resamples of groups, so what makes a
patient hard for both cancels. Against the best, p-values are corrected by Holm's method over all
methods of a leaderboard.

Letters: B replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..metrics.connected_components import Array
from .bootstrap import (
    bootstrap_p_value,
    corrected_p_value,
    percentile_interval,
    random_integers,
)


class PairedDifference(NamedTuple):
    """A metric of one method minus that of another.

    low, high: the 95 % confidence interval
    p: two-sided p-value of no difference, consistent with the interval

    None where there are too few groups, or a metric is undefined.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.paired_tests import paired_difference
    >>> difference = paired_difference(0.8, np.full(999, 0.8), 0.6, np.full(999, 0.6))
    >>> round(difference.value, 3), round(difference.low, 3), difference.p
    (0.2, 0.2, 0.002)
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None


def paired_difference(
    value: float | None,
    replicates: Array,
    other: float | None,
    other_replicates: Array,
    clusters: float | None = None,
) -> PairedDifference:
    """The difference of two methods in a metric, with its confidence interval and p-value.

    Where no replicate has the other sign, the distance of the outermost from 0 says how far in the
    tail of a normal distribution 0 lies, as for the bounds of an interval that B replicates cannot
    tell: with a p of 2 / B at best, no difference would pass a correction for 40 methods.

    value, other: the metric of either; None where undefined
    replicates, other_replicates: (B,) on the same resamples
    clusters: effective number of the difference (`effective_clusters`, `difference_clusters`)

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.paired_tests import paired_difference
    >>> a, b = np.linspace(0.7, 0.9, 999), np.linspace(0.6, 0.7, 999)
    >>> result = paired_difference(0.8, a, 0.65, b)
    >>> [round(number, 4) for number in result]
    [0.15, 0.1025, 0.1975, 0.0]
    >>> paired_difference(0.8, a, None, b)
    PairedDifference(value=None, low=None, high=None, p=None)
    """
    if value is None or other is None:
        return PairedDifference(None, None, None, None)
    differences = replicates - other_replicates
    interval = percentile_interval(differences, clusters, extrapolate=True)
    if interval is None:
        return PairedDifference(value - other, None, None, None)
    differences = differences[~np.isnan(differences)]
    p = bootstrap_p_value(differences)
    return PairedDifference(value - other, *interval, corrected_p_value(p, clusters))


def resample_seeds(replicates: Sequence[Array], stream_name: str) -> Array:
    """Replicates of the mean over seeds, (B,), with the seeds drawn with replacement too.

    One seed says nothing of how seeds differ, and its replicates are returned as they are.

    replicates: (B,) of each seed
    stream_name: of the stream that draws the seeds: the method's name, for the seeds of two methods
        are no pairs

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.paired_tests import resample_seeds
    >>> means = resample_seeds([np.zeros(1000), np.ones(1000)], "anoddpm")
    >>> sorted({*means.tolist()})
    [0.0, 0.5, 1.0]
    """
    if len(replicates) == 1:
        return replicates[0]
    seeds = np.stack(replicates)
    drawn = random_integers(f"seeds/{stream_name}", seeds.size, len(seeds)).reshape(seeds.shape)
    return seeds[drawn, np.arange(seeds.shape[1])].mean(0)


def holm_correction(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of one family of tests (Holm, 1979); None stays None and is no test.

    >>> from adbench.benchmark.evaluation.statistics.paired_tests import holm_correction
    >>> holm_correction([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    ascending = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ascending):
        highest = max(highest, min(1.0, p * (len(ascending) - rank)))
        adjusted[i] = highest
    return adjusted


BEST, INDISTINGUISHABLE, WORSE = "best", "not distinguishable from the best", "worse"


class SignificanceResult(NamedTuple):
    """Where a method stands among all of a leaderboard.

    verdict: `best`, `not distinguishable from the best` or `worse`
    difference: to the best
    p: of the difference, after Holm's correction over all methods but the best

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.paired_tests import compare_with_best
    >>> best, other = compare_with_best([0.8, 0.7], [np.full(999, 0.8), np.full(999, 0.7)])
    >>> best.verdict, other.verdict, round(other.difference.value, 3)
    ('best', 'worse', -0.1)
    """

    verdict: str
    difference: PairedDifference
    p: float | None


def compare_with_best(
    values: Sequence[float | None],
    replicates: Sequence[Array],
    *,
    lower_is_better: bool = False,
    clusters: Callable[[int, int], float | None] = lambda i, j: None,
) -> list[SignificanceResult]:
    """Compare every method with the best in a metric, at 5 % after Holm's correction.

    A method without a value is the worst there is, and `worse`; where no method has one, all are.
    Among equals the first is the best.

    values: the metric of each method        replicates: (B,) of each, on the same resamples
    clusters: the effective number of the difference of methods i and j

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.statistics.paired_tests import compare_with_best
    >>> noise = np.random.default_rng(0).normal(0, 0.01, (3, 2000))
    >>> results = compare_with_best([0.9, 0.5, None], [0.9 + noise[0], 0.5 + noise[1], noise[2]])
    >>> [result.verdict for result in results]
    ['best', 'worse', 'worse']
    """
    sign = -1 if lower_is_better else 1
    defined = [i for i, value in enumerate(values) if value is not None]
    if not defined:
        undefined = PairedDifference(None, None, None, None)
        return [SignificanceResult(WORSE, undefined, None) for _ in values]
    best = max(defined, key=lambda i: (sign * (values[i] or 0.0), -i))
    differences = [
        paired_difference(value, mine, values[best], replicates[best], clusters(i, best))
        for i, (value, mine) in enumerate(zip(values, replicates, strict=True))
    ]
    adjusted = iter(holm_correction([d.p for i, d in enumerate(differences) if i != best]))
    results = []
    for i, difference in enumerate(differences):
        p = None if i == best else next(adjusted)
        worse = values[i] is None or (p is not None and p < 0.05)
        verdict = BEST if i == best else WORSE if worse else INDISTINGUISHABLE
        results.append(SignificanceResult(verdict, difference, p))
    return results
