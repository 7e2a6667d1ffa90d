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

from ..leaderboard.columns import BUDGET, COST, METRICS, columns, reason_text
from ..leaderboard.entry import Entry
from ..leaderboard.leaderboard import (
    METRIC_NAMES,
    Leaderboard,
    build_leaderboards,
    profile_and_seed,
)
from ..leaderboard.rankings import SINGLE_DATASET_NOTE, build_rankings
from ..leaderboard.rankings_text import as_json as league_json
from ..leaderboard.rankings_text import column_titles, sentences, table_cells
from ..leaderboard.records import SCHEMA, Record, ReportError, metric_value, read_records
from ..leaderboard.seed_variation import COLUMN_TITLES
from ..leaderboard.seed_variation import as_json as repeats_json
from ..store.artifact_store import atomic_write
from .latex import latex
from .terminal import print_leaderboards

__all__ = [
    "ReportError",
    "build_leaderboards",
    "csv",
    "markdown",
    "print_leaderboards",
    "read_records",
    "write_report",
]


def markdown(records: Sequence[Record]) -> str:
    """Every board as a Markdown table, and ranks over data sets."""
    lines = ["# Leaderboard", ""]
    for board in build_leaderboards(records):
        lines += [f"## {_escape_markdown(board.title)}", ""]
        shown = columns(board)
        if not board.done:
            lines += [
                f"- {_escape_markdown(f'{row.name}, {profile_and_seed(row)}: {reason_text(row)}')}"
                for row in board.entries
            ]
        else:
            lines.append(_markdown_line([column.title for column in shown]))
            lines.append(_markdown_line(["---"] * len(shown)))
            lines += [_markdown_line([column.text(row) for column in shown]) for row in board.done]
            for row in board.missing:
                told = [column.text(row) for column in shown[:4]] + [reason_text(row)]
                lines.append(_markdown_line(told + [""] * (len(shown) - len(told))))
        if board.seed_summaries:
            lines += [
                "",
                f"Over seeds, {METRIC_NAMES[board.metric]}:",
                "",
                _markdown_line(COLUMN_TITLES),
            ]
            lines += [
                _markdown_line(["---"] * len(COLUMN_TITLES)),
                *(_markdown_line(r.table_cells()) for r in board.seed_summaries),
            ]
        lines += ["", *(f"{_escape_markdown(note)}  " for note in board.notes), ""]
    lines += ["## Over data sets", ""]
    over = build_rankings(records)
    for league in over:
        lines += [
            f"### {_escape_markdown(league.title)}",
            "",
            _markdown_line(column_titles(league)),
        ]
        lines += [
            _markdown_line(["---"] * len(column_titles(league))),
            *map(_markdown_line, table_cells(league)),
            "",
        ]
        lines += [*(f"{_escape_markdown(note)}  " for note in sentences(league)), ""]
    if not over:
        lines += [SINGLE_DATASET_NOTE, ""]
    return "\n".join(lines)


def csv(records: Sequence[Record]) -> str:
    """Every row of every board, with every figure: six decimals, empty where undefined."""
    lines = []
    for board in build_leaderboards(records):
        for row in board.entries:
            record, cost = row.record, row.record.get("cost") or {}
            line = {
                **_entry_identity(board, row),
                "status": record["status"],
                "reason": record["reason"],
                "supervision": record["method"].get("supervision"),
                "baseline": record["method"]["baseline"],
                "below_baseline": row.worse_than_baseline,
                "level": (record.get("level") or {}).get("chosen"),
                "level_rule": (record.get("level") or {}).get("rule"),
                "threshold_rule": (record.get("threshold") or {}).get("rule"),
                "threshold": (record.get("threshold") or {}).get("value"),
            }
            for metric in METRICS:
                for part, tail in (("value", ""), ("low", "_low"), ("high", "_high")):
                    line[metric + tail] = metric_value(record, metric, part)
            lines.append(line | {name: cost.get(name) for name in BUDGET})
    return _to_csv(lines)


def cost_csv(records: Sequence[Record]) -> str:
    """Seconds and memory of every row that has them: they differ from run to run."""
    lines = [
        {
            **_entry_identity(board, row),
            "device": row.record.get("device"),
            **{name: (row.record.get("cost") or {}).get(name) for name in COST},
        }
        for board in build_leaderboards(records)
        for row in board.done
    ]
    return _to_csv([{k: v for k, v in line.items() if k != "rank"} for line in lines])


def as_json(records: Sequence[Record]) -> str:
    """Every board for programs: its rows in order, their figures as the records have them, and the
    file of each; and ranks over data sets."""
    made = [
        {
            "title": board.title,
            "sorted_by": board.metric,
            "protocol": board.entries[0].record["protocol"],
            "dataset": next((row.record["dataset"] for row in board.done), None),
            "notes": board.notes,
            "over_seeds": repeats_json(board.seed_summaries),
            "rows": [_entry_json(row) for row in board.entries],
        }
        for board in build_leaderboards(records)
    ]
    over = [league_json(league) for league in build_rankings(records)]
    told = {"schema": SCHEMA, "boards": made, "over_data_sets": over}
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


def _entry_json(row: Entry) -> dict[str, Any]:
    record, cost = row.record, row.record.get("cost") or {}
    whole = ("status", "reason", "profile", "seed", "partial", "file")
    parts = ("method", "level", "threshold", "metrics", "at_published", "at_oracle", "keys")
    return {
        "rank": row.rank,
        "name": row.name,
        "below_baseline": row.worse_than_baseline,
        **{name: record.get(name) for name in (*whole, *parts)},
        "budget": {name: cost.get(name) for name in BUDGET},
    }


def write_report(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write leaderboard.md, .csv, .json and .tex, cost.csv, index.html, and its charts in the
    folder `figures` as SVG, PDF and PNG: each file whole or as it was. Returns the paths."""
    from .html.page import build_page

    page = build_page(records, Path(folder))
    texts = {
        "leaderboard.md": markdown(records),
        "leaderboard.csv": csv(records),
        "leaderboard.json": as_json(records),
        "leaderboard.tex": latex(records),
        "cost.csv": cost_csv(records),
        "index.html": page.html,
    }
    for name, text in texts.items():
        atomic_write(Path(folder) / name, text)
    for name, chart in page.charts.items():
        for kind in ("svg", "pdf", "png"):
            atomic_write(Path(folder) / "figures" / f"{name}.{kind}", chart.rendered(kind))
    return [Path(folder) / name for name in (*texts, *(["figures"] if page.charts else []))]


def _entry_identity(board: Leaderboard, row: Entry) -> dict[str, Any]:
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


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape_markdown(cell) for cell in cells) + " |"


def _escape_markdown(text: str) -> str:
    """On one line, with what Markdown would take for its own made plain."""
    text = " ".join(text.split())
    for mark in ("\\", "|", "*", "`", "<"):
        text = text.replace(mark, f"\\{mark}")
    return text


def _to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    out = io.StringIO()
    writer = csv_.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in line.items()})
    return out.getvalue()
