"""Reading the IDX files of the MNIST family, and folders of one .npy file per image."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base import DataError
from .decompression import GZIP, check_expansion, decompress_gzip
from .directories import find_files, list_directory
from .file_type import describe_file_type
from .folder_names import folders_of, resolve_case
from .hdf5_arrays import Array
from .npy import read_npy_array

IMAGES_NAME = re.compile(r"(?P<set>.*)(?P<part>train|t10k|test)-images[-.]idx3-ubyte(\.gz)?")
AXES_OF_MAGIC = {2051: 3, 2049: 1}
"""Of files of images and of labels, and how many axes each has; all hold unsigned bytes."""

HEADER_BYTES = 16
"""Of a file of images, the longer header; a file of labels has 8."""


class PublishedSet(NamedTuple):
    """The images of one published set.

    images: (N, C, H, W) uint8
    labels: (N,) uint8, the class of each image; None if unknown
    files: the files that were read, by role
    image_files: the file of each image, if it has its own

    >>> PublishedSet(np.zeros((2, 1, 28, 28), np.uint8), None, {}).images.shape
    (2, 1, 28, 28)
    """

    images: Array
    labels: Array | None
    files: dict[str, Path]
    image_files: tuple[Path, ...] = ()


def read_idx(path: Path) -> Array:
    """Return the array of an IDX file: (N, H, W) or (N,) uint8.

    path: of the file, perhaps gzipped; a gzip file is read to its end, where its checksum is

    Raises DataError if it is truncated, corrupt, or no IDX file of bytes.

    >>> path = Path("labels-idx1-ubyte")
    >>> _ = path.write_bytes((2049).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes([7, 2, 1]))
    >>> read_idx(path).tolist()
    [7, 2, 1]
    """
    raw = path.read_bytes()
    if path.name.lower().endswith(".gz") or raw.startswith(GZIP):
        raw = _unpack(raw, path.name)
    magic = int.from_bytes(raw[:4], "big")
    if magic not in AXES_OF_MAGIC:
        raise DataError(
            f"{path.name} is no idx file of bytes: it looks like {_describe_content(raw)}"
        )
    start, shape = _read_header(raw)
    if len(raw) != start + prod(shape):
        size = f"expected {start + prod(shape)} bytes for {shape}, found {len(raw)}"
        raise DataError(f"{path.name} is {_size_problem(len(raw), start + prod(shape))} ({size})")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_published_sets(folder: Path, name: str) -> tuple[dict[str, PublishedSet], list[str]]:
    """Return the "train" and "test" sets of a folder, and all problems with them.

    folder: holds IDX files (also in raw/), or numpy/train/ and numpy/test/
    name: of the dataset in errors

    >>> Path("set/numpy/train").mkdir(parents=True)
    >>> for i in range(3):
    ...     np.save(f"set/numpy/train/{i}.npy", np.full((8, 8), i, np.uint8))
    >>> pools, problems = read_published_sets(Path("set"), "set")
    >>> pools["train"].images.shape, problems
    ((3, 1, 8, 8), [])
    """
    pools, problems = {}, list[str]()
    image_files = _image_files(folder)
    for published_set, paths in image_files.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            problems.append(
                f"{name} has several {published_set} sets ({names}): keep one in a folder"
            )
            continue
        try:
            pools[published_set] = _read_set(paths[0])
        except DataError as error:
            problems.append(f"{name}: {error.summary}")
    if not image_files:
        for published_set in ("train", "test"):
            for inside in folders_of(resolve_case(folder, "numpy"), published_set):
                pool, file_problems = _read_npy_set(inside, name)
                problems += file_problems
                if pool is not None:
                    pools[published_set] = pool
    return pools, problems


def holds_pickles(folder: Path) -> bool:
    """Return whether a folder holds the pickled batches of CIFAR, which are never loaded.

    folder: need not exist

    >>> holds_pickles(Path("missing"))
    False
    """
    if not folder.is_dir():
        return False
    pickle_names = re.compile(
        r"data_batch_\d|test_batch|cifar-10+-(batches-py|python).*|.*\.pkl|meta"
    )
    return any(pickle_names.fullmatch(path.name) for path in list_directory(folder))


def _image_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of images by published set. A gzipped file is preferred to the same file
    unpacked, because it has a checksum.
    """
    files_of_set: dict[str, dict[str, Path]] = {}
    for inside in (resolve_case(folder, "raw"), folder):
        for path in list_directory(inside) if inside.is_dir() else ():
            match = IMAGES_NAME.fullmatch(path.name)
            if match:
                published_set = "train" if match["part"] == "train" else "test"
                stem = path.name.removesuffix(".gz")
                files = files_of_set.setdefault(published_set, {})
                if stem not in files or path.name.endswith(".gz"):
                    files[stem] = path
        if files_of_set:
            break
    return {published_set: list(paths.values()) for published_set, paths in files_of_set.items()}


