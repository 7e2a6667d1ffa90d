"""A contact sheet: small prints of many test samples, the same ones for every method.

A report has no maps, only pictures, and which samples methods disagree on is known only once all of
them have run, perhaps days apart. So each run prints the same samples, chosen by their names alone,
and the report picks among these (disagree.py). A gallery of six would leave it nothing to pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from ..evaluation.metrics.connected_components import Array
from .sample_sheet import DisplayedSample, middle_slice

MAX_SAMPLES = 32
"""Samples on a sheet, two thirds of them abnormal where there are so many."""
THUMBNAIL_SIDE = 96
"""Pixels across a print, at most: larger images are averaged down by a whole factor."""


def choose_samples(keys: Sequence[str], label: Array) -> list[int]:
    """Up to MOST samples in the order of the split, by a hash of their keys: whoever else is in the
    split, and in what order, hardly matters."""
    order = sorted(range(len(keys)), key=lambda i: blake2b(keys[i].encode()).digest())
    abnormal, normal = ([i for i in order if bool(label[i]) == kind] for kind in (True, False))
    many = max(MAX_SAMPLES * 2 // 3, MAX_SAMPLES - len(normal))
    abnormal = abnormal[:many]
    return sorted(abnormal + normal[: MAX_SAMPLES - len(abnormal)])


def thumbnail(sample: DisplayedSample) -> DisplayedSample:
    """One channel of a sample, one slice of a volume, no more than SIDE across; true places are
    those with any in them."""
    sample = middle_slice(sample, 0)
    by = -(-max(sample.x.shape) // THUMBNAIL_SIDE)

    def mean(values: Array | None) -> Array | None:
        return None if values is None else _block_mean(values.astype(np.float64), by).mean((1, 3))

    def some(places: Array | None) -> Array | None:
        return None if places is None else _block_mean(places > 0, by).max((1, 3))

    x, roi = mean(sample.x), some(sample.roi)
    assert x is not None
    return replace(
        sample, x=x[None], map=mean(sample.map), mask=some(sample.mask), roi=roi,
        reconstruction=None, counterpart=None,
    )  # fmt: skip


def _block_mean(values: Array, by: int) -> Array:
    """(H, W) to (H / by, by, W / by, by); the last row and column are repeated to fit."""
    high, wide = values.shape
    padded = np.pad(values, ((0, -high % by), (0, -wide % by)), mode="edge")
    return padded.reshape(padded.shape[0] // by, by, padded.shape[1] // by, by)
