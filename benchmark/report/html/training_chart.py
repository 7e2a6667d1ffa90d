"""Charts and table of a metric over the share of training data and over contamination."""

from __future__ import annotations

from collections.abc import Sequence

from ...leaderboard.columns import TITLES
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.text import number_text
from ...leaderboard.training_curves import AXES, TrainingCurve, training_curve_data
from .chart import (
    LEFT,
    LIGHT_THEME,
    RIGHT,
    STYLES,
    WIDTH,
    Chart,
    chart_style,
    draw_letters,
    draw_line,
    draw_mark,
    letter,
    metric_limits,
    new_chart,
)
from .table_types import ColumnHead, Table, TableCell, TableLine


def training_charts(leaderboard: Leaderboard) -> list[Chart]:
    """Return charts of the leaderboard's metric over the share of training patients and over
    contamination, one per axis along which a method was trained on several shares.

    Lines have the letters of `training_table`.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.training_chart import training_charts
    >>> training_charts(example_leaderboard())
    []
    """
    curves = _curves(leaderboard)
    return [
        _training_chart(leaderboard.metric, axis, numbered)
        for axis in AXES
        if (numbered := [(k, curve) for k, curve in enumerate(curves) if curve.axis == axis])
    ]


@chart_style()
def _training_chart(metric: str, axis: str, curves: Sequence[tuple[int, TrainingCurve]]) -> Chart:
    title = TITLES.get(metric, metric)
    chart = new_chart(
        f"training-{axis}",
        f"{title} by {AXES[axis]}",
        f"{title} by {AXES[axis]}, a line for each method.",
        f"{AXES[axis]} (%)",
        title,
    )
    points = [point for _, curve in curves for point in curve.points]
    values = [
        value
        for point in points
        for value in (point.value, point.low, point.high)
        if value is not None
    ]
    shares = sorted({point.share for point in points})
    chart.axes.set_xlim(shares[0], shares[-1])
    chart.axes.set_ylim(*metric_limits(values))
    chart.axes.set_xticks(_apart(shares, 28 * (shares[-1] - shares[0]) / (WIDTH - LEFT - RIGHT)))
    ends = []
    for k, curve in curves:
        draw_line(chart, k, [p.share for p in curve.points], [p.value for p in curve.points])
        for number, point in enumerate(curve.points):
            text = f"{curve.label}: {title} {number_text(point.value)} at {point.share:g} %"
            draw_mark(chart, k, point.share, point.value, "point", text, f"-{number}")
        _draw_band(chart, k, curve)
        last = curve.points[-1]
        ends.append((k, last.share, last.value))
    draw_letters(chart, ends)
    return chart


def _draw_band(chart: Chart, k: int, curve: TrainingCurve) -> None:
    """The intervals of a curve, where all of its points have one, under the gid `A-band`."""
    bounds = [(p.share, p.low, p.high) for p in curve.points if p.low is not None]
    if len(bounds) < len(curve.points):
        return
    shares, low, high = zip(*bounds, strict=True)
    style = {"color": LIGHT_THEME[f"c{k % STYLES}"], "alpha": 0.15, "linewidth": 0}
    chart.axes.fill_between(shares, low, high, gid=f"{letter(k)}-band", **style)
    chart.tooltips[f"{letter(k)}-band"] = f"{curve.label}: 95 % intervals"


def _curves(leaderboard: Leaderboard) -> list[TrainingCurve]:
    return training_curve_data([e.record for e in leaderboard.done], leaderboard.metric)


def _apart(shares: Sequence[float], distance: float) -> list[float]:
    """Of the shares those whose ticks do not overlap, from the last down."""
    shown: list[float] = []
    for share in reversed(shares):
        if not shown or shown[-1] - share >= distance:
            shown.append(share)
    return shown


def training_table(leaderboard: Leaderboard) -> Table | None:
    """Return the figures of `training_charts`: a line for each point, with its interval.

    None where no method was trained on several shares.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.training_chart import training_table
    >>> training_table(example_leaderboard()) is None
    True
    """
    curves = _curves(leaderboard)
    title = TITLES.get(leaderboard.metric, leaderboard.metric)
    lines = []
    for k, curve in enumerate(curves):
        for point in curve.points:
            bounds = ""
            if point.low is not None and point.high is not None:
                bounds = f"{number_text(point.low)} to {number_text(point.high)}"
            value = number_text(point.value)
            cells = [
                TableCell(AXES[curve.axis], kind="text"),
                TableCell(f"{point.share:g} %"),
                TableCell(value, bounds=bounds),
                TableCell(str(point.seeds)),
            ]
            lines.append(TableLine(curve.label, cells, letter(k), k % STYLES))
    heads = [ColumnHead("by", "text"), *map(ColumnHead, ("share", title, "seeds"))]
    caption = f"{title} by the share of training data; 95 % intervals beneath the figures."
    return Table(caption, heads, lines) if lines else None
