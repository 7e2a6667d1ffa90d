"""Leaderboards and rankings on a terminal, in whatever width it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..leaderboard.columns import (
    COST,
    Column,
    calls_text,
    columns,
    cost_of,
    count_text,
    reason_text,
)
from ..leaderboard.leaderboard import Leaderboard
from ..leaderboard.metric_names import METRIC_NAMES
from ..leaderboard.rankings import CrossDatasetRanking, LeaderboardSet
from ..leaderboard.rankings_text import column_titles, sentences, table_cells
from ..leaderboard.seed_variation import COLUMN_TITLES, SeedSummary
from ..leaderboard.text import number_text, plain_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

COLUMN_GAP = 2
"""Between two columns of a table in the terminal."""

DROP_ORDER = (
    *("GFLOP\n/image", "params\nM", "false alarms\nat 5 %", "image\nAP", "pixel\nAUROC"),
    *("train\nsteps", "AUPRO\n30", "⌈F1 adj.⌉\n(random)", "R-AUC\nPR", "⌈Dice⌉\n(oracle)"),
    *("image\nAUROC", "seed", "profile", "image\nAUROC", "VUS\nPR", "VUS\nPR"),
    *("pointing\ngame", "pointing\ngame", "box recall\n1 FP", "box recall\n1 FP"),
    *("pixel\nAP", "pixel\nAP", "Dice of\na volume", "Dice"),
)
"""Columns left out on a narrow terminal, in order; their intervals are left out first. The metric
that a leaderboard is sorted by stays, and loses its interval last."""
LAST_DROPPED = ("evals\n/image",)

METRIC_HEADS = {"pixel_ap": "pixel\nAP", "image_auroc": "image\nAUROC"}


def print_leaderboards(results: LeaderboardSet, console: Console) -> None:
    """Print every leaderboard in the console's width: its answer, the table, what it cost, notes;
    then the rankings over datasets.

    >>> from rich.console import Console
    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> from adbench.benchmark.report.terminal import print_leaderboards
    >>> print_leaderboards(build_leaderboard_set([]), Console())
    """
    for board in results.leaderboards:
        console.print(_text(board.title, "bold"))
        if board.answer:
            console.print(_text(board.answer))
        if board.done:
            shown, left_out = _columns_that_fit(board, console.width)
            table = _new_table()
            for column in shown:
                left = column.title in ("method", "profile", "level")
                table.add_column(
                    _lines(column.title),
                    justify="left" if left else "right",
                    style="dim" if column.grey else None,
                    overflow="fold" if column.title == "method" else "ellipsis",
                    no_wrap=column.title != "method",
                    min_width=_column_width(column, board),
                )
            for entry in board.done:
                style = "italic" if entry.record["method"]["baseline"] else None
                table.add_row(*(_text(column.text(entry)) for column in shown), style=style)
            console.print(table)
            if left_out:
                text = ", ".join(head.replace("\n", " ") for head in left_out)
                console.print(_text(f"No room for {text}: see leaderboard.md.", "dim"))
        if board.seed_summaries:
            _print_seeds(f"over seeds, {METRIC_NAMES[board.metric]}", board.seed_summaries, console)
        for entry in board.missing:
            console.print(_text(f"- {entry.name}, {entry.profile_and_seed}: {reason_text(entry)}"))
        if board.done:
            _print_costs(board, console)
        for note in board.notes:
            console.print(_text(note, "dim"))
        console.print()
    for ranking in results.rankings:
        _print_ranking(ranking, console)


def _text(text: str, style: str = "") -> Text:
    """One line of plain text: neither markup nor control characters of the terminal."""
    from rich.text import Text

    return Text(plain_text(text), style)


def _lines(text: str) -> Text:
    from rich.text import Text

    return Text("\n").join(map(_text, text.split("\n")))


def _new_table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)


def _print_seeds(title: str, summaries: Sequence[SeedSummary], console: Console) -> None:
    table = _new_table()
    for k, head in enumerate((title, *COLUMN_TITLES[1:])):
        table.add_column(_text(head), justify="right" if 0 < k < 4 else "left", overflow="fold")
    for summary in summaries:
        table.add_row(*map(_text, summary.table_cells()))
    console.print(table)


def _print_ranking(ranking: CrossDatasetRanking, console: Console) -> None:
    """Ranks over data sets; where there is no room for all of these, without their figures."""
    console.print(_text(ranking.title, "bold"))
    rows = [column_titles(ranking), *table_cells(ranking)]
    wide = [max(map(len, column)) + COLUMN_GAP for column in zip(*rows, strict=True)]
    shown = len(wide) if sum(wide) < console.width else len(wide) - len(ranking.datasets)
    table = _new_table()
    for k, head in enumerate(rows[0][:shown]):
        table.add_column(_text(head), justify="left" if k in (0, 2) else "right", overflow="fold")
    for each, row in zip(ranking.methods, rows[1:], strict=True):
        table.add_row(*map(_text, row[:shown]), style="italic" if each.baseline else None)
    console.print(table)
    if shown < len(wide):
        console.print(_text("No room for the data sets: see leaderboard.md.", "dim"))
    for note in sentences(ranking):
        console.print(_text(note, "dim"))
    console.print()


def _columns_that_fit(board: Leaderboard, width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit a width, and the heads of those (or of the intervals) that do not."""
    shown, left_out = columns(board), []
    widths = {column: _column_width(column, board) for column in shown}
    for head in _drop_order(board):
        if sum(widths[column] + COLUMN_GAP for column in shown) < width:
            break
        column = next((c for c in shown if c.title.split("\n")[0] == head or c.title == head), None)
        if column is None:
            continue
        at = shown.index(column)
        if column.short_text is not None and column.short_text is not column.text:
            shown[at] = Column(column.title, column.short_text)
            widths[shown[at]] = _column_width(shown[at], board)
            left_out.append(f"{head} intervals")
        else:
            del shown[at]
            left_out = [text for text in left_out if text != f"{head} intervals"] + [head]
    return shown, left_out


