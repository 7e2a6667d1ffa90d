"""The leaderboard, from records alone: no GPU, no data, no network.

What stands on a board depends on what was measured and never on how fast: seconds and memory have
a table of their own. Which records share a board, and in what order, is boards.py's.
"""

from __future__ import annotations

import csv as csv_
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .boards import (
    Board,
    Record,
    ReportError,
    Row,
    boards,
    number,
    read_records,
    run_of,
    value_of,
)
from .store import atomic_write

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ReportError", "boards", "csv", "markdown", "read_records", "terminal", "write"]

RULES = {"val": "val", "published": "paper", "oracle": "TEST"}
METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc"),
    *("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice"),
    *("pixel_dice_oracle", "pixel_iou", "healthy_fp"),
)
BUDGET = ("train_steps", "train_samples", "parameters", "evaluations_per_image", "gflops_per_image")
COST = ("train_seconds", "seconds_per_image", "peak_memory_mb")


@dataclass(frozen=True)
class Column:
    """A column of a board; `brief` is what is left of it where room is scarce, None for nothing."""

    head: str
    cell: Callable[[Row], str]
    brief: Callable[[Row], str] | None = None
    grey: bool = False


def columns(board: Board) -> list[Column]:
    """The columns of a board; figures that none of its methods has are left out."""
    rule = next((row.record["threshold"]["rule"] for row in board.done), "")
    able = [
        Column("image\nAUROC", _bounded("image_auroc"), _plain("image_auroc")),
        Column("image\nAP", _plain("image_ap")),
        Column("pixel\nAP", _bounded("pixel_ap"), _plain("pixel_ap")),
        Column("pixel\nAUROC", _plain("pixel_auroc")),
        Column("AUPRO\n30", _plain("pixel_aupro30")),
        Column(f"Dice\n{rule}", _plain("pixel_dice")),
        Column("⌈Dice⌉\n(oracle)", _oracle, grey=True),
    ]
    return [
        Column("rank", lambda row: "-" if row.rank is None else str(row.rank)),
        Column("method", lambda row: row.name + (" ▼" if row.below else "")),
        Column("profile", lambda row: str(row.record["profile"])),
        Column("seed", lambda row: str(row.record["seed"])),
        Column("level", _level),
        *(c for c in able if any(c.cell(row) not in ("-", "(-)") for row in board.done)),
        Column("train\nsteps", lambda row: _count(_cost(row, "train_steps"))),
        Column("params\nM", lambda row: number(_cost(row, "parameters"), 1e6)),
        Column("evals\n/image", lambda row: number(_cost(row, "evaluations_per_image"))),
        Column("GFLOP\n/image", lambda row: number(_cost(row, "gflops_per_image"))),
    ]


GAP = 2
"""Between two columns of a table in the terminal."""

SACRIFICE = (
    *("image\nAUROC", "GFLOP\n/image", "params\nM", "image\nAP", "pixel\nAUROC", "train\nsteps"),
    *("AUPRO\n30", "evals\n/image", "seed", "⌈Dice⌉\n(oracle)", "pixel\nAP", "profile"),
)
"""What a narrow terminal goes without, in order; intervals go before figures do."""


def terminal(records: Sequence[Record], console: Console) -> None:
    """Print every board in the console's width, and beneath it what it cost."""
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
        for row in board.missing:
            console.print(Text(f"- {row.name}, {run_of(row)}: {_reason(row)}"))
        for note in board.notes:
            console.print(Text(note, style="dim"))
        if board.done:
            _cost_table(board, console)
        console.print()


def markdown(records: Sequence[Record]) -> str:
    """Every board as a Markdown table."""
    lines = ["# Leaderboard", ""]
    for board in boards(records):
        lines += [f"## {_escaped(board.title)}", ""]
        shown = columns(board)
        if not board.done:
            lines += [
                f"- {_escaped(f'{row.name}, {run_of(row)}: {_reason(row)}')}" for row in board.rows
            ]
        else:
            lines.append(_line([column.head for column in shown]))
            lines.append(_line(["---"] * len(shown)))
            lines += [_line([column.cell(row) for column in shown]) for row in board.done]
            for row in board.missing:
                cells = [column.cell(row) for column in shown[:4]] + [_reason(row)]
                lines.append(_line(cells + [""] * (len(shown) - len(cells))))
        lines += ["", *(f"{_escaped(note)}  " for note in board.notes), ""]
    return "\n".join(lines)


