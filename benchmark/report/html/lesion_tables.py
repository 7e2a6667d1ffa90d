"""What the page says lesion by lesion, where records do: which are found, and at what price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...leaderboard.entry import Entry
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import number_text
from .charts import with_letters
from .svg import STYLES, Chart, Line, Mark, across, letter, polyline, upward
from .tables import ColumnHead, Table, TableCell, metric_cell
from .tables import TableLine as TableLine


def lesion_table(board: Leaderboard) -> Table | None:
    """The share of lesions found, a row for each bin of size, a column for each method."""
    found = {k: bins for k, row in enumerate(board.done) if (bins := _size_bins(row))}
    if not found:
        return None
    sizes = dict.fromkeys(size for bins in found.values() for size in bins)
    lines = []
    for size in sizes:
        facts = {k: bins.get(size) or {} for k, bins in found.items()}
        count = max((bin_.get("n") or 0) for bin_ in facts.values())
        if not count:
            continue
        cells = [TableCell(str(count), sort=str(count))]
        for k, bin_ in facts.items():
            place = f"lesions.bins {size} sensitivity"
            cells.append(metric_cell(board.done[k].record, place, bin_.get("sensitivity")))
        lines.append(TableLine(size, "", 0, "", False, "", cells))
    heads = [
        ColumnHead("lesions"),
        *(ColumnHead(f"{letter(k)} {board.done[k].name}") for k in found),
    ]
    said = "Share of lesions found at the threshold (half of each or more), by size."
    return Table(said, heads, lines, first="size") if lines else None


def _size_bins(row: Entry) -> dict[str, Mapping[str, Any]]:
    """The bins of a record, by what their sizes are called."""
    told = row.record.get("lesions") or {}
    found = {}
    for bin_ in told.get("bins") or []:
        low, high, unit = bin_.get("low"), bin_.get("high"), told.get("unit", "")
        size = f"{low:g} {unit} and more" if high is None else f"{low:g} to {high:g} {unit}"
        found[size] = bin_
    return found


def froc_chart(board: Leaderboard) -> Chart | None:
    """Lesions found over false findings in each normal sample, a line for each method."""
    curves = {
        k: sorted((p["false_per_sample"], p["sensitivity"]) for p in points)
        for k, row in enumerate(board.done)
        if (points := (row.record.get("lesions") or {}).get("froc"))
    }
    if not any(cost > 0 for points in curves.values() for cost, _ in points):
        return None
    every = [point for points in curves.values() for point in points]
    x, y = across([cost for cost, _ in every], log=True), upward([share for _, share in every])
    lines = []
    for k, points in curves.items():
        places = [(x.at(cost), y.at(share)) for cost, share in points]
        said = [f"{number_text(share)} found, {cost:.3g} false a sample" for cost, share in points]
        name = board.done[k].name
        marks = [Mark(*at, "dot", f"{name}: {word}") for at, word in zip(places, said, strict=True)]
        lines.append(Line(letter(k), k % STYLES, polyline(places), marks, [], places[-1]))
    return Chart(
        "FROC",
        "Share of lesions found over false findings in each normal sample, a line for each method.",
        "false findings / normal sample (logarithmic)",
        "lesions found",
        x.ticks(),
        y.ticks(),
        with_letters(lines),
    )
