"""Charts of a leaderboard: metric over noise level, quality over cost, scores of each method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from ...leaderboard.columns import TITLES
from ...leaderboard.entry import Entry
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import Record
from ...leaderboard.seed_groups import SeedGroup
from ...leaderboard.text import number_text
from .chart import (
    FAINT,
    INK,
    LEFT,
    LIGHT_THEME,
    MAX_METHODS,
    RIGHT,
    WIDTH,
    Chart,
    chart_style,
    draw_interval,
    draw_letters,
    draw_line,
    draw_mark,
    draw_seeds,
    metric_limits,
    new_chart,
    set_log_axis,
)

SWEEP_METRICS = (
    ("pixel_ap", "test"),
    ("pixel_ap", "val"),
    ("image_auroc", "test"),
    ("image_auroc", "val"),
)
SPLITS = {"test": "test", "val": "validation"}
COST_AXES = {
    "evaluations_per_image": "network evaluations / image",
    "seconds_per_image": "s / image",
}
BINS = 24


def sweep_charts(leaderboard: Leaderboard) -> list[Chart]:
    """Return charts of a metric over the noise level, one per metric and split that was swept.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.charts import sweep_charts
    >>> charts = sweep_charts(example_leaderboard())
    >>> [chart.title for chart in charts]
    ['pixel AP on test', 'pixel AP on validation', 'image AUROC on test', 'image AUROC on
    validation']
    >>> charts[0].artist("A-line").get_xdata().tolist()
    [100, 250, 500]
    """
    charts = (_sweep_chart(leaderboard, metric, split) for metric, split in SWEEP_METRICS)
    return [chart for chart in charts if chart]


@chart_style()
def _sweep_chart(leaderboard: Leaderboard, metric: str, split: str) -> Chart | None:
    methods = leaderboard.methods[:MAX_METHODS]
    seeds = {
        k: [_sweep(entry, metric, split) for entry in group.entries]
        for k, group in enumerate(methods)
    }
    curves = {k: curve for k, sweeps in seeds.items() if (curve := _mean_sweep(sweeps))}
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    chance = _chance(leaderboard, metric)
    values = [v for k in curves for sweep in seeds[k] for v in sweep.values()]
    values += [] if chance is None else [chance]
    intervals = {
        k: interval
        for k in curves
        if split == "test"
        and len(_levels(methods[k], "chosen")) == 1
        and (interval := methods[k].interval(metric))
    }
    values += [bound for interval in intervals.values() for bound in interval]
    chart = new_chart(
        f"{metric}-{split}",
        f"{TITLES[metric]} on {SPLITS[split]}",
        f"{TITLES[metric]} on {SPLITS[split]} over the noise level, a line for each method.",
        "noise level (1 to 1000)",
        TITLES[metric],
    )
    levels = sorted({level for curve in curves.values() for level in curve if level})
    start, end = (levels[0], levels[-1]) if len(levels) > 1 else (levels[0] - 1, levels[0] + 1)
    chart.axes.set_xlim(start, end)
    chart.axes.set_ylim(*metric_limits(values))
    chart.axes.set_xticks(_thin(levels, 28 * (end - start) / (WIDTH - LEFT - RIGHT)))
    if chance is not None:
        chart.axes.axhline(chance, color=FAINT, linewidth=1.5, linestyle=(0, (1, 3)), gid="chance")
        style = {"xytext": (4, 4), "textcoords": "offset points", "color": FAINT}
        chart.axes.annotate(f"chance {number_text(chance)}", (start, chance), **style)
    ends = []
    for k, curve in curves.items():
        if list(curve) == [0]:  # a method without a noise level, a baseline: the same at each
            curve = {start: curve[0], end: curve[0]}
        else:
            _draw_levels(chart, k, methods[k], curve)
            chosen = _level(methods[k], "chosen")
            if k in intervals and chosen in curve:
                _draw_interval(chart, k, methods[k], metric, chosen)
            if len(seeds[k]) > 1:
                points = [point for sweep in seeds[k] for point in sweep.items()]
                draw_seeds(chart, k, points, f"{methods[k].name}: single seeds")
        draw_line(chart, k, [*curve], [*curve.values()])
        ends.append((k, *list(curve.items())[-1]))
    draw_letters(chart, ends)
    return chart


def _sweep(entry: Entry, metric: str, split: str) -> dict[int, float]:
    """Values of the metric by noise level, in order."""
    sweep = entry.record.get("sweep") or {}
    values = {int(level): (parts.get(split) or {}).get(metric) for level, parts in sweep.items()}
    return {level: value for level, value in sorted(values.items()) if value is not None}


def _mean_sweep(sweeps: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Means over seeds by noise level, in order."""
    levels = sorted({level for sweep in sweeps for level in sweep})
    return {level: fmean(s[level] for s in sweeps if level in s) for level in levels}


def _levels(group: SeedGroup, kind: str) -> list[int]:
    """The chosen, published or oracle levels of a method's seeds, the most frequent first."""
    levels = [entry.record["level"].get(kind) for entry in group.entries]
    return [level for level, _ in Counter(v for v in levels if v is not None).most_common()]


def _level(group: SeedGroup, kind: str) -> int | None:
    return next(iter(_levels(group, kind)), None)


def _draw_levels(chart: Chart, k: int, group: SeedGroup, curve: dict[int, float]) -> None:
    for shape in ("oracle", "published", "chosen"):
        levels = _levels(group, shape)
        if levels and levels[0] in curve:
            tooltip = f"{group.name}, {shape} level {levels[0]}: {number_text(curve[levels[0]])}"
            tooltip += f", {group.seeds_text}" if group.seeds_text else ""
            if len(levels) > 1:
                tooltip += f"; other seeds have {', '.join(map(str, levels[1:]))}"
            draw_mark(chart, k, levels[0], curve[levels[0]], shape, tooltip)


def _chance(leaderboard: Leaderboard, metric: str) -> float | None:
    """What guessing achieves."""
    if metric == "image_auroc":
        return 0.5
    references = (entry.record["reference"] for entry in leaderboard.done)
    return next((reference.get("prevalence") for reference in references), None)


def _thin(values: Sequence[float], distance: float) -> list[float]:
    """Of sorted values those that are at least this far from the one before."""
    thinned: list[float] = []
    for value in values:
        if not thinned or value - thinned[-1] >= distance:
            thinned.append(value)
    return thinned


def cost_charts(leaderboard: Leaderboard) -> list[Chart]:
    """Return charts of the leaderboard's metric over a cost, one per cost that was measured.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.charts import cost_charts
    >>> charts = cost_charts(example_leaderboard())
    >>> [chart.title for chart in charts]
    ['pixel AP over network evaluations / image', 'pixel AP over s / image']
    >>> charts[0].artist("B-point").get_xydata().tolist()
    [[4.0, 0.32]]
    """
    return [chart for cost in COST_AXES if (chart := _cost_chart(leaderboard, cost))]


@chart_style()
def _cost_chart(leaderboard: Leaderboard, cost: str) -> Chart | None:
    metric = leaderboard.metric
    methods = leaderboard.methods[:MAX_METHODS]
    points = {
        k: (price, value)
        for k, group in enumerate(methods)
        if (price := group.mean(lambda record: _cost(record, cost))) is not None
        and (value := group.value(metric)) is not None
    }
    if not any(price > 0 for price, _ in points.values()):
        return None
    front = {[*points][i] for i in pareto_front([*points.values()])}
    intervals = (methods[k].interval(metric) for k in points)
    bounds = [bound for interval in intervals if interval for bound in interval]
    seeds = {k: _seed_points(methods[k], metric, cost) for k in points}
    drawn = [*points.values(), *(point for each in seeds.values() for point in each)]
    title = TITLES.get(metric, metric)
    chart = new_chart(
        f"cost-{cost}",
        f"{title} over {COST_AXES[cost]}",
        f"{title} over {COST_AXES[cost]}; a ring marks what nothing cheaper is as good as.",
        f"{COST_AXES[cost]} (logarithmic)",
        title,
    )
    set_log_axis(chart.axes, [price for price, _ in drawn])
    chart.axes.set_ylim(*metric_limits([*(value for _, value in drawn), *bounds]))
    for k, (price, value) in points.items():
        group = methods[k]
        tooltip = f"{group.name}: {title} {number_text(value)} at {price:.4g} {COST_AXES[cost]}"
        tooltip += f", {group.seeds_text}" if group.seeds_text else ""
        if k in front:
            tooltip += ", on the front: nothing cheaper is as good"
            draw_mark(chart, k, price, value, "front", tooltip)
        draw_mark(chart, k, price, value, "point", tooltip)
        _draw_interval(chart, k, group, metric, price)
        if seeds[k]:
            draw_seeds(chart, k, seeds[k], f"{group.name}: single seeds")
    at = [(k, price, value) for k, (price, value) in points.items()]
    draw_letters(chart, at, offset=17.0)  # beyond the ring of the front
    return chart


def _cost(record: Record, name: str) -> float | None:
    return (record.get("cost") or {}).get(name)


def _seed_points(group: SeedGroup, metric: str, cost: str) -> list[tuple[float, float]]:
    """Cost and metric of each seed; empty where there is one alone."""
    pairs = [(_cost(entry.record, cost), entry.value(metric)) for entry in group.entries]
    points = [(price, value) for price, value in pairs if price is not None and value is not None]
    return points if len(points) > 1 else []


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other beats in one and equals in the other.

    >>> pareto_front([(1, 0.5), (2, 0.4), (3, 0.9)])
    [0, 2]
    """
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


@chart_style()
def score_histogram(
    name: str, title: str, score: Sequence[float], label: Sequence[bool]
) -> Chart | None:
    """Return a histogram of abnormal samples' scores upwards and of normal ones' downwards.

    Heights are shares of either. None where all scores are equal or one kind has no sample.

    name: of the chart's files      title: what the scores are of

    >>> from adbench.benchmark.report.html.charts import score_histogram
    >>> chart = score_histogram("scores", "AnoDDPM", [0.0, 0.9, 1.0], [False, True, True])
    >>> chart.tooltips["abnormal-23"]
    '1 abnormal samples score 0.9583 to 1'
    >>> score_histogram("scores", "AnoDDPM", [0.0, 0.1], [False, False]) is None
    True
    """
    import numpy as np

    if not score or min(score) == max(score) or len(set(label)) < 2:
        return None
    about = f"Image scores of {title}: abnormal samples above the line, normal ones below."
    chart = new_chart(name, title, about, "image score", "normal | abnormal")
    for kind, style in (
        ("abnormal", {"color": LIGHT_THEME["c1"]}),
        ("normal", {"facecolor": "none", "edgecolor": INK}),
    ):
        values = np.asarray(score)[np.asarray(label, bool) == (kind == "abnormal")]
        counts, edges = np.histogram(values, BINS, (min(score), max(score)))
        shares = counts / counts.sum() * (1 if kind == "abnormal" else -1)
        bars = chart.axes.bar(edges[:-1], shares, np.diff(edges) * 0.92, align="edge", **style)
        for i, bar in enumerate(bars):
            bar.set_gid(f"{kind}-{i}")
            if counts[i]:
                interval = f"{edges[i]:.4g} to {edges[i + 1]:.4g}"
                chart.tooltips[f"{kind}-{i}"] = f"{counts[i]} {kind} samples score {interval}"
            else:
                bar.set_visible(False)
    chart.axes.axhline(0, color=FAINT, linewidth=1)
    chart.axes.set_yticks([])
    return chart


def _draw_interval(chart: Chart, k: int, group: SeedGroup, metric: str, x: float) -> None:
    if interval := group.interval(metric):
        text = f"{number_text(interval[0])} to {number_text(interval[1])}"
        draw_interval(chart, k, x, *interval, f"{group.name}: 95 % interval {text}")
