"""Checks that a dataset of a user's HDF5 file holds all its values itself, and can be unpacked.

HDF5 replaces missing parts by zeros without a word, and follows links into other files, which are
not in the cache key and may lie anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from math import ceil, prod
from pathlib import Path

import h5py

from ..base import DataError, first_names
from .decompression import check_expansion

FILTERS = {4: "szip", 307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle"}
FILTERS |= {32013: "zfp", 32015: "zstd", 32017: "sz", 32019: "fcidecomp", 32026: "blosc2"}
"""Names of compressions by their number, as the HDF Group registers them."""

MAX_LINKS = 16
"""Soft links that a name may lead through."""

ONE_FILE = "store its values in one file (h5py: file.create_dataset with data=...)"


def check_links(file: h5py.File, dataset: str, name: str, max_links: int = MAX_LINKS) -> None:
    """Raise DataError if the path of a dataset leads into another file. Opens no other file.

    file: an open file
    dataset: its path in the file; it need not exist
    name: of the file in errors
    max_links: soft links that are followed

    >>> with h5py.File("linked.h5", "w") as file:
    ...     file["x"] = h5py.ExternalLink("/etc/other.h5", "x")
    ...     check_links(file, "x", "linked.h5")
    Traceback (most recent call last):
    adbench.datasets.base.DataError: linked.h5: x is a link into /etc/other.h5: ...
    """
    parts = [part for part in dataset.split("/") if part not in ("", ".")]
    for index, part in enumerate(parts):
        parent = "/".join(["", *parts[:index]])
        link = file.get(f"{parent}/{part}", getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(f"{name}: {'/'.join(parts)} is a link into {link.filename}: {ONE_FILE}")
        if isinstance(link, h5py.SoftLink):
            if not max_links:
                raise DataError(
                    f"{name}: {'/'.join(parts)} leads through more than {MAX_LINKS} links"
                )
            start = "" if link.path.startswith("/") else parent
            target = "/".join([start, link.path, *parts[index + 1 :]])
            return check_links(file, target, name, max_links - 1)


def check_storage(stored: h5py.Dataset, dataset: str, name: str, *, sparse: bool = False) -> None:
    """Raise DataError unless all values of a dataset lie in its own file and can be unpacked.

    stored: the open dataset
    dataset: its name in the file
    name: of the file in errors
    sparse: accept parts that were never written, which are zeros (masks of normal samples)

    >>> with h5py.File("unwritten.h5", "w") as file:
    ...     check_storage(file.create_dataset("x", (3, 8), "f4"), "x", "unwritten.h5")
    Traceback (most recent call last):
    adbench.datasets.base.DataError: unwritten.h5: x was never written, so that all would be ...
    """
    for problem in _storage_problems(stored, sparse):
        raise DataError(f"{name}: {dataset} {problem}")
    chunk_bytes = prod(stored.chunks or (0,)) * stored.dtype.itemsize
    check_expansion(name, chunk_bytes, stored.id.get_storage_size(), f"values in {dataset}")


def _storage_problems(stored: h5py.Dataset, sparse: bool) -> Iterator[str]:
    if stored.is_virtual:
        sources = sorted({source.file_name for source in stored.virtual_sources()} - {"."})
        folder = Path(stored.file.filename).parent
        missing = [source for source in sources if not os.path.exists(folder / source)]
        if missing:
            yield f"takes values from {first_names(missing)}, not there: fetch it, then {ONE_FILE}"
        yield f"is a virtual dataset of {first_names(sources) or 'its own file'}: {ONE_FILE}"
    if stored.external:
        files = sorted({file_name for file_name, *_ in stored.external})
        yield f"lies in other files ({first_names(files)}): {ONE_FILE}"
    pipeline = stored.id.get_create_plist()
    for index in range(pipeline.get_nfilters()):
        code = pipeline.get_filter(index)[0]
        if not _can_unpack(code):
            label = f"filter {code} ({FILTERS.get(code, 'unregistered')})"
            yield (
                f"is compressed by {label}, which this HDF5 lacks: repack it (h5repack -f GZIP=6 "
                "OLD NEW), or install hdf5plugin"
            )
    if not sparse and stored.size and stored.chunks:
        chunks = prod(ceil(n / step) for n, step in zip(stored.shape, stored.chunks, strict=True))
        lacking = chunks - stored.id.get_num_chunks()
        if lacking:
            yield f"lacks {lacking} of {chunks} chunks, which would be read as zeros: write it anew"
    elif not sparse and stored.size and not stored.id.get_storage_size():
        yield "was never written, so that all would be read as zeros: write it anew"


def _can_unpack(code: int) -> bool:
    if not h5py.h5z.filter_avail(code):
        with suppress(ImportError):
            import_module("hdf5plugin")  # registers what it brings
    available = h5py.h5z.filter_avail(code)
    return available and bool(
        h5py.h5z.get_filter_info(code) & h5py.h5z.FILTER_CONFIG_DECODE_ENABLED
    )
