"""Small real trees of arrays: radio frames and samples in HDF5, images in idx and numpy files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SIGNALS = ("CommSignal2", "CommSignal3", "CommSignal5G1", "EMISignal1")
FOLDERS = {"raw_data": "interferenceset_frame", "test1_raw_data": "testset1_frame"}
LENGTH = 70  # of a frame; with windows of 32 it gives two, and six samples are left over


def frames(signal: str, part: str, count: int, length: int = LENGTH) -> np.ndarray:
    """(count, length) complex64: symbols or tones, and a little noise; of other power each kind."""
    kind = SIGNALS.index(signal)
    rng = np.random.default_rng([kind, len(part)])
    if kind == 3:
        turn = 2 * np.pi * (0.05 * np.arange(length) + rng.uniform(size=(count, 1)))
        clean = np.exp(1j * turn)
    else:
        step = (2, 4, 8)[kind]
        symbols = rng.choice([-1, 1], (2, count, length // step + 1)).repeat(step, -1)
        clean = (symbols[0] + 1j * symbols[1])[:, :length]
    noise = rng.normal(size=(2, count, length))
    return ((1 + kind) * (clean + 0.05 * (noise[0] + 1j * noise[1]))).astype(np.complex64)


def stored(values: np.ndarray, form: str) -> np.ndarray:
    """Complex frames in one of the ways to write them."""
    if form == "complex":
        return values
    parts = np.real(values), np.imag(values)
    if form in ("r i", "real imag"):
        names = form.split()
        pair = np.empty(values.shape, [(name, "<f4") for name in names])
        for name, part in zip(names, parts, strict=True):
            pair[name] = part
        return pair
    return np.stack(parts, 1 if form == "first" else -1)


def h5(path: Path, **held: Any) -> Path:
    """A file with these datasets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in held.items():
            file[name] = values
    return path


def radio(root: Path, *, count: int = 4, form: str = "complex") -> Path:
    """The RF Challenge's tree."""
    for part, folder in FOLDERS.items():
        for signal in SIGNALS:
            values = stored(frames(signal, part, count), form)
            path = root / "dataset" / folder / f"{signal}_{part}.h5"
            h5(path, dataset=values, sig_type=signal)
    return root


def cut(root: Path, *, window: int = 32, last: bool = False) -> Path:
    """Windows that were cut and shared out before, of all kinds, without a test set."""
    for signal in SIGNALS:
        values = frames(signal, "raw_data", 6)[:, : 2 * window].reshape(-1, window)
        values = stored(values, "last" if last else "first").astype(np.float32)
        for part, some in (("train", values[:8]), ("val", values[8:])):
            h5(root / "processed" / f"{signal}_{part}.h5", dataset=some)
    return root


def drawings(seed: int, count: int, classes: int = 5, size: int = 12) -> tuple[Any, Any]:
    """(count, size, size) uint8, a stroke each in noise, and its class (count,)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, size, size)).astype(np.uint8)
    labels = (np.arange(count) % classes).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 + label : 5 + label, 1:8] = 200
    return images, labels


def idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file."""
    magic = 2048 + array.ndim
    head = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_set(root: Path, name: str, seed: int, *, packed: bool = True, raw: bool = True) -> Path:
    """A set of 40 images to train on and 20 to test on."""
    folder = root / name / "raw" if raw else root / name
    folder.mkdir(parents=True)
    for part, count, more in (("train", 40, 0), ("t10k", 20, 1)):
        images, labels = drawings(2 * seed + more, count)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{what}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(array), mtime=0) if packed else idx(array))
    return root


def numpy_set(root: Path, name: str, seed: int, *, channels: int = 0) -> Path:
    """The same as ddpm-ood has it: a file an image, and csv files of one row."""
    for part, count, more in (("train", 40, 0), ("test", 20, 1)):
        folder = root / name / "numpy" / part
        folder.mkdir(parents=True)
        for index, image in enumerate(drawings(2 * seed + more, count)[0]):
            stacked = np.stack([image] * channels) if channels else image
            np.save(folder / f"{name}_{index}.npy", stacked)
        row = ",".join(str(path) for path in folder.iterdir())
        (root / "data_splits").mkdir(exist_ok=True)
        (root / "data_splits" / f"{name}_{part}.csv").write_text(f"{row}\n")
    return root
