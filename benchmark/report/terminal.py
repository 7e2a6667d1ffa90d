"""The board on a terminal, in whatever width it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..leaderboard.columns import COST, Column, columns, cost_of, count_text, reason_text
from ..leaderboard.leaderboard import (
    METRIC_NAMES,
    Leaderboard,
    build_leaderboards,
    profile_and_seed,
)
from ..leaderboard.rankings import CrossDatasetRanking, build_rankings
from ..leaderboard.rankings_text import column_titles, sentences, table_cells
from ..leaderboard.records import Record, number_text
from ..leaderboard.seed_variation import COLUMN_TITLES, SeedSummary

if TYPE_CHECKING:
    from rich.console import Console

COLUMN_GAP = 2
"""Between two columns of a table in the terminal."""

DROP_ORDER = (
    *("image\nAUROC", "GFLOP\n/image", "params\nM", "image\nAP", "pixel\nAUROC", "train\nsteps"),
    *("AUPRO\n30", "evals\n/image", "seed", "⌈Dice⌉\n(oracle)", "pixel\nAP", "profile"),
)
"""What a narrow terminal goes without, in order; intervals go before figures do."""


def print_leaderboards(records: Sequence[Record], console: Console) -> None:
    """Print every board in the console's width, and beneath it what it cost; then ranks over data
    sets, where there are any."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for board in build_leaderboards(records):
        console.print(Text(board.title, style="bold"))
        if board.done:
            shown, left_out = _columns_that_fit(board, console.width)
            table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
            for column in shown:
                left = column.title in ("method", "profile", "level")
                table.add_column(
                    Text(column.title),
                    justify="left" if left else "right",
                    style="dim" if column.grey else None,
                    overflow="fold" if column.title == "method" else "ellipsis",
                    no_wrap=column.title != "method",
                    min_width=_column_width(column, board),
                )
            for row in board.done:
                style = "italic" if row.record["method"]["baseline"] else None
                table.add_row(*(Text(column.text(row)) for column in shown), style=style)
            console.print(table)
            if left_out:
                text = ", ".join(head.replace("\n", " ") for head in left_out)
                console.print(Text(f"No room for {text}: see leaderboard.md.", style="dim"))
        if board.seed_summaries:
            _print_seeds(f"over seeds, {METRIC_NAMES[board.metric]}", board.seed_summaries, console)
        for row in board.missing:
            console.print(Text(f"- {row.name}, {profile_and_seed(row)}: {reason_text(row)}"))
        for note in board.notes:
            console.print(Text(note, style="dim"))
        if board.done:
            _print_costs(board, console)
        console.print()
    for league in build_rankings(records):
        _print_ranking(league, console)


def _print_seeds(title: str, found: Sequence[SeedSummary], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for k, head in enumerate((title, *COLUMN_TITLES[1:])):
        table.add_column(Text(head), justify="right" if 0 < k < 4 else "left", overflow="fold")
    for repeat in found:
        table.add_row(*map(Text, repeat.table_cells()))
    console.print(table)


def _print_ranking(league: CrossDatasetRanking, console: Console) -> None:
    """Ranks over data sets; where there is no room for all of these, without their figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(Text(league.title, style="bold"))
    rows = [column_titles(league), *table_cells(league)]
    wide = [max(map(len, column)) + COLUMN_GAP for column in zip(*rows, strict=True)]
    shown = len(wide) if sum(wide) < console.width else len(wide) - len(league.datasets)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for k, head in enumerate(rows[0][:shown]):
        table.add_column(Text(head), justify="left" if k in (0, 2) else "right", overflow="fold")
    for each, row in zip(league.methods, rows[1:], strict=True):
        table.add_row(*map(Text, row[:shown]), style="italic" if each.baseline else None)
    console.print(table)
    if shown < len(wide):
        console.print(Text("No room for the data sets: see leaderboard.md.", style="dim"))
    for note in sentences(league):
        console.print(Text(note, style="dim"))
    console.print()


def _columns_that_fit(board: Leaderboard, width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit a width, and the heads of those (or of the intervals) that do not."""
    shown, left_out = columns(board), []
    one_seed = len({row.record["seed"] for row in board.done}) == 1
    for head in DROP_ORDER if one_seed else [head for head in DROP_ORDER if head != "seed"]:
        if sum(_column_width(column, board) + COLUMN_GAP for column in shown) < width:
            break
        column = next((column for column in shown if column.title == head), None)
        if column is None:
            continue
        at = shown.index(column)
        if column.short_text is not None:
            shown[at] = Column(head, column.short_text)
            left_out.append(f"{head} intervals")
        else:
            del shown[at]
            left_out.append(head)
    return shown, left_out


def _column_width(column: Column, board: Leaderboard) -> int:
    cells = [column.text(row) for row in board.done] + column.title.split("\n")
    if column.title == "method":  # may take several lines
        cells = [word for cell in cells for word in cell.split()]
    return max(map(len, cells))


def _print_costs(board: Leaderboard, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
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
    for row in board.done:
        steps = [
            count_text(cost_of(row, "train_steps")),
            number_text(cost_of(row, "parameters"), 1e6),
        ]
        rest = ("evaluations_per_image", "gflops_per_image", *COST)
        cells = [row.name, *steps, *(number_text(cost_of(row, name)) for name in rest)]
        table.add_row(*map(Text, cells))
    console.print(table)
    devices = sorted({str(row.record.get("device") or "-") for row in board.done})
    console.print(Text(f"Measured on {', '.join(devices)}.", style="dim"))
