"""HDF5 files of the cache: all is checksummed, and damage is one DataError with advice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..base import DataError

# the oldest format in which HDF5's own structures carry checksums too
LIBRARY_VERSION = ("v110", "v110")


def open_read_only(path: Path) -> h5py.File:
    """Return an HDF5 file opened for reading, without a lock.

    path: a prepared file; it is never written to again, so that nothing needs a lock

    >>> with h5py.File("closed.h5", "w") as file:
    ...     file["x"] = [1, 2]
    >>> with open_read_only(Path("closed.h5")) as file:
    ...     file.mode, get_dataset(file, "x")[:].tolist()
    ('r', [1, 2])
    """
    return h5py.File(path, "r", locking=False)  # never written to again: nothing to lock


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Turn any HDF5 error within the context into a DataError that says what to delete.

    path: the file in the message

    >>> with hdf5_errors(Path("part.h5")):
    ...     raise OSError("bad checksum")
    Traceback (most recent call last):
    adbench.datasets.base.DataError: part.h5 cannot be read (bad checksum). ...
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0].strip("'\"")
        raise DataError(
            f"{path.name} cannot be read ({reason}). Delete {path} and run again."
        ) from error


def get_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of a group. Raises KeyError if it is missing or is a group.

    group: of an open file
    name: of the dataset

    >>> with h5py.File("values.h5", "w") as file:
    ...     file["x"] = [1, 2]
    ...     get_dataset(file, "x").shape
    (2,)
    """
    stored = group[name]  # not .get, which takes a damaged entry for an absent one
    if not isinstance(stored, h5py.Dataset):
        raise KeyError(f"its {name} holds no values")
    return stored


def read_table_text(file: h5py.File, part: str) -> str:
    """Return the table of a part of a prepared file as JSON; "[]" for a missing part.

    file: a prepared file
    part: such as "train"

    >>> with h5py.File("texts.h5", "w") as file:
    ...     write_text(file, "parts", '["train"]')
    ...     write_text(file, "train/table", '[{"key": "a"}]')
    ...     read_table_text(file, "train"), read_table_text(file, "val")
    ('[{"key": "a"}]', '[]')
    """
    if part not in json.loads(read_text(file, "parts")):
        return "[]"
    return read_text(file, f"{part}/table")


def write_text(group: h5py.Group, name: str, *texts: str) -> None:
    """Write text as a checksummed dataset of bytes.

    HDF5 checksums neither strings nor long attributes.

    group: of an open file
    name: of the new dataset
    texts: ASCII if they are several; they are joined without a second copy of all. At least one
        character

    >>> with h5py.File("text.h5", "w") as file:
    ...     write_text(file, "note", "hello")
    ...     read_text(file, "note")
    'hello'
    """
    if len(texts) == 1:
        data = np.frombuffer(texts[0].encode(), np.uint8)
        _create_bytes(group, name, len(data), data)
        return
    target, end = _create_bytes(group, name, sum(map(len, texts))), 0
    for text in filter(None, texts):
        start, end = end, end + len(text)
        target[start:end] = np.frombuffer(text.encode("ascii"), np.uint8)


def _create_bytes(group: h5py.Group, name: str, size: int, data: Any = None) -> h5py.Dataset:
    chunk = (min(size, 1 << 20),)
    return group.create_dataset(
        name, (size,), np.uint8, data, chunks=chunk, compression="lzf", fletcher32=True
    )


def read_text(group: h5py.Group, name: str) -> str:
    """Return a text written by `write_text`.

    group: of an open file
    name: of the dataset

    >>> with h5py.File("words.h5", "w") as file:
    ...     write_text(file, "unit", "mm²")
    ...     len(get_dataset(file, "unit")), read_text(file, "unit")  # of bytes, in UTF-8
    (4, 'mm²')
    """
    return get_dataset(group, name)[()].tobytes().decode()
