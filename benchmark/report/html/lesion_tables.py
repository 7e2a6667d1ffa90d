"""Lesion-wise results on the page: sensitivity by size, and FROC curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...leaderboard.entry import Entry
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.text import number_text
from .chart import (
    Chart,
    chart_style,
    draw_letters,
    draw_line,
    draw_mark,
    letter,
    metric_limits,
    new_chart,
    set_log_axis,
)
from .tables import ColumnHead, Table, TableCell, TableLine, metric_cell


def lesion_table(board: Leaderboard) -> Table | None:
    """Return the share of lesions detected, a row per bin of sizes and a column per method.

    None where no record has lesions.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.lesion_tables import lesion_table
    >>> table = lesion_table(example_leaderboard())
    >>> [(line.name, [cell.text for cell in line.cells]) for line in table.lines]
    [('0 to 10 mm²', ['10', '0.800', '0.200']), ('10 mm² and more', ['10', '1.000', '1.000'])]
    """
    bins_by_row = {k: bins for k, row in enumerate(board.done) if (bins := _size_bins(row))}
    if not bins_by_row:
        return None
    sizes = dict.fromkeys(size for bins in bins_by_row.values() for size in bins)
    lines = []
    for size in sizes:
        facts = {k: bins.get(size) or {} for k, bins in bins_by_row.items()}
        count = max((bin_.get("n") or 0) for bin_ in facts.values())
        if not count:
            continue
        cells = [TableCell(str(count), sort=str(count))]
        for k, bin_ in facts.items():
            field = f"lesions.bins {size} sensitivity"
            cells.append(metric_cell(board.done[k].record, field, bin_.get("sensitivity")))
        lines.append(TableLine(size, "", 0, "", False, "", cells))
    heads = [
        ColumnHead("lesions"),
        *(ColumnHead(f"{letter(k)} {board.done[k].name}") for k in bins_by_row),
    ]
    caption = "Share of lesions found at the threshold (half of each or more), by size."
    return Table(caption, heads, lines, first="size") if lines else None


def _size_bins(row: Entry) -> dict[str, Mapping[str, Any]]:
    """The bins of a record, by what their sizes are called."""
    lesions = row.record.get("lesions") or {}
    bins_by_size = {}
    for bin_ in lesions.get("bins") or []:
        low, high, unit = bin_.get("low"), bin_.get("high"), lesions.get("unit", "")
        size = f"{low:g} {unit} and more" if high is None else f"{low:g} to {high:g} {unit}"
        bins_by_size[size] = bin_
    return bins_by_size


@chart_style()
def froc_chart(leaderboard: Leaderboard) -> Chart | None:
    """Return the FROC curves of methods: lesions detected over false detections per normal sample.

    None where no record has false detections.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.lesion_tables import froc_chart
    >>> froc_chart(example_leaderboard()).artist("A-line").get_xydata().tolist()
    [[0.1, 0.45], [1.0, 0.9]]
    """
    curves = {
        k: sorted((p["false_per_sample"], p["sensitivity"]) for p in points)
        for k, entry in enumerate(leaderboard.done)
        if (points := (entry.record.get("lesions") or {}).get("froc"))
    }
    points = [point for curve in curves.values() for point in curve]
    if not any(false > 0 for false, _ in points):
        return None
    chart = new_chart(
        "froc",
        "FROC",
        "Share of lesions found over false findings in each normal sample, a line for each method.",
        "false findings / normal sample (logarithmic)",
        "lesions found",
    )
    set_log_axis(chart.axes, [false for false, _ in points])
    chart.axes.set_ylim(*metric_limits([sensitivity for _, sensitivity in points]))
    for k, curve in curves.items():
        draw_line(
            chart, k, [false for false, _ in curve], [sensitivity for _, sensitivity in curve]
        )
        for i, (false, sensitivity) in enumerate(curve):
            text = f"{number_text(sensitivity)} found, {false:.3g} false a sample"
            tooltip = f"{leaderboard.done[k].name}: {text}"
            draw_mark(chart, k, false, sensitivity, "point", tooltip, f"-{i}")
    draw_letters(chart, [(k, *curve[-1]) for k, curve in curves.items()])
    return chart
