"""Reading .npy files; an array of Python objects (a pickle) is never loaded."""

from __future__ import annotations

import io

import numpy as np

from ..base import DataError
from .file_type import describe_file_type
from .hdf5_arrays import Array


def read_npy_array(file_bytes: bytes, name: str) -> Array:
    """Return the array of a .npy file.

    file_bytes: all bytes of the file
    name: of the file in errors

    Raises DataError for a damaged file, one of another type, and Python objects.

    >>> buffer = io.BytesIO()
    >>> np.save(buffer, np.arange(3))
    >>> read_npy_array(buffer.getvalue(), "three.npy").tolist()
    [0, 1, 2]
    """
    if not file_bytes.startswith(b"\x93NUMPY"):
        raise DataError(f"{name} is no .npy file: it looks like {describe_file_type(file_bytes)}")
    try:
        return np.load(io.BytesIO(file_bytes), allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        if "allow_pickle" in str(error):
            reason = (
                "holds Python objects (a pickle), which adbench never loads: save plain numbers"
            )
            raise DataError(f"{name} {reason}") from None
        reason = str(error).partition("\n")[0]
        raise DataError(f"{name} is truncated or corrupt ({reason})") from None
