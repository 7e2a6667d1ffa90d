"""How a method's metric changes with the share of training patients and with contamination."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .records import Record, metric_value
from .seed_groups import mean_with_interval

AXES = {
    "fraction": "share of the training patients",
    "contamination": "share of abnormal samples among those for training",
}
"""What is changed in training, by the name of the field of a record."""


class CurvePoint(NamedTuple):
    """A metric of a method that was trained on one share.

    share: in percent      value: the mean over seeds
    low, high: the interval; None where there is none
    seeds: how many

    >>> from adbench.benchmark.leaderboard.training_curves import CurvePoint
    >>> CurvePoint(30.0, 0.5, 0.4, 0.6, seeds=1).share
    30.0
    """

    share: float
    value: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class TrainingCurve:
    """A metric of a method over one of the AXES.

    label: of the method, and of the other share where it is not that of a usual training
    axis: fraction or contamination
    points: two or more, ascending by share

    >>> from adbench.benchmark.leaderboard.training_curves import CurvePoint, TrainingCurve
    >>> points = [CurvePoint(share, share / 200, None, None, 1) for share in (10.0, 100.0)]
    >>> TrainingCurve("PCA", "fraction", points).points[-1].value
    0.5
    """

    label: str
    axis: str
    points: Sequence[CurvePoint]


def training_curve_data(records: Sequence[Record], metric: str) -> list[TrainingCurve]:
    """Return the metric of each method that was trained on several shares, by the share.

    Records that differ in anything else, or in both shares, are not compared. Intervals are those
    of `mean_with_interval`.

    metric: its name in a record

    >>> from adbench.benchmark.leaderboard.training_curves import training_curve_data
    >>> method = {"name": "pca", "label": "PCA", "args": {}}
    >>> records = [{"method": method, "profile": "tiny", "training": {"fraction": percent},
    ...             "metrics": {"pixel_ap": {"value": percent / 200, "low": 0.0, "high": 0.6}}}
    ...            for percent in (100, 10)]
    >>> (curve,) = training_curve_data(records, "pixel_ap")
    >>> [(point.share, point.value, point.high) for point in curve.points]
    [(10.0, 0.05, 0.6), (100.0, 0.5, 0.6)]
    """
    curves = []
    for axis in AXES:
        members: dict[str, dict[float, list[Record]]] = {}
        labels: dict[str, str] = {}
        for record in records:
            method = record["method"]
            if metric_value(record, metric) is None:
                continue
            training = record.get("training") or {}
            shares = {
                name: float(training.get(name, usual))
                for name, usual in (("fraction", 100), ("contamination", 0))
            }
            share = shares.pop(axis)
            others = [method["name"], method["args"], record["profile"], shares]
            key = json.dumps(others, sort_keys=True)
            labels[key] = method["label"]
            if axis == "contamination" and shares["fraction"] != 100:
                labels[key] += f" on {shares['fraction']:g} % of training"
            if axis == "fraction" and shares["contamination"]:
                labels[key] += f" {shares['contamination']:g} % contaminated"
            members.setdefault(key, {}).setdefault(share, []).append(record)
        for key, by_share in members.items():
            if len(by_share) > 1:
                points = [_point(share, by_share[share], metric) for share in sorted(by_share)]
                curves.append(TrainingCurve(labels[key], axis, points))
    return curves


def _point(share: float, records: Sequence[Record], metric: str) -> CurvePoint:
    mean = mean_with_interval(records, metric)
    assert mean is not None  # records without the metric have no curve
    return CurvePoint(share, *mean)


def training_curves(records: Sequence[Record], metric: str, title: str) -> list[str]:
    """A line for each curve of `training_curve_data`: the metric at each share, ascending.

    metric, title: the name of the metric in a record and in words

    >>> from adbench.benchmark.leaderboard.training_curves import training_curves
    >>> method = {"name": "pca", "label": "PCA", "args": {}}
    >>> records = [{"method": method, "profile": "tiny", "training": {"fraction": percent},
    ...             "metrics": {"pixel_ap": {"value": percent / 200}}} for percent in (100, 10)]
    >>> training_curves(records, "pixel_ap", "pixel AP")
    ['PCA, pixel AP by share of the training patients: 0.050 at 10 %, 0.500 at 100 %.']
    """
    lines = []
    for curve in training_curve_data(records, metric):
        points = ", ".join(f"{point.value:.3f} at {point.share:g} %" for point in curve.points)
        lines.append(f"{curve.label}, {title} by {AXES[curve.axis]}: {points}.")
    return lines
