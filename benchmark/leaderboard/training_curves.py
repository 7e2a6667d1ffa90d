"""How a method's metric changes with the share of training patients and with contamination."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from .records import Record, metric_value

AXES = {
    "fraction": "share of the training patients",
    "contamination": "share of abnormal samples among those for training",
}
"""What is changed in training, by the name of the field of a record."""


def training_curves(records: Sequence[Record], metric: str, title: str) -> list[str]:
    """A line for each method that was trained on several shares: the metric at each, ascending.

    Means over seeds. Records that differ in anything else, or in both shares, are not compared.

    metric, title: the name of the metric in a record and in words

    >>> from adbench.benchmark.leaderboard.training_curves import training_curves
    >>> method = {"name": "pca", "label": "PCA", "args": {}}
    >>> records = [{"method": method, "profile": "tiny", "training": {"fraction": percent},
    ...             "metrics": {"pixel_ap": {"value": percent / 200}}} for percent in (100, 10)]
    >>> training_curves(records, "pixel_ap", "pixel AP")
    ['PCA, pixel AP by share of the training patients: 0.050 at 10 %, 0.500 at 100 %.']
    """
    lines = []
    for axis, words in AXES.items():
        curves: dict[str, dict[float, list[float]]] = {}
        labels: dict[str, str] = {}
        for record in records:
            value, method = metric_value(record, metric), record["method"]
            if value is None:
                continue
            shares = {"fraction": 100.0, "contamination": 0.0} | (record.get("training") or {})
            share = float(shares.pop(axis))
            others = [method["name"], method["args"], record["profile"], shares]
            key = json.dumps(others, sort_keys=True)
            labels[key] = method["label"]
            if axis == "contamination" and shares["fraction"] != 100:
                labels[key] += f" on {shares['fraction']:g} % of training"
            if axis == "fraction" and shares["contamination"]:
                labels[key] += f" {shares['contamination']:g} % contaminated"
            curves.setdefault(key, {}).setdefault(share, []).append(value)
        for key, values in curves.items():
            if len(values) > 1:
                points = ", ".join(
                    f"{statistics.fmean(values[share]):.3f} at {share:g} %"
                    for share in sorted(values)
                )
                lines.append(f"{labels[key]}, {title} by {words}: {points}.")
    return lines
