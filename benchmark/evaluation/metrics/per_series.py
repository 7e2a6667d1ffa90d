"""Metrics of ranges of one series at a time, of which papers on time series report the mean.

A series is all steps of one group: the windows of a recording in their order, or a single window.
Only series with an anomaly count, as in TSB-AD (Liu and Paparrizos, NeurIPS 2024): a series without
one has no ranges to find.

Letters: N samples, P steps within the regions of interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from .connected_components import Array
from .per_volume import samples_of_volumes
from .pixel_scores import Pixels
from .range_based import point_adjusted_f1, range_auc, ranges_of, volume_under_surface

SERIES_METRICS = ("range_auc_roc", "range_auc_pr", "vus_roc", "vus_pr", "pa_f1_oracle",
    "pa_f1_random")  # fmt: skip

MAX_BUFFER = 100
"""The largest buffer of a range, in steps: about the period of the series of TSB-AD."""


def largest_buffer(pixels: Pixels, groups: Sequence[str]) -> int:
    """Return the buffer of R-AUC, which is the largest of VUS: the median length of the anomalous
    ranges of all series, at most MAX_BUFFER steps; 0 without a range.

    It depends on the ground truth alone, so it is the same for every method.

    groups: (N,) of each sample

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_series import largest_buffer
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> truth = np.repeat([[False, True, False]], 8, axis=1)
    >>> largest_buffer(PixelScores.from_maps(truth.astype(float), truth), ["a"])
    8
    """
    lengths = [
        last + 1 - first
        for members in samples_of_volumes(groups)
        for first, last in ranges_of(pixels.take(members).truth)
    ]
    return min(int(np.median(lengths)), MAX_BUFFER) if lengths else 0


def per_series_metrics(pixels: Pixels, groups: Sequence[str]) -> dict[str, Array]:
    """Metrics of ranges of each series by itself, (N,) each, in 0..1; higher is better.

    The value of a series stands at its first sample, with NaN at its others, so that a mean over
    samples is one over series. Series in which no or every step is anomalous are NaN.

    groups: (N,) of each sample

    range_auc_roc, range_auc_pr: `range_auc` at `largest_buffer`
    vus_roc, vus_pr: `volume_under_surface` up to it
    pa_f1_oracle: the best point-adjusted F1, a bound and no result: it looks at the truth, and
        random scores come close to 1 by it
    pa_f1_random: that of random scores on the same series

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_series import per_series_metrics
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> truth = np.repeat([[False, True, False], [False, False, False]], 8, axis=1)
    >>> metrics = per_series_metrics(PixelScores.from_maps(truth.astype(float), truth), ["a", "b"])
    >>> metrics["pa_f1_oracle"].tolist(), bool(metrics["vus_pr"][0] > 0.9)
    ([1.0, nan], True)
    """
    metrics = {name: np.full(len(pixels.counts), np.nan) for name in SERIES_METRICS}
    buffer = largest_buffer(pixels, groups)
    for members in samples_of_volumes(groups):
        first, series = members[0], pixels.take(members)
        score, truth = series.score, series.truth
        area = range_auc(score, truth, buffer)
        volume = volume_under_surface(score, truth, buffer)
        adjusted = point_adjusted_f1(score, truth, _random_scores(groups[first]))
        if area is None or volume is None or adjusted is None:
            continue
        for name, value in zip(SERIES_METRICS, (*area, *volume, *adjusted), strict=True):
            metrics[name][first] = value
    return metrics


def _random_scores(group: str) -> np.random.Generator:
    """The stream of a series' random scores, the same for every method."""
    digest = blake2b(f"point-adjusted F1 of {group}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