def csv(records: Sequence[Record]) -> str:
    """Every row of every board, with every figure: six decimals, empty where undefined."""
    lines = []
    for board in boards(records):
        for row in board.rows:
            record, cost = row.record, row.record.get("cost") or {}
            line = {
                **_identity(board, row),
                "status": record["status"],
                "reason": record["reason"],
                "supervision": record["method"].get("supervision"),
                "baseline": record["method"]["baseline"],
                "below_baseline": row.below,
                "level": (record.get("level") or {}).get("chosen"),
                "level_rule": (record.get("level") or {}).get("rule"),
                "threshold_rule": (record.get("threshold") or {}).get("rule"),
                "threshold": (record.get("threshold") or {}).get("value"),
            }
            for metric in METRICS:
                for part, tail in (("value", ""), ("low", "_low"), ("high", "_high")):
                    line[metric + tail] = value_of(record, metric, part)
            lines.append(line | {name: cost.get(name) for name in BUDGET})
    return _csv(lines)


def cost_csv(records: Sequence[Record]) -> str:
    """Seconds and memory of every row that has them: they differ from run to run."""
    lines = [
        {
            **_identity(board, row),
            "device": row.record.get("device"),
            **{name: (row.record.get("cost") or {}).get(name) for name in COST},
        }
        for board in boards(records)
        for row in board.done
    ]
    return _csv([{k: v for k, v in line.items() if k != "rank"} for line in lines])


def write(records: Sequence[Record], folder: Path) -> list[Path]:
    """leaderboard.md, leaderboard.csv and cost.csv, each whole or as it was."""
    texts = {
        "leaderboard.md": markdown(records),
        "leaderboard.csv": csv(records),
        "cost.csv": cost_csv(records),
    }
    for name, text in texts.items():
        atomic_write(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


def _fitting(board: Board, width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit a width, and the heads of those (or of the intervals) that do not."""
    shown, left_out = columns(board), []
    for head in SACRIFICE:
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
        steps = [_count(_cost(row, "train_steps")), number(_cost(row, "parameters"), 1e6)]
        rest = ("evaluations_per_image", "gflops_per_image", *COST)
        cells = [row.name, *steps, *(number(_cost(row, name)) for name in rest)]
        table.add_row(*map(Text, cells))
    console.print(table)
    devices = sorted({str(row.record.get("device") or "-") for row in board.done})
    console.print(Text(f"Measured on {', '.join(devices)}.", style="dim"))


def _identity(board: Board, row: Row) -> dict[str, Any]:
    """Which row of which board."""
    record = row.record
    data = record["dataset"]
    return {
        "board": board.title,
        "dataset": data["name"],
        "fingerprint": data["fingerprint"],
        "synthetic": data["synthetic"],
        "partial": record["partial"],
        "protocol": record["protocol"]["id"],
        "rank": row.rank,
        "method": record["method"]["name"],
        "label": row.name,
        "profile": record["profile"],
        "seed": record["seed"],
    }


def _cost(row: Row, name: str) -> float | None:
    return (row.record.get("cost") or {}).get(name)


def _plain(metric: str) -> Callable[[Row], str]:
    return lambda row: number(row.value(metric))


def _bounded(metric: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        low, high = (value_of(row.record, metric, part) for part in ("low", "high"))
        interval = "" if low is None else f" [{number(low)}, {number(high)}]"
        return number(row.value(metric)) + interval

    return cell


def _oracle(row: Row) -> str:
    return f"({number(row.value('pixel_dice_oracle'))})"


def _level(row: Row) -> str:
    level = row.record.get("level")
    if not level or not level["chosen"]:
        return "-"
    return f"{level['chosen']} {RULES.get(level['rule'], level['rule'])}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _reason(row: Row) -> str:
    return f"{row.record['status']}: {' '.join(str(row.record['reason'] or 'no reason').split())}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """On one line, with what Markdown would take for its own made plain."""
    text = " ".join(text.split())
    for mark in ("\\", "|", "*", "`", "<"):
        text = text.replace(mark, f"\\{mark}")
    return text


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    out = io.StringIO()
    writer = csv_.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in line.items()})
    return out.getvalue()
