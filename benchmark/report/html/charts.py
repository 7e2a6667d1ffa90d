"""The charts of a board: metric over noise level, quality over cost, scores of each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...leaderboard.columns import TITLES
from ...leaderboard.entry import Entry
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import metric_value, number_text
from .svg import (
    BOTTOM,
    HIGH,
    STYLES,
    TOP,
    Bar,
    Chart,
    Line,
    Mark,
    Tick,
    across,
    apart,
    letter,
    polyline,
    upward,
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


def sweep_charts(board: Leaderboard) -> list[Chart]:
    """A chart for each metric and split that any method was swept over."""
    return [chart for metric, part in SWEEP_METRICS if (chart := _sweep_chart(board, metric, part))]


def _sweep_chart(board: Leaderboard, metric: str, part: str) -> Chart | None:
    found = {k: _points(row, metric, part) for k, row in enumerate(board.done)}
    found = {k: points for k, points in found.items() if points}
    if not any(len(points) > 1 for points in found.values()):
        return None
    chance = _chance(board, metric)
    values = [v for points in found.values() for _, v in points]
    bounds = [
        bound
        for k in found
        for bound in (metric_value(board.done[k].record, metric, p) for p in ("low", "high"))
        if bound is not None and part == "test"
    ]
    swept = [level for points in found.values() for level, _ in points if level]
    x, y = across(swept), upward([*values, *bounds, *([] if chance is None else [chance])])
    lines = []
    for k, points in found.items():
        row = board.done[k]
        flat = [level for level, _ in points] == [0]
        places = [(x.at(level), y.at(value)) for level, value in points]
        if flat:  # a method without a noise level, a baseline: the same at each
            places = [(x.start, places[0][1]), (x.end, places[0][1])]
        marks = [] if flat else _marks(row, dict(points), x.at, y.at)
        chosen = next((mark for mark in marks if mark.shape == "chosen"), None)
        bars = [_interval(row, metric, chosen.x, y.at)] if chosen and part == "test" else []
        lines.append(
            Line(letter(k), k % STYLES, polyline(places), marks, [b for b in bars if b], places[-1])
        )
    return Chart(
        f"{TITLES[metric]} on {SPLITS[part]}",
        f"{TITLES[metric]} on {SPLITS[part]} over the noise level, a line for each method.",
        "noise level (1 to 1000)",
        TITLES[metric],
        _thin_ticks([Tick(x.at(level), str(level)) for level in sorted(set(swept))]),
        y.ticks(),
        with_letters(lines),
        None if chance is None else Tick(y.at(chance), f"chance {number_text(chance)}"),
    )


def _points(row: Entry, metric: str, part: str) -> list[tuple[int, float]]:
    sweep = row.record.get("sweep") or {}
    points = [
        (int(level), (figures.get(part) or {}).get(metric)) for level, figures in sweep.items()
    ]
    return sorted((level, value) for level, value in points if value is not None)


def _marks(row: Entry, points: Mapping[int, float], x: Any, y: Any) -> list[Mark]:
    found = []
    for shape in ("oracle", "published", "chosen"):
        level = row.record["level"].get(shape)
        if level in points:
            title = f"{row.name}, {shape} level {level}: {number_text(points[level])}"
            found.append(Mark(x(level), y(points[level]), shape, title))
    return found


def _chance(board: Leaderboard, metric: str) -> float | None:
    """What guessing has."""
    if metric == "image_auroc":
        return 0.5
    return next((row.record["reference"].get("prevalence") for row in board.done), None)


def _thin_ticks(ticks: Sequence[Tick], least: float = 28.0) -> list[Tick]:
    """Of ticks from left to right those whose words do not touch."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick.at - kept[-1].at >= least:
            kept.append(tick)
    return kept


def cost_charts(board: Leaderboard) -> list[Chart]:
    """The figure that a board is sorted by over what it costs, a chart for each price."""
    return [chart for price in COST_AXES if (chart := _cost_chart(board, price))]


