"""Differences between methods, and where each stands: best, not distinguishable from it, or worse.

Two methods are compared draw by draw on the same resamples of groups, so what makes a patient hard
for both cancels. Against the best, p-values are Holm's over all methods of a board.

Letters: B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..metrics.connected_components import Array
from .bootstrap import corrected_p_value, percentile_interval, random_integers


class PairedDifference(NamedTuple):
    """One method's figure less another's. low, high: 95 % interval; p: two-sided, of no difference,
    consistent with the interval. None where there are too few groups, or a figure is undefined."""

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
    """Of two figures, each with its draws (B,) on the same resamples.

    clusters: from how few groups the difference is known (`stats.rarer`, `stats.known_from`).
    p is never below about 2 / B, the finest that draws can tell.
    """
    if value is None or other is None:
        return PairedDifference(None, None, None, None)
    apart = replicates - other_replicates
    bounds = percentile_interval(apart, clusters, extrapolate=True)
    if bounds is None:
        return PairedDifference(value - other, None, None, None)
    apart = apart[~np.isnan(apart)]
    least = min(int((apart <= 0).sum()), int((apart >= 0).sum()))
    p = min(1.0, 2 * (least + 1) / (apart.size + 1))
    return PairedDifference(value - other, *bounds, corrected_p_value(p, clusters))


def resample_seeds(replicates: Sequence[Array], stream_name: str) -> Array:
    """Draws (B,) of the mean over seeds, from each seed's (B,), seeds drawn with replacement too.

    stream_name: of the stream that draws them, the method's, for two methods' seeds are no pairs.
    One seed
    says nothing of how seeds differ, and its draws are left as they are.
    """
    if len(replicates) == 1:
        return replicates[0]
    each = np.stack(replicates)
    chosen = random_integers(f"seeds/{stream_name}", each.size, len(each)).reshape(each.shape)
    return each[chosen, np.arange(each.shape[1])].mean(0)


def holm_correction(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values of one family of tests, after Holm (1979); None stays None and counts as none."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        adjusted[i] = least
    return adjusted


BEST, INDISTINGUISHABLE, WORSE = "best", "not distinguishable from the best", "worse"


class SignificanceResult(NamedTuple):
    """Where a method stands: `best`, `not distinguishable from the best`, `worse`; the difference
    to the best, and the p-value of it after Holm's correction over all methods but the best."""

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
    """Of methods with figures and draws (B,) each on the same resamples, in their order.

    lower_is_better: whether lower is better. clusters: from how few groups the difference of two
    is known. A
    method without a figure is the worst there is, and `worse`; where no method has one, all are.
    Among equals the first is the best.
    """
    sign = -1 if lower_is_better else 1
    known = [i for i, value in enumerate(values) if value is not None]
    if not known:
        return [
            SignificanceResult(WORSE, PairedDifference(None, None, None, None), None)
            for _ in values
        ]
    top = max(known, key=lambda i: (sign * (values[i] or 0.0), -i))
    apart = [
        paired_difference(value, mine, values[top], replicates[top], clusters(i, top))
        for i, (value, mine) in enumerate(zip(values, replicates, strict=True))
    ]
    adjusted = iter(holm_correction([apart[i].p for i in range(len(values)) if i != top]))
    made = []
    for i, found in enumerate(apart):
        p = None if i == top else next(adjusted)
        worse = values[i] is None or (p is not None and p < 0.05)
        made.append(
            SignificanceResult(
                BEST if i == top else WORSE if worse else INDISTINGUISHABLE, found, p
            )
        )
    return made