def _drop_order(board: Leaderboard) -> list[str]:
    """Heads in the order in which they go; seeds and profiles stay where they differ."""
    metric = METRIC_HEADS.get(board.metric, "")
    shown = {metric} | {
        name
        for name in ("seed", "profile")
        if len({str(entry.record[name]) for entry in board.done}) > 1
    }
    order = [head for head in DROP_ORDER if head not in shown]
    return [
        *order,
        *LAST_DROPPED,
        *(name for name in ("profile", "seed") if name in shown),
        metric,
    ]


def _column_width(column: Column, board: Leaderboard) -> int:
    cells = [column.text(entry) for entry in board.done] + column.title.split("\n")
    if column.title == "method":  # may take several lines
        cells = [word for cell in cells for word in cell.split()]
    return max(map(len, cells))


def _print_costs(board: Leaderboard, console: Console) -> None:
    table = _new_table()
    table.add_column("budget and\ncost of")
    heads = (
        "steps",
        "M params",
        "evals\n/image",
        "GFLOP\n/image",
        "train s",
        "s\n/image",
        "peak MB",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for entry in board.done:
        steps = [
            count_text(cost_of(entry, "train_steps")),
            number_text(cost_of(entry, "parameters"), 1e6),
        ]
        rest = ("evaluations_per_image", "gflops_per_image", *COST)
        calls = calls_text(cost_of(entry, rest[0]))
        cells = [entry.name, *steps, calls, *(number_text(cost_of(entry, n)) for n in rest[1:])]
        table.add_row(*map(_text, cells))
    console.print(table)
    devices = sorted({str(entry.record.get("device") or "-") for entry in board.done})
    console.print(_text(f"Measured on {', '.join(devices)}.", "dim"))
