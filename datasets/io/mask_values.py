"""What the numbers of a mask mean: 0 normal, one other number abnormal, and a number to ignore.

Two conventions mark pixels that nobody judged: -1, and 255 beside 1. They count neither as normal
nor as abnormal: they are left out of the region in which a sample is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import h5py
import numpy as np

from .hdf5_arrays import Array

SLAB_BYTES = 16 << 20
"""Bytes of a dataset that are read at a time."""

MAX_DISTINCT = 16
"""Distinct numbers after which no more are looked for: no mask holds as many."""

WHOLE_TOLERANCE = 1e-3
"""How far float16 and resampling in place may move a whole number."""


def are_whole_numbers(raw: Array) -> bool:
    """Return whether flags are whole numbers, within 1e-3 for float16 and resampling in place.

    raw: mask or roi as stored

    >>> are_whole_numbers(np.array([0.0, 0.9999])), are_whole_numbers(np.array([0.5]))
    (True, False)
    """
    return raw.dtype.kind != "f" or bool((np.abs(raw - np.rint(raw)) <= WHOLE_TOLERANCE).all())


def read_distinct_numbers(stored: h5py.Dataset) -> set[int]:
    """Return the distinct whole numbers of a dataset of masks, at least 16 if there are more.

    stored: (N, ...) of any numbers; fractions and NaN are passed over

    >>> with h5py.File("masks.h5", "w") as file:
    ...     file["mask"] = np.array([[0, 1], [-1, 0]], np.int8)
    ...     sorted(read_distinct_numbers(file["mask"]))
    [-1, 0, 1]
    """
    numbers = set[int]()
    step = max(1, SLAB_BYTES // max(1, prod(stored.shape[1:]) * stored.dtype.itemsize))
    for start in range(0, stored.shape[0], step):
        values = np.unique(stored[start : start + step])
        if values.dtype.kind == "f":
            values = values[np.abs(values - np.rint(values)) <= WHOLE_TOLERANCE]
        numbers |= {int(value) for value in np.unique(np.rint(values))}
        if len(numbers) >= MAX_DISTINCT:
            break
    return numbers


def ignored_numbers(numbers: Mapping[str, set[int]]) -> frozenset[int]:
    """Return the numbers that mark what nobody judged: -1, and 255 where a file has 1, too.

    numbers: distinct numbers of the masks by file; one convention holds for all files

    >>> sorted(ignored_numbers({"a.h5": {0, 1, 255}})), sorted(ignored_numbers({"a.h5": {0, 255}}))
    ([-1, 255], [-1])
    """
    return frozenset({-1, 255} if any({1, 255} <= values for values in numbers.values()) else {-1})


def mask_number_problems(
    numbers: Mapping[str, set[int]], ignored: frozenset[int], role: str
) -> list[str]:
    """Return a problem for each file whose masks hold more than 0, one other number, and ignored
    ones.

    numbers: distinct numbers of the masks by file
    ignored: from `ignored_numbers`; empty for a region
    role: what the masks are in errors, such as "mask"

    >>> mask_number_problems({"a.h5": {0, 1, 2}}, frozenset({-1}), "mask")
    ['a.h5: mask holds 0, 1, 2; it may hold 0, one other number, and -1 or 255 for not judged']
    """
    beside = ", and -1 or 255 for not judged" if ignored else " above it"
    problems = []
    for name, values in numbers.items():
        flags = values - ignored - {0}
        if len(flags) > 1 or min(flags, default=1) < 0 or len(values & ignored) > 1:
            listed = ", ".join(map(str, sorted(values)[:8])) + (", ..." if len(values) > 8 else "")
            problems.append(
                f"{name}: {role} holds {listed}; it may hold 0, one other number{beside}"
            )
    return problems