def _read_set(path: Path) -> PublishedSet:
    """Return a set of images, with its labels if there is a file of them."""
    images = read_idx(path)
    if images.ndim != 3 or 0 in images.shape:
        raise DataError(f"{path.name} holds {images.shape}, no images")
    name = path.name.replace("-images", "-labels").replace("idx3", "idx1")
    candidates = [path.with_name(n) for n in (name, name.removesuffix(".gz"), f"{name}.gz")]
    labels_path = next((candidate for candidate in candidates if candidate.exists()), None)
    files, labels = {"image": path}, None
    if labels_path is not None:
        labels, files["labels"] = read_idx(labels_path), labels_path
        if labels.shape != images.shape[:1]:
            raise DataError(f"{labels_path.name} labels {labels.size} images, not {len(images)}")
    return PublishedSet(images[:, None], labels, files)


def _read_npy_set(folder: Path, name: str) -> tuple[PublishedSet | None, list[str]]:
    """Return a set from .npy files of one image each, in the order of their numbers."""
    paths = sorted(find_files(folder, (".npy",), 0), key=lambda p: (len(p.name), p.name))
    arrays, problems = list[Array](), list[str]()
    for path in paths:
        file_name = f"{name}/numpy/{folder.name}/{path.name}"
        try:
            array = read_npy_array(path.read_bytes(), file_name)
        except DataError as error:
            problems.append(error.summary)
            continue
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            finding = f"{array.dtype} of shape {array.shape}"
            problems.append(f"{file_name} holds {finding}, not uint8 of (H, W) or (C, H, W)")
            continue
        array = array[None] if array.ndim == 2 else array
        if arrays and array.shape != arrays[0].shape:
            problems.append(f"{file_name} has shape {array.shape}, others {arrays[0].shape}")
            continue
        arrays.append(array)
    if not arrays or problems:
        return None, problems
    return PublishedSet(np.stack(arrays), None, {}, tuple(paths)), []


def _unpack(raw: bytes, name: str) -> bytes:
    """Return the content of a gzip file, cut off one byte behind what its header declares."""
    if not raw.startswith(GZIP):
        raise DataError(f"{name} is no gzip file: it looks like {_describe_content(raw)}")
    head, complete, _ = decompress_gzip(raw, HEADER_BYTES - 1, name)
    limit = HEADER_BYTES
    if int.from_bytes(head[:4], "big") in AXES_OF_MAGIC and len(head) == HEADER_BYTES:
        start, shape = _read_header(head)
        limit = start + prod(shape)
        check_expansion(name, limit, len(raw), "images")
    content, complete, behind = decompress_gzip(raw, limit, name)
    if len(content) <= limit and not complete:
        raise DataError(f"{name} is a truncated gzip file: fetch it again")
    if behind.strip(b"\0"):
        raise DataError(f"{name} is corrupt ({len(behind)} bytes behind its end): fetch it again")
    return content


def _read_header(head: bytes) -> tuple[int, tuple[int, ...]]:
    """Return where the numbers start, and their shape."""
    start = 4 + 4 * AXES_OF_MAGIC[int.from_bytes(head[:4], "big")]
    return start, tuple(
        int.from_bytes(head[position : position + 4], "big") for position in range(4, start, 4)
    )


def _size_problem(size: int, expected: int) -> str:
    return "truncated" if size < expected else "too long"


def _describe_content(file_bytes: bytes) -> str:
    plain = int.from_bytes(file_bytes[:4], "big") in AXES_OF_MAGIC
    return describe_file_type(
        file_bytes, "an uncompressed idx file (take .gz off its name)" if plain else ""
    )
