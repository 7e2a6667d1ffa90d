"""The error of pixel metrics that were read from bins, for there were too many pixels to sort."""

from __future__ import annotations

import math

from .records import Record, metric_value

BINNED_METRICS = ("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice_oracle")
"""Metrics of pixels that are sorted, or counted in bins where they are too many."""


def binning_error(record: Record, metric: str) -> float:
    """The largest error of a metric that was computed from a histogram; 0 for an exact one.

    >>> from adbench.benchmark.leaderboard.binning import binning_error
    >>> binning_error({"pixel_error": 1e-4}, "pixel_ap")
    0.0001
    >>> binning_error({"pixel_error": 1e-4}, "image_auroc")
    0.0
    """
    error = record.get("pixel_error")
    return error if metric in BINNED_METRICS and isinstance(error, int | float) else 0.0


def binning_error_text(record: Record, metric: str) -> str:
    """The error of a metric from a histogram, rounded up to one digit; empty for an exact one.

    >>> from adbench.benchmark.leaderboard.binning import binning_error_text
    >>> record = {"pixel_error": 3.2e-4, "metrics": {"pixel_ap": {"value": 0.5}}}
    >>> binning_error_text(record, "pixel_ap")
    ' ± 0.0004'
    """
    error = binning_error(record, metric)
    if error <= 0 or metric_value(record, metric) is None:
        return ""
    unit = 10.0 ** math.floor(math.log10(error))
    return f" ± {math.ceil(error / unit - 1e-9) * unit:.1g}"
