"""A ranking over data sets on the page: its table and its critical-difference diagram.

The diagram is Demsar's (JMLR 7, 2006): mean ranks along an axis, the best at the left, and a bar
under those that are not significantly different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...leaderboard.columns import TITLES
from ...leaderboard.rankings import CrossDatasetRanking, DatasetRank
from ...leaderboard.rankings_text import clique_marks
from ...leaderboard.text import number_text
from .chart import FAINT, INK, LIGHT_THEME, STYLES, Chart, chart_style, letter, printable
from .table_types import ColumnHead, Table, TableCell, TableLine

WIDTH, SIDE, AXIS, LANE, STEP, NAME = 800, 220, 54, 9, 19, 26
"""Points across, and of them on either side for names; height of the axis from above; between bars;
between names; letters of a name."""


@chart_style()
def critical_difference_diagram(
    ranking: CrossDatasetRanking, name: str = "ranking"
) -> Chart | None:
    """Mean ranks with the critical difference; None where ranks cannot be tested.

    Coordinates are points from the upper left corner. gids of artists: `axis`, `ruler`, `tick-N`,
    `clique-N`, and `A-stem` and `A-name` of each method.

    >>> from adbench.benchmark.leaderboard.rankings import CrossDatasetRanking, RankedMethod
    >>> from adbench.benchmark.report.html.rankings import critical_difference_diagram
    >>> methods = [RankedMethod(name, False, mean, []) for mean, name in enumerate("ABC", 1)]
    >>> ranking = CrossDatasetRanking("", "pixel_ap", [], methods, 0.01, 1.5, [[0, 1], [1, 2]], [])
    >>> chart = critical_difference_diagram(ranking)
    >>> [chart.artist(f"{letter}-name").get_text() for letter in "ABC"]
    ['A A', 'B B', 'C C']
    """
    from matplotlib.figure import Figure

    if ranking.critical_difference is None:
        return None
    count, left, right = len(ranking.methods), float(SIDE), float(WIDTH - SIDE)
    means = [method.mean for method in ranking.methods]
    below = AXIS + LANE * (len(ranking.cliques) + 1) + 12
    half = (count + 1) // 2
    height = below + STEP * half
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    difference = f"critical difference {ranking.critical_difference:.2f}"
    names = ", ".join(f"{method.name} {method.mean:.2f}" for method in ranking.methods)
    chart = Chart(
        name,
        "Mean ranks; a bar is under those that are not significantly different.",
        f"Mean ranks in {ranking.title}, the best at the left: {names}; {difference}.",
        figure,
    )

    def at(rank: float) -> float:
        return left + (rank - 1) * (right - left) / (count - 1)

    axes.plot([left, right], [AXIS, AXIS], color=INK, linewidth=1, gid="axis")
    reach = min(at(1 + ranking.critical_difference), WIDTH - 8.0)
    axes.plot([left, reach], [24, 24], "|-", color=INK, linewidth=1, markersize=8, gid="ruler")
    axes.text(left, 17, difference, color=FAINT, va="bottom")
    for rank in range(1, count + 1, 1 + (count - 1) // 12):
        axes.plot([at(rank)] * 2, [AXIS, AXIS - 5], color=INK, linewidth=1)
        axes.text(at(rank), AXIS - 8, f"{rank}", color=FAINT, ha="center", gid=f"tick-{rank}")
    for i, clique in enumerate(ranking.cliques):
        y = AXIS + LANE * (i + 1)
        ends = [at(means[clique[0]]) - 4, at(means[clique[-1]]) + 4]
        axes.plot(ends, [y, y], color=INK, linewidth=4, gid=f"clique-{i}")
        members = ", ".join(ranking.methods[k].name for k in clique)
        chart.tooltips[f"clique-{i}"] = f"not significantly different: {members}"
    for k, method in enumerate(ranking.methods):
        first = k < half
        y = below + STEP * (k if first else count - 1 - k)
        edge, text_at = (left - 8, left - 12) if first else (right + 8, right + 12)
        colour = LIGHT_THEME[f"c{k % STYLES}"]
        line = [at(method.mean)] * 2 + [edge], [AXIS, y, y]
        axes.plot(*line, color=colour, linewidth=1.4, gid=f"{letter(k)}-stem")
        short = method.name if len(method.name) <= NAME else method.name[: NAME - 1] + "…"
        align: dict[str, Any] = {"ha": "right" if first else "left", "va": "center"}
        font: dict[str, Any] = {
            "style": "italic" if method.baseline else "normal",
            "gid": f"{letter(k)}-name",
        }
        axes.text(text_at, y, f"{letter(k)} {printable(short)}", **align, **font)
        chart.tooltips[f"{letter(k)}-name"] = f"{method.name}: mean rank {method.mean:.2f}"
    return chart


def ranking_table(ranking: CrossDatasetRanking, numbers: Mapping[str, int]) -> Table:
    """Return the table of a ranking: mean rank, clique letters, and per dataset the value and rank.

    numbers: indices of records, by the names of their files

    >>> from adbench.benchmark.leaderboard.rankings import (
    ...     CrossDatasetRanking, DatasetRank, RankedMethod)
    >>> from adbench.benchmark.report.html.rankings import ranking_table
    >>> method = RankedMethod("AnoDDPM", False, 1.0, [DatasetRank(0.5, 1.0, ["a.json"])])
    >>> ranking = CrossDatasetRanking("", "pixel_ap", ["brats"], [method], None, None, [], [])
    >>> table = ranking_table(ranking, {})
    >>> [head.text for head in table.heads], [cell.text for cell in table.lines[0].cells]
    (['mean rank', 'alike', 'brats'], ['1.00', '-', '0.500'])
    """
    heads = [
        ColumnHead("mean rank", lower=True),
        ColumnHead("alike", "text"),
        *(ColumnHead(name, field=("metrics", ranking.metric)) for name in ranking.datasets),
    ]
    lines = []
    for k, (each, mark) in enumerate(zip(ranking.methods, clique_marks(ranking), strict=True)):
        cells = [TableCell(f"{each.mean:.2f}", sort=f"{each.mean:.6g}")]
        cells += [
            TableCell(mark, kind="text"),
            *(_rank_cell(dataset_rank, numbers) for dataset_rank in each.dataset_ranks),
        ]
        lines.append(TableLine(each.name, cells, letter(k), k % STYLES, each.baseline))
    caption = (
        f"{TITLES[ranking.metric]} on each data set, and the rank there; methods that share a "
        "letter are not significantly different."
    )
    return Table(caption, heads, lines)


def _rank_cell(dataset_rank: DatasetRank, numbers: Mapping[str, int]) -> TableCell:
    records = tuple(numbers[name] for name in dataset_rank.files if name in numbers)
    bounds = f"rank {dataset_rank.rank:g}"
    return TableCell(number_text(dataset_rank.value), bounds=bounds, records=records)
