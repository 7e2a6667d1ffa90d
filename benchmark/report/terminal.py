"""The board on a terminal, in whatever width it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..leaderboard.columns import COST, Column, columns, cost, count, reason
from ..leaderboard.leaderboard import NAMES, Board, Record, boards, number, run_of
from ..leaderboard.rankings import League, leagues
from ..leaderboard.rankings_text import cells, heads, sentences
from ..leaderboard.seed_variation import HEADS, Repeat

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""Between two columns of a table in the terminal."""

SACRIFICE = (
    *("image\nAUROC", "GFLOP\n/image", "params\nM", "image\nAP", "pixel\nAUROC", "train\nsteps"),
    *("AUPRO\n30", "evals\n/image", "seed", "⌈Dice⌉\n(oracle)", "pixel\nAP", "profile"),
)
"""What a narrow terminal goes without, in order; intervals go before figures do."""


def terminal(records: Sequence[Record], console: Console) -> None:
    """Print every board in the console's width, and beneath it what it cost; then ranks over data
    sets, where there are any."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for board in boards(records):
        console.print(Text(board.title, style="bold"))
        if board.done:
            shown, left_out = _fitting(board, console.width)
            table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
            for column in shown:
                left = column.head in ("method", "profile", "level")
                table.add_column(
                    Text(column.head),
                    justify="left" if left else "right",
                    style="dim" if column.grey else None,
                    overflow="fold" if column.head == "method" else "ellipsis",
                    no_wrap=column.head != "method",
                    min_width=_widest(column, board),
                )
            for row in board.done:
                style = "italic" if row.record["method"]["baseline"] else None
                table.add_row(*(Text(column.cell(row)) for column in shown), style=style)
            console.print(table)
            if left_out:
                text = ", ".join(head.replace("\n", " ") for head in left_out)
                console.print(Text(f"No room for {text}: see leaderboard.md.", style="dim"))
        if board.repeats:
            _seeds(f"over seeds, {NAMES[board.metric]}", board.repeats, console)
        for row in board.missing:
            console.print(Text(f"- {row.name}, {run_of(row)}: {reason(row)}"))
        for note in board.notes:
            console.print(Text(note, style="dim"))
        if board.done:
            _cost_table(board, console)
        console.print()
    for league in leagues(records):
        _league(league, console)


def _seeds(title: str, found: Sequence[Repeat], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for k, head in enumerate((title, *HEADS[1:])):
        table.add_column(Text(head), justify="right" if 0 < k < 4 else "left", overflow="fold")
    for repeat in found:
        table.add_row(*map(Text, repeat.cells()))
    console.print(table)


def _league(league: League, console: Console) -> None:
    """Ranks over data sets; where there is no room for all of these, without their figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(Text(league.title, style="bold"))
    rows = [heads(league), *cells(league)]
    wide = [max(map(len, column)) + GAP for column in zip(*rows, strict=True)]
    shown = len(wide) if sum(wide) < console.width else len(wide) - len(league.sets)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for k, head in enumerate(rows[0][:shown]):
        table.add_column(Text(head), justify="left" if k in (0, 2) else "right", overflow="fold")
    for each, row in zip(league.entrants, rows[1:], strict=True):
        table.add_row(*map(Text, row[:shown]), style="italic" if each.baseline else None)
    console.print(table)
    if shown < len(wide):
        console.print(Text("No room for the data sets: see leaderboard.md.", style="dim"))
    for note in sentences(league):
        console.print(Text(note, style="dim"))
    console.print()


def _fitting(board: Board, width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit a width, and the heads of those (or of the intervals) that do not."""
    shown, left_out = columns(board), []
    one_seed = len({row.record["seed"] for row in board.done}) == 1
    for head in SACRIFICE if one_seed else [head for head in SACRIFICE if head != "seed"]:
        if sum(_widest(column, board) + GAP for column in shown) < width:
            break
        column = next((column for column in shown if column.head == head), None)
        if column is None:
            continue
        at = shown.index(column)
        if column.brief is not None:
            shown[at] = Column(head, column.brief)
            left_out.append(f"{head} intervals")
        else:
            del shown[at]
            left_out.append(head)
    return shown, left_out


def _widest(column: Column, board: Board) -> int:
    cells = [column.cell(row) for row in board.done] + column.head.split("\n")
    if column.head == "method":  # may take several lines
        cells = [word for cell in cells for word in cell.split()]
    return max(map(len, cells))


def _cost_table(board: Board, console: Console) -> None:
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
        steps = [count(cost(row, "train_steps")), number(cost(row, "parameters"), 1e6)]
        rest = ("evaluations_per_image", "gflops_per_image", *COST)
        cells = [row.name, *steps, *(number(cost(row, name)) for name in rest)]
        table.add_row(*map(Text, cells))
    console.print(table)
    devices = sorted({str(row.record.get("device") or "-") for row in board.done})
    console.print(Text(f"Measured on {', '.join(devices)}.", style="dim"))
