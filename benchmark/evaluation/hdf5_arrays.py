"""Datasets of open HDF5 files: whole as an array, or as they are, to be read in parts."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


def hdf5_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The HDF5 dataset of that name. Raises KeyError where there is none, or a group instead.

    >>> from tempfile import TemporaryDirectory
    >>> import h5py
    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.hdf5_arrays import hdf5_dataset
    >>> with TemporaryDirectory() as folder, h5py.File(f"{folder}/maps.h5", "w") as file:
    ...     file["map"] = np.zeros((3, 20, 8, 8))
    ...     hdf5_dataset(file, "map").shape  # nothing is read
    (3, 20, 8, 8)
    """
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        raise KeyError(f"{file.filename}: {name} is not a dataset")
    return item


def read_array(file: h5py.File, name: str) -> NDArray[Any]:
    """All values of an HDF5 dataset. Raises KeyError where there is none.

    >>> from tempfile import TemporaryDirectory
    >>> import h5py
    >>> from adbench.benchmark.evaluation.hdf5_arrays import read_array
    >>> with TemporaryDirectory() as folder, h5py.File(f"{folder}/maps.h5", "w") as file:
    ...     file["levels"] = [100, 250]
    ...     read_array(file, "levels").tolist()
    [100, 250]
    """
    return np.asarray(hdf5_dataset(file, name)[()])
