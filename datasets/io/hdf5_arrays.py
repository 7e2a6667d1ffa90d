"""Reading arrays of samples from a user's HDF5 files, and scaling their values to 0..1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ..base import DataError
from .hdf5_soundness import check_links, check_storage

Array = NDArray[Any]
Scale = Literal["range", "minmax", "p1p99"]


@contextmanager
def open_hdf5(path: Path, name: str) -> Iterator[h5py.File]:
    """Open a user's HDF5 file for reading; any HDF5 error within the context is one DataError.

    path: of the file
    name: of the file in errors

    >>> _ = Path("broken.h5").write_bytes(b"no HDF5")
    >>> with open_hdf5(Path("broken.h5"), "broken.h5") as file:
    ...     pass
    Traceback (most recent call last):
    adbench.datasets.base.DataError: broken.h5 is truncated, corrupt or no HDF5 file (...)
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0].strip("'\"")
        raise DataError(f"{name} is truncated, corrupt or no HDF5 file ({reason})") from error


def find_dataset(
    file: h5py.File, dataset: str, name: str, *, sparse: bool = False
) -> h5py.Dataset | None:
    """Return a dataset of a file, or None if there is none of that name.

    file: an open file
    dataset: name of the dataset
    name: of the file in errors
    sparse: accept parts that were never written, which are zeros

    Raises DataError if its values are not all in this file, or cannot be unpacked.

    >>> with h5py.File("arrays.h5", "w") as file:
    ...     file["x"] = [1, 2]
    ...     find_dataset(file, "x", "arrays.h5").shape, find_dataset(file, "y", "arrays.h5")
    ((2,), None)
    """
    check_links(file, dataset, name)
    if dataset not in file:
        return None
    stored = file[dataset]  # not .get, which takes a damaged entry for an absent one
    if not isinstance(stored, h5py.Dataset):
        return None
    check_storage(stored, dataset, name, sparse=sparse)
    return stored


def require_dataset(
    file: h5py.File, dataset: str, name: str, *, sparse: bool = False
) -> h5py.Dataset:
    """Return a dataset of a file. Raises DataError that lists the existing ones if it is missing.

    file, dataset, name, sparse: as for `find_dataset`, which it raises the errors of, too

    >>> with h5py.File("arrays.h5", "w") as file:
    ...     file["x"] = [1, 2]
    ...     require_dataset(file, "x", "arrays.h5").shape
    (2,)
    """
    stored = find_dataset(file, dataset, name, sparse=sparse)
    if stored is None:
        available = ", ".join(sorted(str(key) for key in file)) or "nothing"
        raise DataError(f"{name} holds no dataset {dataset!r} (there is {available})")
    return stored


def complex_fields(dtype: np.dtype) -> tuple[str, str] | None:
    """Return the field names of real and imaginary part of a compound type, or None.

    dtype: of a dataset

    >>> complex_fields(np.dtype([("real", "f4"), ("imag", "f4")]))
    ('real', 'imag')
    """
    for pair in (("r", "i"), ("real", "imag"), ("re", "im"), ("I", "Q")):
        if set(pair) == set(dtype.fields or ()) and all(dtype[part].kind in "iuf" for part in pair):
            return pair
    return None


def is_complex(dtype: np.dtype) -> bool:
    """Return whether a type is complex, as such or as a compound of its two parts.

    dtype: of a dataset

    >>> is_complex(np.dtype("c8")), is_complex(np.dtype([("x", "f4"), ("y", "f4")]))
    (True, False)
    """
    return dtype.kind == "c" or complex_fields(dtype) is not None


def real_and_imaginary(raw: Array) -> tuple[Array, Array]:
    """Return the two parts of complex numbers, or of a compound of them.

    raw: of a type that `is_complex`

    >>> real, imaginary = real_and_imaginary(np.array([1 + 2j]))
    >>> real.item(), imaginary.item()
    (1.0, 2.0)
    """
    if raw.dtype.kind == "c":
        return np.real(raw), np.imag(raw)
    real, imaginary = complex_fields(raw.dtype) or ("r", "i")
    return raw[real], raw[imaginary]


def scale_to_unit_range(
    values: Array,
    scale: Scale,
    name: str,
    inside: Array | None = None,
    limits: tuple[float, float] | None = None,
) -> tuple[Array, bool]:
    """Return values scaled to 0..1 as float32, and whether they are constant (then all are 0).

    values: (C, *S) real numbers
    scale: "range" divides integers by the maximum of their type, and floats must already lie in
        0..1; "minmax" or "p1p99" scale each sample by its minimum and maximum, or its 1st and 99th
        percentile
    name: of the sample in errors
    inside: (*S) bool, the voxels that minimum, maximum and percentiles are taken from; None for all
    limits: with "range", what becomes 0 and 1; values beyond them lie below 0 or above 1 then

    Raises DataError for complex numbers, NaN, inf, and values without a known range.

    >>> x, constant = scale_to_unit_range(np.array([[0, 51, 255]], np.uint8), "range", "a")
    >>> x.round(1).tolist(), constant
    ([[0.0, 0.2..., 1.0]], False)
    """
    if np.issubdtype(values.dtype, np.complexfloating):
        raise DataError(f"{name} is complex: store real and imaginary part as two channels")
    if values.dtype.kind not in "buif":
        raise DataError(f"{name} holds {values.dtype}, no numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        nans = int(np.isnan(values).sum())
        infinite = int(np.isinf(values).sum())
        finding = f"{infinite} inf: store finite numbers" if infinite else f"{nans} NaN"
        raise DataError(f"{name} holds {finding}" + ("" if infinite else " (nan='zero' takes 0)"))
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
    if limits is not None:
        low, high = limits
        return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32), False
    maximum = 1.0
    if values.dtype.kind in "ui":
        if values.dtype.itemsize > 2:
            raise DataError(
                f"{name} holds {values.dtype}: of what range? (range=LOW,HIGH, or range=train)"
            )
        maximum = float(np.iinfo(values.dtype).max)
    if minimum < 0 or largest > maximum:
        raise DataError(
            f"{name} lies in {minimum:g}..{largest:g}, outside 0..{maximum:g} (range=LOW,HIGH or "
            "range=train scales all alike; scale='minmax' or 'p1p99' each sample by itself)"
        )
    return (values.astype(np.float32) / np.float32(maximum)), False
