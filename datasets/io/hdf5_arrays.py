"""Reading a user's HDF5 files: arrays of samples, and their values scaled to 0..1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ..base import DataError

Array = NDArray[Any]
Scale = Literal["range", "minmax", "p1p99"]


@contextmanager
def open_hdf5(path: Path, name: str) -> Iterator[h5py.File]:
    """A user's file, open to be read. Whatever HDF5 makes of a damaged one is one DataError.

    name: what errors call it
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0].strip("'\"")
        raise DataError(f"{name} is truncated, corrupt or no HDF5 file ({reason})") from error


def require_dataset(file: h5py.File, dataset: str, name: str) -> h5py.Dataset:
    """A dataset of a file, or a DataError that says which there are."""
    if dataset in file:
        node = file[dataset]
        if isinstance(node, h5py.Dataset):
            return node
    available = ", ".join(sorted(str(key) for key in file)) or "nothing"
    raise DataError(f"{name} holds no dataset {dataset!r} (there is {available})")


def scale_to_unit_range(
    values: Array, scale: Scale, name: str, inside: Array | None = None
) -> tuple[Array, bool]:
    """Values as float32 in 0..1, and whether they are all one (then they become 0).

    scale: "range", integers by the ends of their type, and floats must lie in 0..1 already;
        "minmax" or "p1p99", each sample by its own least and greatest value, or percentiles
    inside: (*S) bool, of which voxels; None for all
    Raises DataError on what has no known range.
    """
    if np.issubdtype(values.dtype, np.complexfloating):
        raise DataError(f"{name} is complex: store real and imaginary part as two channels")
    if values.dtype.kind not in "buif":
        raise DataError(f"{name} holds {values.dtype}, no numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        nans = int(np.isnan(values).sum())
        finding = f"{nans} NaN" if nans else f"{int(np.isinf(values).sum())} inf"
        raise DataError(f"{name} holds {finding} (nan='zero' takes NaN for 0)")
    minimum, largest = float(values.min()), float(values.max())
    if minimum == largest:
        return np.zeros(values.shape, np.float32), True
    if scale != "range":
        values = values.astype(np.float64)
        region = values if inside is None or not inside.any() else values[:, inside]
        low, high = (
            np.percentile(region, (1, 99)) if scale == "p1p99" else (region.min(), region.max())
        )
        if low == high:
            return np.zeros(values.shape, np.float32), True
        return np.clip((values - low) / (high - low), 0, 1).astype(np.float32), False
    maximum = 1.0
    if values.dtype.kind in "ui":
        if values.dtype.itemsize > 2:
            raise DataError(
                f"{name} holds {values.dtype}: of what range? (scale='minmax', or uint16)"
            )
        maximum = float(np.iinfo(values.dtype).max)
    if minimum < 0 or largest > maximum:
        raise DataError(
            f"{name} lies in {minimum:g}..{largest:g}, outside 0..{maximum:g} (scale='minmax' or "
            "'p1p99' scales each sample by itself)"
        )
    return (values.astype(np.float32) / np.float32(maximum)), False
