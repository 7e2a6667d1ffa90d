"""Tables of the page: a metric in every subgroup of the test data, by field of metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...leaderboard.columns import TITLES
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.seed_groups import SeedGroup, mean_of_seeds
from ...leaderboard.subgroup_gaps import subgroup_order
from ...leaderboard.text import interval_text
from .table_types import ColumnHead, Table, TableCell, TableLine
from .tables import means_note, method_heads, number_cell

BIAS_NOTE = (
    "A difference between subgroups is no proof of bias: they may differ in how large or how faint "
    "their anomalies are, and with many subgroups some difference is always large. An interval of "
    "the difference that leaves out 0 is a reason to look closer."
)
"""What stands above the tables."""


def subgroup_tables(board: Leaderboard, metric: str, numbers: Mapping[int, int]) -> list[Table]:
    """Return a table for each field of metadata: subgroups by method, with 95 % intervals.

    The last line is the largest difference between two subgroups of a method. Fields in which no
    record has the metric are left out.

    numbers: indices of records, by their id

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
    >>> (table,) = subgroup_tables(build_leaderboards([record])[0], "image_auroc", {})
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
            path = ("metadata", field, "subgroups", name, "metrics", metric)
            cells = [TableCell(str(counts[name]))]
            cells += [_cell_with_interval(group, path) for group in board.methods]
            lines.append(TableLine(name, cells, field=path))
        path = ("metadata", field, "gaps", metric)
        cells = [TableCell(""), *(_gap_cell(group, path) for group in board.methods)]
        lines.append(TableLine("largest difference", cells, field=path))
        heads = [ColumnHead("samples"), *method_heads(board, numbers)]
        caption = f"{TITLES[metric]} by {field}, each subgroup within itself." + means_note(board)
        tables.append(Table(caption, heads, lines, first=field))
    return tables


def _figures(group: SeedGroup, path: Sequence[str]) -> list[dict[str, Any] | None]:
    """What lies at the path in the records of a method's seeds."""
    figures: list[Any] = [entry.record for entry in group.entries]
    for name in path:
        figures = [(figure or {}).get(name) for figure in figures]
    return figures


def _cell_with_interval(group: SeedGroup, path: Sequence[str]) -> TableCell:
    mean = mean_of_seeds(_figures(group, path), path[-1] if "subgroups" in path else "")
    if mean is None:
        return number_cell(None)
    return number_cell(mean.value)._replace(bounds=interval_text(mean.low, mean.high))


def _gap_cell(group: SeedGroup, path: Sequence[str]) -> TableCell:
    """The largest difference, with the two subgroups where they are the same in all seeds."""
    cell = _cell_with_interval(group, path)
    pairs = {f"{gap['higher']} over {gap['lower']}" for gap in _figures(group, path) if gap}
    pair = pairs.pop() if len(pairs) == 1 else ""
    return cell._replace(bounds=" ".join(filter(None, [cell.bounds, pair])))
