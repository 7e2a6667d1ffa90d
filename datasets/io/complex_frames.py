"""Frames of complex samples in HDF5 files, in all the ways they are written; one read at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base import DataError
from .hdf5_arrays import Array, open_hdf5, require_dataset

FILE_NAME = re.compile(
    r"(?P<signal>[A-Za-z0-9]+)(?P<test>_test\d+)?(?P<raw>_raw_data)?(_(?P<part>train|val))?"
    r"\.(h5|hdf5)"
)
POOL_FOLDERS = {"train": "interferenceset_frame", "test": "testset1_frame"}


class FrameLayout(NamedTuple):
    """`n_frames` frames of `length` samples. layout: "complex", "pair" (compound), "first" or
    "last",
    the axis of real and imaginary part within a frame"""

    n_frames: int
    length: int
    layout: str


def read_frame_layout(path: Path, name: str, signal: str) -> FrameLayout:
    """How a file holds its frames. Raises DataError where that cannot be told, or where the file
    says of itself that it holds another signal."""
    with open_hdf5(path, name) as file:
        values = require_dataset(file, "dataset", name)
        if "sig_type" in file:
            signal_type = require_dataset(file, "sig_type", name)[()]
            signal_type = (
                signal_type.decode() if isinstance(signal_type, bytes) else str(signal_type)
            )
            if signal_type.casefold() != signal.casefold():
                raise DataError(
                    f"{name} holds {signal_type}, as its sig_type says: rename or replace it"
                )
        shape, dtype = values.shape, values.dtype
        if 0 in shape:
            raise DataError(f"{name} is empty: its dataset has shape {shape}")
        if dtype.kind == "c" or dtype.fields:
            if dtype.fields and _complex_fields(dtype) is None:
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
    """One frame as (2, length) float32, real and imaginary part."""
    with open_hdf5(path, name) as file:
        raw = require_dataset(file, "dataset", name)[index]
    if layout.layout == "complex":
        parts = (raw.real, raw.imag)
    elif layout.layout == "pair":
        real, imaginary = _complex_fields(raw.dtype) or ("r", "i")
        parts = (raw[real], raw[imaginary])
    else:
        parts = tuple(raw if layout.layout == "first" else raw.T)
    return np.stack([np.asarray(part, np.float32) for part in parts])


def _complex_fields(dtype: np.dtype) -> tuple[str, str] | None:
    """What a record calls its real and imaginary part."""
    for pair in (("r", "i"), ("real", "imag"), ("re", "im"), ("I", "Q")):
        if set(pair) == set(dtype.fields or ()):
            return pair
    return None
