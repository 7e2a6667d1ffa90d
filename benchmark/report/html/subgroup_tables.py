"""Tables of the page: a metric in every subgroup of the test data, by field of metadata."""

from __future__ import annotations

from typing import Any

from ...leaderboard.columns import TITLES
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import Record
from ...leaderboard.subgroup_gaps import subgroup_order
from ...leaderboard.text import interval_text
from .chart import letter
from .tables import ColumnHead, Table, TableCell, TableLine, metric_cell

BIAS_NOTE = (
    "A difference between subgroups is no proof of bias: they may differ in how large or how faint "
    "their anomalies are, and with many subgroups some difference is always large. An interval of "
    "the difference that leaves out 0 is a reason to look closer."
)
"""What stands above the tables."""


def subgroup_tables(board: Leaderboard, metric: str) -> list[Table]:
    """Return a table for each field of metadata: subgroups by method, with 95 % intervals.

    The last line is the largest difference between two subgroups of a method. Fields in which no
    record has the metric are left out.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.report.html.subgroup_tables import subgroup_tables
    >>> def subgroup(value):
    ...     auroc = {"value": value, "low": value - 0.04, "high": value + 0.04}
    ...     return {"n": 20, "n_abnormal": 10, "n_groups": 20, "metrics": {"image_auroc": auroc}}
    >>> gap = {"higher": "F", "lower": "M", "value": 0.1, "low": 0.02, "high": 0.18, "pairs": 1}
    >>> record = example_record()
    >>> record["metadata"] = {"sex": {"subgroups": {"F": subgroup(0.9), "M": subgroup(0.8)},
    ...                               "gaps": {"image_auroc": gap}}}
    >>> (table,) = subgroup_tables(build_leaderboards([record])[0], "image_auroc")
    >>> [(line.name, [(cell.text, cell.bounds) for cell in line.cells]) for line in table.lines]
    [('F', [('20', ''), ('0.900', '[0.860, 0.940]')]),
     ('M', [('20', ''), ('0.800', '[0.760, 0.840]')]),
     ('largest difference', [('', ''), ('0.100', '[0.020, 0.180] F over M')])]
    """
    tables = []
    for field in sorted({name for row in board.done for name in row.record.get("metadata") or {}}):
        of_rows = [(row.record.get("metadata") or {}).get(field) or {} for row in board.done]
        counts = {
            name: subgroup["n"]
            for values in of_rows
            for name, subgroup in values.get("subgroups", {}).items()
            if metric in subgroup["metrics"]
        }
        if not counts:
            continue
        lines = []
        for name in sorted(counts, key=subgroup_order):
            cells = [TableCell(str(counts[name]), sort=str(counts[name]))]
            for row, values in zip(board.done, of_rows, strict=True):
                metrics = values.get("subgroups", {}).get(name, {}).get("metrics", {})
                path = f"metadata.{field}.subgroups.{name}.metrics.{metric}"
                cells.append(_cell_with_interval(row.record, path, metrics.get(metric)))
            lines.append(TableLine(name, "", 0, "", False, "", cells))
        cells = [TableCell("")]
        for row, values in zip(board.done, of_rows, strict=True):
            gap = values.get("gaps", {}).get(metric)
            cell = _cell_with_interval(row.record, f"metadata.{field}.gaps.{metric}", gap)
            if gap:
                pair = f"{gap['higher']} over {gap['lower']}"
                cell = cell._replace(bounds=" ".join(filter(None, [cell.bounds, pair])))
            cells.append(cell)
        lines.append(TableLine("largest difference", "", 0, "", False, "", cells))
        heads = [
            ColumnHead("samples"),
            *(ColumnHead(f"{letter(k)} {row.name}") for k, row in enumerate(board.done)),
        ]
        caption = f"{TITLES[metric]} by {field}, each subgroup within itself."
        tables.append(Table(caption, heads, lines, first=field))
    return tables


def _cell_with_interval(record: Record, path: str, values: dict[str, Any] | None) -> TableCell:
    if not values:
        return metric_cell(record, path, None)
    cell = metric_cell(record, f"{path}.value", values["value"])
    return cell._replace(bounds=interval_text(values.get("low"), values.get("high")))
