"""Reading frames of complex samples from HDF5 files in all their storage layouts, one at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base import DataError
from .hdf5_arrays import (
    Array,
    find_dataset,
    is_complex,
    open_hdf5,
    real_and_imaginary,
    require_dataset,
)

FILE_NAME = re.compile(
    r"(?P<signal>[A-Za-z0-9]+)(?P<test>_test\d+)?(?P<raw>_raw_data)?(_(?P<part>train|val))?"
    r"\.(h5|hdf5)"
)
POOL_FOLDERS = {"train": "interferenceset_frame", "test": "testset1_frame"}


class FrameLayout(NamedTuple):
    """How an HDF5 file stores its frames.

    n_frames: number of frames
    length: complex samples per frame
    layout: "complex" for complex numbers, "pair" for compound records of both parts, "first" or
        "last" for real numbers whose first or last axis within a frame is real and imaginary part

    >>> FrameLayout(n_frames=10, length=2048, layout="first").length
    2048
    """

    n_frames: int
    length: int
    layout: str


def read_frame_layout(path: Path, name: str, signal: str) -> FrameLayout:
    """Return how a file stores its frames, from its header.

    path: the HDF5 file, with "dataset" and perhaps "sig_type"
    name: of the file in errors
    signal: the signal that the file should hold

    Raises DataError if the layout is ambiguous, or if "sig_type" names another signal.

    >>> import h5py, numpy as np
    >>> with h5py.File("frames.h5", "w") as file:
    ...     file["dataset"] = np.zeros((3, 8), np.complex64)
    >>> read_frame_layout(Path("frames.h5"), "frames.h5", "QPSK")
    FrameLayout(n_frames=3, length=8, layout='complex')
    """
    with open_hdf5(path, name) as file:
        values = require_dataset(file, "dataset", name)
        stored_type = find_dataset(file, "sig_type", name)
        if stored_type is not None:
            text = stored_type[()]
            signal_type = text.decode() if isinstance(text, bytes) else str(text)
            if signal_type.casefold() != signal.casefold():
                raise DataError(
                    f"{name} holds {signal_type}, as its sig_type says: rename or replace it"
                )
        shape, dtype = values.shape, values.dtype
        if 0 in shape:
            raise DataError(f"{name} is empty: its dataset has shape {shape}")
        if dtype.kind == "c" or dtype.fields:
            if dtype.fields and not is_complex(dtype):
                raise DataError(f"{name} holds records of {list(dtype.fields)}, not of r and i")
            if len(shape) != 2:
                raise DataError(f"{name} has shape {shape}, not (frames, samples)")
            return FrameLayout(shape[0], shape[1], "pair" if dtype.fields else "complex")
        if dtype.kind not in "iuf":
            raise DataError(f"{name} holds {dtype}, no numbers")
        if len(shape) != 3 or 2 not in shape[1:]:
            finding = f"real numbers of shape {shape}"
            advice = "store complex64, or real and imaginary part as an axis of 2"
            raise DataError(f"{name} holds {finding}: where is the imaginary part? ({advice})")
        if shape[1:] == (2, 2):
            raise DataError(f"{name} has shape {shape}: either axis may be real and imaginary part")
        form = "first" if shape[1] == 2 else "last"
        return FrameLayout(shape[0], shape[2] if form == "first" else shape[1], form)


def read_frame(path: Path, name: str, layout: FrameLayout, index: int) -> Array:
    """Return one frame as (2, length) float32, real and imaginary part.

    path: the HDF5 file
    name: of the file in errors
    layout: from `read_frame_layout`
    index: of the frame

    >>> import h5py, numpy as np
    >>> with h5py.File("frame.h5", "w") as file:
    ...     file["dataset"] = np.array([[1 + 2j, 3 + 4j]], np.complex64)
    >>> read_frame(Path("frame.h5"), "frame.h5", FrameLayout(1, 2, "complex"), 0).tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    """
    with open_hdf5(path, name) as file:
        raw = require_dataset(file, "dataset", name)[index]
    if layout.layout in ("complex", "pair"):
        parts = real_and_imaginary(raw)
    else:
        parts = tuple(raw if layout.layout == "first" else raw.T)
    return np.stack([np.asarray(part, np.float32) for part in parts])
