"""Windows of time series: where they lie, and values scaled by the training part of the series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..base import Sample
from ..io.hdf5_arrays import Array


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the first steps of windows that cover a series, the last one ending with it.

    length: steps of the series, at least window
    window: steps of each window
    stride: steps between the starts of neighbouring windows

    >>> window_starts(10, 4, 4)
    [0, 4, 6]
    """
    starts = list(range(0, length - window + 1, stride))
    return starts if starts[-1] == length - window else [*starts, length - window]


def scale_by_training(values: Array, training: Array, margin: float) -> tuple[Array, int]:
    """Return a series as float32 in 0..1, and how many of its values were cut off.

    Each channel's smallest training value becomes margin / (1 + 2 margin) and its largest
    1 - margin / (1 + 2 margin), so that values beyond by up to margin times the training range are
    seen; a channel that is constant in training is shifted to 0.5 and not scaled.

    values, training: (C, L) of the series and of its training part
    margin: share of the training range on either side

    >>> training = np.array([[0.0, 10.0]])
    >>> scale_by_training(np.array([[0.0, 5.0, 10.0, 15.0, 99.0]]), training, margin=0.5)
    (array([[0.25, 0.5 , 0.75, 1.  , 1.  ]], dtype=float32), 1)
    """
    low = training.min(1, keepdims=True)
    extent = np.ptp(training, axis=1, keepdims=True)
    constant = extent == 0
    extent = np.where(constant, 1.0, extent)
    share = ((values - low) / extent + margin) / (1 + 2 * margin)
    scaled = np.where(constant, 0.5 + values - low, share)
    outside = int(((scaled < 0) | (scaled > 1)).sum())
    return np.clip(scaled, 0, 1).astype(np.float32), outside


def window_samples(
    values: Array,
    anomaly: Array | None,
    starts: Sequence[int],
    window: int,
    *,
    name: str,
    group: str,
    tags: dict[str, str],
) -> list[Sample]:
    """Return a sample for each window; a step in two windows is evaluated in the first alone.

    values: (C, L) float32 in 0..1
    anomaly: (L,) bool, true where abnormal; None of a series that nobody evaluates
    starts: of `window_starts`
    window: steps of each
    name: of the series; keys are name/first step
    group: of all samples
    tags: of all samples

    >>> values = np.zeros((1, 6), np.float32)
    >>> anomaly = np.arange(6) == 3
    >>> first, last = window_samples(values, anomaly, [0, 2], 4, name="a", group="a", tags={})
    >>> first.label, last.label, last.roi
    (True, False, tensor([False, False,  True,  True]))
    """
    samples, evaluated = [], 0
    for start in starts:
        end = start + window
        roi = torch.arange(start, end) >= evaluated
        mask = None if anomaly is None else torch.from_numpy(anomaly[start:end].copy()) & roi
        samples.append(
            Sample(
                x=torch.from_numpy(values[:, start:end].copy()),
                key=f"{name}/{start:07d}",
                group=group,
                label=mask is not None and bool(mask.any()),
                mask=mask,
                roi=None if bool(roi.all()) else roi,
                tags=tags,
            )
        )
        evaluated = end
    return samples
