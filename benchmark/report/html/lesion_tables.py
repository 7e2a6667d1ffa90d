"""Lesion-wise results on the page: sensitivity by size, and FROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import Record
from ...leaderboard.seed_groups import SeedGroup
from ...leaderboard.text import number_text
from .chart import (
    MAX_METHODS,
    Chart,
    chart_style,
    draw_letters,
    draw_line,
    draw_mark,
    draw_seeds,
    metric_limits,
    new_chart,
    set_log_axis,
)
from .table_types import ColumnHead, Table, TableCell, TableLine
from .tables import means_note, method_heads, number_cell


def lesion_table(board: Leaderboard, numbers: Mapping[int, int]) -> Table | None:
    """Return the share of lesions detected, a row per bin of sizes and a column per method.

    None where no record has lesions.

    numbers: indices of records, by their id

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.lesion_tables import lesion_table
    >>> table = lesion_table(example_leaderboard(), {})
    >>> [(line.name, [cell.text for cell in line.cells]) for line in table.lines]
    [('0 to 10 mm²', ['10', '0.800', '0.200']), ('10 mm² and more', ['10', '1.000', '1.000'])]
    """
    sizes: dict[str, int] = {}  # and the place of each among the bins of a record
    counts: dict[str, int] = {}
    for row in board.done:
        for place, (size, bin_) in enumerate(_size_bins(row.record).items()):
            sizes.setdefault(size, place)
            counts[size] = max(counts.get(size, 0), bin_.get("n") or 0)
    shown = [
        (head, group)
        for head, group in zip(method_heads(board, numbers), board.methods, strict=True)
        if any(_size_bins(entry.record) for entry in group.entries)
    ]
    lines = []
    for size, place in sizes.items():
        if counts[size]:
            means = (group.mean(lambda r, size=size: _sensitivity(r, size)) for _, group in shown)
            cells = [TableCell(str(counts[size])), *map(number_cell, means)]
            lines.append(TableLine(size, cells, field=("lesions", "bins", place, "sensitivity")))
    heads = [ColumnHead("lesions"), *(head for head, _ in shown)]
    caption = "Share of lesions found at the threshold (half of each or more), by size."
    return Table(caption + means_note(board), heads, lines, first="size") if lines else None


def _size_bins(record: Record) -> dict[str, Mapping[str, Any]]:
    """The bins of a record, by what their sizes are called."""
    lesions = record.get("lesions") or {}
    bins_by_size = {}
    for bin_ in lesions.get("bins") or []:
        low, high, unit = bin_.get("low"), bin_.get("high"), lesions.get("unit", "")
        size = f"{low:g} {unit} and more" if high is None else f"{low:g} to {high:g} {unit}"
        bins_by_size[size] = bin_
    return bins_by_size


def _sensitivity(record: Record, size: str) -> float | None:
    return _size_bins(record).get(size, {}).get("sensitivity")


@chart_style()
def froc_chart(leaderboard: Leaderboard) -> Chart | None:
    """Return the FROC curves of methods: lesions detected over false detections per normal sample.

    None where no record has false detections.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.lesion_tables import froc_chart
    >>> froc_chart(example_leaderboard()).artist("A-line").get_xydata().tolist()
    [[0.1, 0.45], [1.0, 0.9]]
    """
    methods = leaderboard.methods[:MAX_METHODS]
    seeds = {k: _froc_curves(group) for k, group in enumerate(methods)}
    curves = {k: _mean_curve(each) for k, each in seeds.items() if each}
    points = [point for each in seeds.values() for curve in each for point in curve]
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
            tooltip = f"{methods[k].name}: {text}"
            draw_mark(chart, k, false, sensitivity, "point", tooltip, f"-{i}")
        if len(seeds[k]) > 1:
            of_seeds = [point for each in seeds[k] for point in each]
            draw_seeds(chart, k, of_seeds, f"{methods[k].name}: single seeds")
    draw_letters(chart, [(k, *curve[-1]) for k, curve in curves.items()])
    return chart


Curve = list[tuple[float, float]]


def _froc_curves(group: SeedGroup) -> list[Curve]:
    """False detections per sample and sensitivity, ascending, of each seed that has them."""
    return [
        sorted((p["false_per_sample"], p["sensitivity"]) for p in points)
        for entry in group.entries
        if (points := (entry.record.get("lesions") or {}).get("froc"))
    ]


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds of each point; the first curve where seeds differ in their number."""
    if len({len(curve) for curve in curves}) > 1:
        return curves[0]
    return [
        (fmean(false for false, _ in points), fmean(sensitivity for _, sensitivity in points))
        for points in zip(*curves, strict=True)
    ]
