"""The range of stored numbers that becomes 0..1, one for a whole dataset.

One scale for all samples keeps their amplitudes, which are an anomaly's first cue; a scale of each
sample's own removes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta

from ..base import DataError
from .hdf5_arrays import Array


def parse_range(value: str | Sequence[float] | None) -> list[float] | str | None:
    """Return a range as [low, high], "train" for that of the training samples, or None.

    value: "train", two numbers, or both as text, such as "0,4095"

    Raises ValueError for anything else.

    >>> parse_range("0,4095"), parse_range([-1, 1]), parse_range("train")
    ([0.0, 4095.0], [-1.0, 1.0], 'train')
    """
    if value is None or value == "train":
        return value if value is None else "train"
    try:
        parts = value.split(",") if isinstance(value, str) else value
        low, high = (float(part) for part in parts)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"range is LOW,HIGH (two numbers, the first smaller) or train, not {value!r}"
        ) from None
    return [low, high]


def _is_range(value: str | Sequence[float]) -> bool:
    try:
        parse_range(value)
    except ValueError:
        return False
    return True


_RULE = {"check": _is_range, "words": "that is 'train' or LOW,HIGH such as 0,4095"}
ValueRange = Annotated[
    str | Sequence[Annotated[float, Meta(description="any number")]], Meta(extra=_RULE)
]
"""The type of a setting that `parse_range` reads."""


def measure_range(samples: Iterable[Array], name: str) -> tuple[float, float]:
    """Return the smallest and the largest finite number of all samples.

    samples: real numbers of any shape, one sample after another
    name: of the dataset in errors

    Raises DataError if there are none, or only one.

    >>> measure_range([np.array([1.0, np.nan]), np.array([-2.0, 3.0])], "mine")
    (-2.0, 3.0)
    """
    low, high = math.inf, -math.inf
    for values in samples:
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if not low < high:
        finding = f"only the number {low:g}" if low == high else "no readable numbers"
        raise DataError(f"dataset '{name}': range=train finds {finding} in its training samples")
    return low, high


def scale_to_limits(values: Array, limits: tuple[float, float]) -> tuple[Array, int]:
    """Return values with the limits as 0 and 1, and how many beyond them were cut off.

    What is exactly 0 is outside of what is shown (skull-stripped scans, padding): it stays 0.

    values: real numbers of any shape
    limits: the stored numbers that become 0 and 1

    >>> scaled, outside = scale_to_limits(np.array([0.0, -1.0, 1.0, 5.0]), (-1.0, 3.0))
    >>> scaled.tolist(), outside
    ([0.0, 0.0, 0.5, 1.0], 1)
    """
    (low, high), inside = limits, values != 0
    outside = int((inside & ((values < low) | (values > high))).sum())
    scaled = ((values.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    return np.where(inside, scaled, np.float32(0)), outside


def outside_range_text(limits: tuple[float, float]) -> str:
    """Return how values that were cut off are counted in a dataset's notes.

    limits: what became 0 and 1

    >>> outside_range_text((0.0, 4095.0))
    'values outside range=0,4095 that were cut off'
    """
    return f"values outside range={limits[0]:g},{limits[1]:g} that were cut off"
