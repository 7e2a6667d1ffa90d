"""How the cache uses HDF5: all of it checksummed; a fault is one error that says how to mend it."""

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
    return h5py.File(path, "r", locking=False)  # never written to again: nothing to lock


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Whatever HDF5 makes of a damaged file becomes one error that says how to mend it."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0].strip("'\"")
        raise DataError(
            f"{path.name} cannot be read ({reason}). Delete {path} and run again: it is made anew."
        ) from error


def get_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    stored = group[name]  # not .get, which takes a damaged entry for an absent one
    if not isinstance(stored, h5py.Dataset):
        raise KeyError(f"its {name} holds no values")
    return stored


def read_table(file: h5py.File, part: str) -> list[dict[str, Any]]:
    if part not in json.loads(read_text(file, "parts")):
        return []
    return json.loads(read_text(file, f"{part}/table"))


def write_text(group: h5py.Group, name: str, text: str) -> None:
    """As bytes in a checksummed dataset: HDF5 does not checksum strings, nor long attributes."""
    data = np.frombuffer(text.encode(), np.uint8)
    chunk = (min(len(data), 1 << 20),)
    group.create_dataset(name, data=data, chunks=chunk, compression="lzf", fletcher32=True)


def read_text(group: h5py.Group, name: str) -> str:
    return get_dataset(group, name)[()].tobytes().decode()
