"""The leaderboard, from records alone: no GPU, no data, no network.

What stands on a board depends on what was measured and never on how fast: seconds and memory have
a table of their own. Which records share a board, and in what order, is boards.py's.
"""

from __future__ import annotations

import csv as csv_
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..leaderboard.columns import BUDGET, COST, METRICS, columns, reason
from ..leaderboard.leaderboard import (
    NAMES,
    SCHEMA,
    Board,
    Record,
    ReportError,
    Row,
    boards,
    read_records,
    run_of,
    value_of,
)
from ..leaderboard.rankings import ALONE, leagues
from ..leaderboard.rankings_text import as_json as league_json
from ..leaderboard.rankings_text import cells, heads, sentences
from ..leaderboard.seed_variation import HEADS
from ..leaderboard.seed_variation import as_json as repeats_json
from ..store.artifact_store import atomic_write
from .latex import latex
from .terminal import terminal

__all__ = ["ReportError", "boards", "csv", "markdown", "read_records", "terminal", "write"]


def markdown(records: Sequence[Record]) -> str:
    """Every board as a Markdown table, and ranks over data sets."""
    lines = ["# Leaderboard", ""]
    for board in boards(records):
        lines += [f"## {_escaped(board.title)}", ""]
        shown = columns(board)
        if not board.done:
            lines += [
                f"- {_escaped(f'{row.name}, {run_of(row)}: {reason(row)}')}" for row in board.rows
            ]
        else:
            lines.append(_line([column.head for column in shown]))
            lines.append(_line(["---"] * len(shown)))
            lines += [_line([column.cell(row) for column in shown]) for row in board.done]
            for row in board.missing:
                told = [column.cell(row) for column in shown[:4]] + [reason(row)]
                lines.append(_line(told + [""] * (len(shown) - len(told))))
        if board.repeats:
            lines += ["", f"Over seeds, {NAMES[board.metric]}:", "", _line(HEADS)]
            lines += [_line(["---"] * len(HEADS)), *(_line(r.cells()) for r in board.repeats)]
        lines += ["", *(f"{_escaped(note)}  " for note in board.notes), ""]
    lines += ["## Over data sets", ""]
    over = leagues(records)
    for league in over:
        lines += [f"### {_escaped(league.title)}", "", _line(heads(league))]
        lines += [_line(["---"] * len(heads(league))), *map(_line, cells(league)), ""]
        lines += [*(f"{_escaped(note)}  " for note in sentences(league)), ""]
    if not over:
        lines += [ALONE, ""]
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


def as_json(records: Sequence[Record]) -> str:
    """Every board for programs: its rows in order, their figures as the records have them, and the
    file of each; and ranks over data sets."""
    made = [
        {
            "title": board.title,
            "sorted_by": board.metric,
            "protocol": board.rows[0].record["protocol"],
            "dataset": next((row.record["dataset"] for row in board.done), None),
            "notes": board.notes,
            "over_seeds": repeats_json(board.repeats),
            "rows": [_row(row) for row in board.rows],
        }
        for board in boards(records)
    ]
    over = [league_json(league) for league in leagues(records)]
    told = {"schema": SCHEMA, "boards": made, "over_data_sets": over}
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


def _row(row: Row) -> dict[str, Any]:
    record, cost = row.record, row.record.get("cost") or {}
    whole = ("status", "reason", "profile", "seed", "partial", "file")
    parts = ("method", "level", "threshold", "metrics", "at_published", "at_oracle", "keys")
    return {
        "rank": row.rank,
        "name": row.name,
        "below_baseline": row.below,
        **{name: record.get(name) for name in (*whole, *parts)},
        "budget": {name: cost.get(name) for name in BUDGET},
    }


def write(records: Sequence[Record], folder: Path) -> list[Path]:
    """leaderboard.md, .csv, .json and .tex, cost.csv, and index.html with the pictures and
    what the rows of samples say: each whole or as it was."""
    from .html.page import page

    texts = {
        "leaderboard.md": markdown(records),
        "leaderboard.csv": csv(records),
        "leaderboard.json": as_json(records),
        "leaderboard.tex": latex(records),
        "cost.csv": cost_csv(records),
        "index.html": page(records, Path(folder)),
    }
    for name, text in texts.items():
        atomic_write(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


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
