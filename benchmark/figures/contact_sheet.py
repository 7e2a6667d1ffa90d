"""A contact sheet: thumbnails of many test samples, the same ones for every method.

A report has no maps, only images, and which samples methods disagree on is known only once all of
them have run, perhaps days apart. So each run draws the same samples, chosen by their names alone,
and the report chooses among these (report/html/disagreements.py), for which six are too few.
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
    """Choose up to 32 samples by a hash of their keys, and return their indices in order.

    The choice hardly depends on which other samples are in the split, or on their order. Two thirds
    are abnormal where there are so many.

    keys, label: (N,) of the samples

    >>> import numpy as np
    >>> from adbench.benchmark.figures.contact_sheet import choose_samples
    >>> chosen = choose_samples([f"s{i}" for i in range(100)], np.arange(100) < 50)
    >>> len(chosen), sum(i < 50 for i in chosen)
    (32, 21)
    """
    order = sorted(range(len(keys)), key=lambda i: blake2b(keys[i].encode()).digest())
    abnormal, normal = ([i for i in order if bool(label[i]) == kind] for kind in (True, False))
    many = max(MAX_SAMPLES * 2 // 3, MAX_SAMPLES - len(normal))
    abnormal = abnormal[:many]
    return sorted(abnormal + normal[: MAX_SAMPLES - len(abnormal)])


def thumbnail(sample: DisplayedSample) -> DisplayedSample:
    """Return one channel of a sample, of a volume one slice, of at most 96 pixels a side.

    Pixels are averaged over blocks; a pixel of the mask is set where any that it averages is.

    >>> import numpy as np
    >>> from adbench.benchmark.figures.contact_sheet import thumbnail
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample
    >>> mask = np.zeros((192, 96), bool)
    >>> mask[0, 0] = True
    >>> small = thumbnail(DisplayedSample("a", np.full((1, 192, 96), 0.5), mask=mask))
    >>> small.x.shape, float(small.x.mean()), int(small.mask.sum())
    ((1, 96, 48), 0.5, 1)
    """
    sample = middle_slice(sample, 0)
    by = -(-max(sample.x.shape) // THUMBNAIL_SIDE)

    def mean(values: Array | None) -> Array | None:
        return None if values is None else _block_mean(values.astype(np.float64), by).mean((1, 3))

    def some(pixels: Array | None) -> Array | None:
        return None if pixels is None else _block_mean(pixels > 0, by).max((1, 3))

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
