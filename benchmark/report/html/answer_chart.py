"""The one picture of a leaderboard's answer: its metric with intervals, a line for each method."""

from __future__ import annotations

from typing import Any

from ...leaderboard.columns import TITLES
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.text import number_text
from .chart import (
    FAINT,
    INK,
    LIGHT_THEME,
    MAX_METHODS,
    STYLES,
    Chart,
    chart_style,
    draw_seeds,
    letter,
    metric_limits,
    printable,
)

NAME = 28
"""Letters of a name."""
WIDTH, SIDE, LINE, AXIS = 430, 215, 22, 44
"""Points across; of them for names; of the height for each entry, and for the axis."""


@chart_style()
def answer_chart(board: Leaderboard) -> Chart | None:
    """Return the chart of the metric that a leaderboard is sorted by; None with fewer than two
    entries that have it.

    Filled marks are methods by the mean of their seeds, hollow ones baselines. gids of artists:
    `A-value`, `A-interval` and, of several seeds, `A-seeds`.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.answer_chart import answer_chart
    >>> chart = answer_chart(example_leaderboard())
    >>> [chart.artist(f"A-{part}").get_xdata().tolist() for part in ("value", "interval")]
    [[0.455], [0.405, 0.505]]
    """
    from matplotlib.figure import Figure

    metric = board.metric
    methods = board.methods[:MAX_METHODS]
    values = {
        k: value for k, group in enumerate(methods) if (value := group.value(metric)) is not None
    }
    if len(values) < 2:
        return None
    bounds = {k: pair for k in values if (pair := methods[k].interval(metric))}
    seeds = {k: each for k in values if len(each := methods[k].values(metric)) > 1}
    height = AXIS + LINE * len(values)
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    wide = (WIDTH - SIDE - 14) / WIDTH
    axes = figure.add_axes((SIDE / WIDTH, AXIS / height, wide, 1 - (AXIS + 4) / height))
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)
    axes.set(ylim=(len(values) - 0.4, -0.6), yticks=[])
    limits = [*values.values(), *(bound for pair in bounds.values() for bound in pair)]
    limits += [value for of_seeds in seeds.values() for value in of_seeds]
    axes.set_xlim(*metric_limits(limits))
    axes.set_xlabel(TITLES.get(metric, metric))
    title = f"{TITLES.get(metric, metric)} with 95 % intervals, best first"
    title += "; small points are single seeds" if seeds else ""
    about = "; ".join(f"{methods[k].name} {number_text(value)}" for k, value in values.items())
    chart = Chart("answer", title, f"{title}: {about}.", figure)
    for row, (k, value) in enumerate(values.items()):
        group = methods[k]
        colour = LIGHT_THEME[f"c{k % STYLES}"]
        tooltip = f"{group.name}: {number_text(value)}"
        tooltip += f", {group.seeds_text}" if group.seeds_text else ""
        if k in bounds:
            gid = f"{letter(k)}-interval"
            axes.plot(bounds[k], [row, row], color=colour, linewidth=2, gid=gid)
            tooltip += f", 95 % interval {number_text(bounds[k][0])} to {number_text(bounds[k][1])}"
            chart.tooltips[gid] = tooltip
        gid = f"{letter(k)}-value"
        axes.plot(
            *([value], [row], "o"),
            **{"color": colour, "markersize": 9, "gid": gid, "clip_on": False, "zorder": 3},
            markerfacecolor="none" if group.baseline else colour,
            markeredgewidth=2,
        )
        chart.tooltips[gid] = tooltip
        if k in seeds:
            points = [(each, row + 0.32) for each in seeds[k]]
            draw_seeds(chart, k, points, f"{group.name}: {len(seeds[k])} single seeds")
        name = printable(group.method_name)  # its mark is hollow
        short = name if len(name) <= NAME else name[: NAME - 1] + "…"
        style: dict[str, Any] = {
            **{"textcoords": "offset points", "va": "center", "annotation_clip": False},
            "xycoords": axes.get_yaxis_transform(),
        }
        ink: dict[str, Any] = (
            {"color": FAINT, "style": "italic"} if group.baseline else {"color": INK}
        )
        axes.annotate(short, (0, row), xytext=(-30, 0), ha="right", **style, **ink)
        style |= {"color": colour, "weight": "bold"}
        axes.annotate(letter(k), (0, row), xytext=(-14, 0), ha="center", **style)
    return chart