def _cost_chart(board: Leaderboard, price: str) -> Chart | None:
    metric = board.metric
    known = [
        (k, row, cost, value)
        for k, row in enumerate(board.done)
        for cost in [(row.record.get("cost") or {}).get(price)]
        for value in [row.value(metric)]
        if cost is not None and value is not None
    ]
    if not any(cost > 0 for _, _, cost, _ in known):
        return None
    front = set(pareto_front([(cost, value) for _, _, cost, value in known]))
    bounds = [
        b
        for _, row, _, _ in known
        for b in (metric_value(row.record, metric, part) for part in ("low", "high"))
        if b is not None
    ]
    x = across([cost for _, _, cost, _ in known], log=True)
    y = upward([*(value for *_, value in known), *bounds])
    title = TITLES.get(metric, metric)
    lines = []
    for i, (k, row, cost, value) in enumerate(known):
        here = x.at(cost), y.at(value)
        said = f"{row.name}: {title} {number_text(value)} at {cost:.4g} {COST_AXES[price]}"
        best = ", on the front: nothing cheaper is as good" if i in front else ""
        mark = Mark(*here, "front" if i in front else "dot", said + best)
        bar = _interval(row, metric, here[0], y.at)
        lines.append(Line(letter(k), k % STYLES, "", [mark], [bar] if bar else [], here))
    return Chart(
        f"{title} over {COST_AXES[price]}",
        f"{title} over {COST_AXES[price]}; a ring marks what nothing cheaper is as good as.",
        f"{COST_AXES[price]} (logarithmic)",
        title,
        x.ticks(),
        y.ticks(),
        with_letters(lines),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of points (cost, value) those that no other beats in one and equals in the other."""
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


def score_histogram(name: str, score: Sequence[float], label: Sequence[bool]) -> Chart | None:
    """Scores of abnormal samples above the line, of normal ones below it; as shares of each."""
    if not score or min(score) == max(score) or len(set(label)) < 2:
        return None
    x = across(score)
    middle, tall = (TOP + HIGH - BOTTOM) / 2, (HIGH - BOTTOM - TOP) / 2
    counts = [[0] * BINS, [0] * BINS]
    for value, abnormal in zip(score, label, strict=True):
        share = (value - x.low) / (x.high - x.low)
        counts[bool(abnormal)][min(BINS - 1, int(share * BINS))] += 1
    top = max(c / sum(side) for side in counts for c in side)
    wide = (x.end - x.start) / BINS
    bars = []
    for abnormal, side in enumerate(counts):
        what = "abnormal" if abnormal else "normal"
        for k, count in enumerate(side):
            high = round(tall * count / sum(side) / top, 1)
            edge = middle - high if abnormal else middle
            low, end = (x.low + (k + d) * (x.high - x.low) / BINS for d in (0, 1))
            said = f"{count} {what} samples score {low:.4g} to {end:.4g}"
            bars.append(
                Bar(round(x.start + k * wide, 1), edge, round(wide - 1, 1), high, said, what)
            )
    return Chart(
        name,
        f"Image scores of {name}: abnormal samples above the line, normal ones below.",
        "image score",
        "normal | abnormal",
        x.ticks(),
        [],
        [Line("", 0, bars=[bar for bar in bars if bar.high])],
        Tick(middle, ""),
    )


def _interval(row: Entry, metric: str, x: float, y: Any) -> Bar | None:
    low, high = (metric_value(row.record, metric, part) for part in ("low", "high"))
    if low is None or high is None:
        return None
    return Bar(
        x,
        y(high),
        0,
        round(y(low) - y(high), 1),
        f"{row.name}: 95 % interval {number_text(low)} to {number_text(high)}",
    )


def with_letters(lines: Sequence[Line]) -> list[Line]:
    """With their letters beside their ends, moved apart."""
    heights = apart([line.label[1] if line.label else TOP for line in lines])
    return [
        replace(line, label=(line.label[0] + 10, height)) if line.label else line
        for line, height in zip(lines, heights, strict=True)
    ]
