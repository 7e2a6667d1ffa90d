"""Plots of results with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..leaderboard.columns import TITLES
from ..leaderboard.entry_names import entry_names
from ..leaderboard.pairwise import DEFAULT_METRICS
from ..leaderboard.records import Record, ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_levels(records: Sequence[Record], metric: str | None, axes: Axes | None) -> Axes:
    """Plot a metric on test over the noise level, a line per record, and return the axes.

    Arguments are those of Results.plot_levels.

    Raises ReportError where no record has the metric over levels.

    >>> from matplotlib.figure import Figure
    >>> from adbench.benchmark.api.plots import plot_levels
    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> axes = plot_levels(example_records(), "image_auroc", Figure().add_subplot())
    >>> [line.get_label() for line in axes.get_lines()]
    ['AnoDDPM, brats, seed 0', 'pDDPM, brats, seed 0']
    >>> axes.get_lines()[0].get_ydata().round(2).tolist()
    [0.72, 0.9, 0.81]
    """
    curves = {}
    done = [record for record in records if record["status"] == "ok"]
    for candidate in DEFAULT_METRICS if metric is None else (metric,):
        curves = {id(record): _curve(record, candidate) for record in done}
        metric = candidate
        if any(curves.values()):
            break
    if metric is None or not any(curves.values()):
        raise ReportError(
            f"no record has {metric!r} over its noise levels; try {' or '.join(DEFAULT_METRICS)}"
        )
    if axes is None:
        from matplotlib import pyplot

        axes = pyplot.subplots(layout="constrained")[1]
    names = entry_names(done)
    for record in done:
        if not (curve := curves[id(record)]):
            continue
        label = f"{names[id(record)]}, {record['dataset']['name']}, seed {record['seed']}"
        if [level for level, _ in curve] == [0]:
            axes.axhline(curve[0][1], linestyle=":", label=label)
            continue
        axes.plot(
            *zip(*curve, strict=True),
            marker="o",
            markersize=4,
            label=label,
            markevery=[
                i for i, (level, _) in enumerate(curve) if level == record["level"]["chosen"]
            ],
        )
    axes.set(xlabel="noise level (of 1000)", ylabel=TITLES.get(metric, metric))
    axes.legend(fontsize="small")
    return axes


def _curve(record: Record, metric: str) -> list[tuple[int, float]]:
    """(level, value on test), by level."""
    values = {
        int(level): splits["test"].get(metric)
        for level, splits in (record.get("sweep") or {}).items()
    }
    return sorted((level, value) for level, value in values.items() if value is not None)
