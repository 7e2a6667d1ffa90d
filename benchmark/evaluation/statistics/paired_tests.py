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
from .bootstrap import corrected, interval, picks


class Difference(NamedTuple):
    """One method's figure less another's. low, high: 95 % interval; p: two-sided, of no difference,
    consistent with the interval. None where there are too few groups, or a figure is undefined."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None


def difference(
    value: float | None, draws: Array, other: float | None, others: Array, rare: float | None = None
) -> Difference:
    """Of two figures, each with its draws (B,) on the same resamples.

    rare: from how few groups the difference is known (`stats.rarer`, `stats.known_from`).
    p is never below about 2 / B, the finest that draws can tell.
    """
    if value is None or other is None:
        return Difference(None, None, None, None)
    apart = draws - others
    bounds = interval(apart, rare, beyond=True)
    if bounds is None:
        return Difference(value - other, None, None, None)
    apart = apart[~np.isnan(apart)]
    least = min(int((apart <= 0).sum()), int((apart >= 0).sum()))
    p = min(1.0, 2 * (least + 1) / (apart.size + 1))
    return Difference(value - other, *bounds, corrected(p, rare))


def over_seeds(draws: Sequence[Array], name: str) -> Array:
    """Draws (B,) of the mean over seeds, from each seed's (B,), seeds drawn with replacement too.

    name: of the stream that draws them, the method's, for two methods' seeds are no pairs. One seed
    says nothing of how seeds differ, and its draws are left as they are.
    """
    if len(draws) == 1:
        return draws[0]
    each = np.stack(draws)
    chosen = picks(f"seeds/{name}", each.size, len(each)).reshape(each.shape)
    return each[chosen, np.arange(each.shape[1])].mean(0)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values of one family of tests, after Holm (1979); None stays None and counts as none."""
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        adjusted[i] = least
    return adjusted


BEST, ALIKE, WORSE = "best", "not distinguishable from the best", "worse"


class Standing(NamedTuple):
    """Where a method stands: `best`, `not distinguishable from the best`, `worse`; the difference
    to the best, and the p-value of it after Holm's correction over all methods but the best."""

    verdict: str
    difference: Difference
    p: float | None


def standings(
    values: Sequence[float | None],
    draws: Sequence[Array],
    *,
    lower: bool = False,
    rare: Callable[[int, int], float | None] = lambda i, j: None,
) -> list[Standing]:
    """Of methods with figures and draws (B,) each on the same resamples, in their order.

    lower: whether lower is better. rare: from how few groups the difference of two is known. A
    method without a figure is the worst there is, and `worse`; where no method has one, all are.
    Among equals the first is the best.
    """
    sign = -1 if lower else 1
    known = [i for i, value in enumerate(values) if value is not None]
    if not known:
        return [Standing(WORSE, Difference(None, None, None, None), None) for _ in values]
    top = max(known, key=lambda i: (sign * (values[i] or 0.0), -i))
    apart = [
        difference(value, mine, values[top], draws[top], rare(i, top))
        for i, (value, mine) in enumerate(zip(values, draws, strict=True))
    ]
    adjusted = iter(holm([apart[i].p for i in range(len(values)) if i != top]))
    made = []
    for i, found in enumerate(apart):
        p = None if i == top else next(adjusted)
        worse = values[i] is None or (p is not None and p < 0.05)
        made.append(Standing(BEST if i == top else WORSE if worse else ALIKE, found, p))
    return made
