"""A league on the page: its table, and the numbers of its critical-difference diagram.

The diagram is Demsar's (JMLR 7, 2006): mean ranks along an axis, the best at the left, and a bar
under those that cannot be told apart. Numbers and words only, as in charts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...leaderboard.columns import TITLES
from ...leaderboard.rankings import CrossDatasetRanking, DatasetRank, RankedMethod
from ...leaderboard.rankings_text import clique_marks
from ...leaderboard.records import number_text
from .svg import STYLES, Tick, letter, polyline, steps
from .tables import ColumnHead, Table, TableCell, TableLine

WIDE, SIDE, AXIS, LANE, STEP, NAME = 800, 220, 48, 9, 19, 26
"""Units across, of them on either side for names; height of the axis; between bars; between names;
letters of a name."""


class Stem(NamedTuple):
    """From a mean rank to a name. points: of a polyline; x, y: of the name; end: it ends there;
    text: what there is room for of it; title: all of it"""

    style: int
    points: str
    x: float
    y: float
    end: bool
    baseline: bool
    text: str
    title: str


class Span(NamedTuple):
    """A bar across: from, to, at what height, and what it means."""

    left: float
    right: float
    y: float
    title: str


@dataclass(frozen=True)
class Diagram:
    """ruler: as long as the critical difference; bars: under who cannot be told apart"""

    wide: int
    high: float
    title: str
    about: str
    axis: Span
    ticks: list[Tick]
    ruler: Span
    bars: list[Span]
    stems: list[Stem]


def critical_difference_diagram(ranking: CrossDatasetRanking) -> Diagram | None:
    """None where ranks cannot be tested."""
    if ranking.critical_difference is None:
        return None
    count, left, right = len(ranking.methods), float(SIDE), float(WIDE - SIDE)
    unit = (right - left) / (count - 1)

    def at(rank: float) -> float:
        return round(left + (rank - 1) * unit, 1)

    means = [each.mean for each in ranking.methods]
    bars = [
        Span(
            at(means[clique[0]]) - 4,
            at(means[clique[-1]]) + 4,
            AXIS + LANE * (k + 1),
            _clique_title(c),
        )
        for k, clique in enumerate(ranking.cliques)
        for c in [[ranking.methods[i].name for i in clique]]
    ]
    below = AXIS + LANE * (len(bars) + 1) + 12
    half = (count + 1) // 2
    stems = []
    for k, each in enumerate(ranking.methods):
        first = k < half
        y = below + STEP * (k if first else count - 1 - k)
        edge = left - 8 if first else right + 8
        points = [(at(each.mean), AXIS), (at(each.mean), y), (edge, y)]
        stems.append(_build_stem(each, k, polyline(points), edge + (-4 if first else 4), y, first))
    reach = min(at(1 + ranking.critical_difference), WIDE - 8.0)
    said = f"critical difference {ranking.critical_difference:.2f}"
    told = ", ".join(f"{each.name} {each.mean:.2f}" for each in ranking.methods)
    return Diagram(
        WIDE,
        below + STEP * half,
        "Mean ranks; a bar is under those that cannot be told apart.",
        f"Mean ranks in {ranking.title}, the best at the left: {told}; {said}.",
        Span(left, right, AXIS, ""),
        [Tick(at(v), f"{v:g}") for v in _ticks(count)],
        Span(left, reach, 18, said),
        bars,
        stems,
    )


def _ticks(count: int) -> Sequence[float]:
    return range(1, count + 1) if count <= 12 else [1, *(v for v in steps(1, count) if v > 1)]


def _clique_title(names: Sequence[str]) -> str:
    return f"not told apart: {', '.join(names)}"


def _build_stem(each: RankedMethod, k: int, points: str, x: float, y: float, end: bool) -> Stem:
    short = each.name if len(each.name) <= NAME else each.name[: NAME - 1] + "…"
    title = f"{each.name}: mean rank {each.mean:.2f}"
    text = f"{letter(k)} {short}"
    return Stem(k % STYLES, points, x, round(y + 4, 1), end, each.baseline, text, title)


def ranking_table(ranking: CrossDatasetRanking) -> Table:
    """Mean rank, who is not told apart, and on each data set the figure and the rank there."""
    heads = [
        ColumnHead("mean rank", lower=True),
        ColumnHead("alike", "text"),
        *map(ColumnHead, ranking.datasets),
    ]
    lines = []
    for k, (each, mark) in enumerate(zip(ranking.methods, clique_marks(ranking), strict=True)):
        cells = [TableCell(f"{each.mean:.2f}", "mean of the ranks in this row", repr(each.mean))]
        cells += [
            TableCell(mark, kind="text"),
            *(_rank_cell(stand, ranking.metric) for stand in each.dataset_ranks),
        ]
        lines.append(TableLine(each.name, letter(k), k % STYLES, "", each.baseline, "", cells))
    said = (
        f"{TITLES[ranking.metric]} on each data set, and the rank there; methods that share a "
        "letter are not told apart."
    )
    return Table(said, heads, lines)


def _rank_cell(stand: DatasetRank, metric: str) -> TableCell:
    files = ", ".join(f"records/{name}" for name in stand.files) or "no record"
    source = f"{files}: metrics.{metric}.value = {stand.value!r}"
    sort = "" if stand.value is None else repr(stand.value)
    return TableCell(number_text(stand.value), source, sort, f"rank {stand.rank:g}")
