"""The table of a leaderboard: rank, method, main metrics with intervals, level, two costs.

Columns that are rarely needed are hidden at first, so that the table fits a page; all are printed.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...leaderboard.columns import FALSE_POSITIVE_RATES, LOWER_IS_BETTER, TITLES
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import metric_value
from .explanations import EXPLANATIONS
from .table_types import ColumnHead, Table, TableCell
from .tables import (
    COST_TITLES,
    best_value,
    cost_cell,
    interval_cell,
    level_cell,
    number_cell,
    rate,
    table_line,
    word_cell,
)

MAIN_METRICS = (
    *("image_auroc", "image_ap", "pixel_ap", "pixel_auroc", "pixel_aupro30"),
    *("pixel_dice", "volume_dice", "pixel_dice_oracle", "vus_pr", "pointing_game", "box_recall_1"),
)
HIDDEN = frozenset(
    {
        *("image_ap", "pixel_auroc", "pixel_dice_oracle", "volume_dice", "image_fpr", "pixel_fpr"),
        "train_steps",
    }
)
"""Keys of columns that are hidden at first."""


def board_table(
    board: Leaderboard,
    numbers: Mapping[int, int],
    verdicts: Mapping[int, str],
    by: str,
) -> Table:
    """Return the table of a leaderboard, the metric that it is sorted by first.

    numbers: indices of records, by their id
    verdicts: of entries against the best in metric `by`, by index

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.board_table import board_table
    >>> table = board_table(example_leaderboard(), {}, {}, "")
    >>> [(head.text, cell.text) for head, cell in zip(table.heads, table.lines[0].cells)][:3]
    [('rank', '1'), ('pixel AP', '0.455'), ('image AUROC', '0.900')]
    """
    have = [name for name in MAIN_METRICS if any(row.value(name) is not None for row in board.done)]
    shown = sorted(have, key=lambda name: name != board.metric)
    rates = [
        name
        for name in FALSE_POSITIVE_RATES
        if any(rate(e.record, name) is not None for e in board.done)
    ]
    one = {
        word: len({str(row.record[word]) for row in board.done}) == 1
        for word in ("profile", "seed")
    }
    heads = [_head("rank", "rank", lower=True), _metric_head(shown[0])] if shown else []
    heads += [_head("verdict", f"against the best in {by}", "text")] if verdicts else []
    heads += [_metric_head(name) for name in shown[1:]]
    heads += [_head(n, TITLES[n], lower=True, field=("calibration", n)) for n in rates]
    heads += [_head("level", "level", "text", field=("level",))]
    heads += [_cost_head("evaluations_per_image")]
    heads += [_head(word, word, "text", hidden=one[word], field=(word,)) for word in one]
    heads += [_cost_head("train_steps")]
    best = {name: best_value(board, name) for name in shown}
    limits = {name: _limits(board, name) for name in shown}
    lines = []
    for k, row in enumerate(board.done):
        record = row.record
        metrics = [interval_cell(record, n, best[n], limits[n]) for n in shown]
        cells = []
        if shown:
            cells += [number_cell(row.rank), metrics[0]]
        cells += [TableCell(verdicts.get(k, "-"), kind="text")] if verdicts else []
        cells += metrics[1:]
        cells += [number_cell(rate(record, name)) for name in rates]
        cells += [level_cell(record), cost_cell(record, "evaluations_per_image")]
        cells += [word_cell(record, word) for word in one]
        cells += [cost_cell(record, "train_steps")]
        lines.append(table_line(board, row, numbers, cells))
    return Table(
        f"Sorted by {TITLES.get(board.metric, board.metric)}, best first; below each figure its "
        "95 % interval, drawn and written.",
        heads,
        lines,
    )


def _head(
    key: str,
    text: str,
    kind: str = "number",
    *,
    lower: bool = False,
    hidden: bool = False,
    field: tuple[str, ...] = (),
) -> ColumnHead:
    about = EXPLANATIONS.get(key, "")
    return ColumnHead(text, kind, lower, key, about, hidden or key in HIDDEN, field)


def _metric_head(name: str) -> ColumnHead:
    return _head(name, TITLES[name], lower=name in LOWER_IS_BETTER, field=("metrics", name))


def _cost_head(name: str) -> ColumnHead:
    return _head(name, COST_TITLES[name], lower=True, field=("cost", name))


def _limits(board: Leaderboard, metric: str) -> tuple[float, float]:
    """The lowest and the highest of a metric's values and bounds on a leaderboard."""
    values = [
        value
        for row in board.done
        for part in ("value", "low", "high")
        if (value := metric_value(row.record, metric, part)) is not None
    ]
    return min(values), max(values)
