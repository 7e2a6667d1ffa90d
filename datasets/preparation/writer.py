"""Writing prepared datasets in shards: complete shards survive a kill and are joined at the end."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from torch import Tensor

from ..base import DataError, Sample, Spec, content_hash
from ..io.fsync import fsync_path
from ..io.hdf5 import (
    LIBRARY_VERSION,
    get_dataset,
    hdf5_errors,
    open_read_only,
    read_table_text,
    read_text,
    write_text,
)
from ..io.hdf5_output import HDF5Output, write_hdf5
from .table_rows import TableRows

SHARD_BYTES, SHARD_SECONDS = 256 << 20, 10.0
"""Bytes and seconds after which a shard is closed: what a killed preparation loses at most."""

TENSOR_FIELDS = ("x", "mask", "roi", "counterpart")
"""By their names in the file, the fields of a sample that are tensors."""


class SampleWriter:
    """Writes samples one at a time and keeps none of them in memory.

    Samples come in units (a patient, an image file): `finish_unit` says that a unit is complete,
    and `has_unit` tells a later call with the same key inputs which units need no second reading.

    Refuses what no reader could repair later: a wrong shape, NaN, a key used twice, and a group in
    two splits (`leaky` allows that, for published splits that have it). The split of a part is its
    name up
    to a hyphen: "train" and "train-abnormal" may share patients.

    folder: for the shards; removed at the end
    identity: canonical JSON of the cache-key inputs
    spec: channels and shape of every sample
    leaky: whether a group may be in two splits

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     writer = SampleWriter(Path(folder, "parts"), "{}", Spec(1, (4,)))
    ...     writer.add("train", Sample(torch.ones(1, 4), "a", "patient-1", False))
    ...     writer.add("test", Sample(torch.ones(1, 4), "b", "patient-1", False))
    Traceback (most recent call last):
    adbench.datasets.base.DataError: group 'patient-1' is in two splits, train and test
    """

    def __init__(self, folder: Path, identity: str, spec: Spec, *, leaky: bool = False) -> None:
        self._folder, self._identity, self._spec, self._leaky = folder, identity, spec, leaky
        self._keys: set[str] = set()
        self._split_of: dict[str, str] = {}
        self._units: set[str] = set()
        self._shards: list[Path] = []
        self._shard: Shard | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if not (path.suffix == ".h5" and self._resume_shard(path)):
                path.unlink()

    def has_unit(self, unit: str) -> bool:
        """Return whether the unit was finished before an interruption."""
        return unit in self._units

    def add(self, part: str, sample: Sample) -> None:
        """Check a sample and write it to a part. Raises DataError if it is refused."""
        sample = _canonical_sample(sample)
        self._check(part, sample)
        self._register(part, sample.key, sample.group)
        if self._shard is None:
            self._shard = Shard(self._folder / f"{len(self._shards):06d}.part")
        self._shard.add(part, sample)

    def finish_unit(self, unit: str) -> None:
        """Record that all samples of a unit have been added."""
        self._units.add(unit)
        if self._shard is None:
            return
        self._shard.finish_unit(unit)
        if self._shard.size >= SHARD_BYTES or self._shard.age() >= SHARD_SECONDS:
            self._close_shard()

    def finish(self, path: Path) -> None:
        """Join the shards into one file at `path`; it is on disk when this returns."""
        self._keys, self._split_of, self._units = set(), {}, set()  # nothing is added any more
        if self._shard is not None or not self._shards:
            self._shard = self._shard or Shard(self._folder / "000000.part")
            self._close_shard()
        complete = self._shards[0]
        if len(self._shards) > 1:
            complete = self._folder / "whole"
            _join_shards(self._shards, complete, self._identity)
        os.replace(complete, path)
        fsync_path(path.parent)
        self.discard()

    def discard(self) -> None:
        """Delete everything that was written."""
        if self._shard is not None:
            self._shard.delete()
            self._shard = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Stop before the end; finished units stay."""
        if self._shard is not None:
            if self._shard.units:
                self._shard.drop_unfinished()
                self._close_shard()
            else:
                self._shard.delete()
            self._shard = None
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _close_shard(self) -> None:
        assert self._shard is not None
        path = self._folder / f"{len(self._shards):06d}.h5"
        self._shard.finish(self._identity)
        os.replace(self._shard.path, path)
        self._shards.append(path)
        self._shard = None

    def _resume_shard(self, path: Path) -> bool:
        """Return whether the file is a complete shard of this dataset, next in order; count it."""
        try:
            with hdf5_errors(path), open_read_only(path) as file:
                if read_text(file, "identity") != self._identity:
                    return False
                units = json.loads(read_text(file, "units"))
                rows = [
                    (part, row)
                    for part in json.loads(read_text(file, "parts"))
                    for row in TableRows(read_table_text(file, part))
                ]
        except DataError:
            return False
        if path.stem != f"{len(self._shards):06d}":
            return False
        for part, row in rows:
            self._register(part, row["key"], row["group"])
        self._units |= set(units)
        self._shards.append(path)
        return True

    def _register(self, part: str, key: str, group: str) -> None:
        self._keys.add(key)
        self._split_of.setdefault(group, part.partition("-")[0])

    def _check(self, part: str, sample: Sample) -> None:
        x, key, shape = sample.x, sample.key, tuple(self._spec.shape)
        if tuple(x.shape) != (self._spec.channels, *shape):
            expected = (self._spec.channels, *shape)
            raise DataError(f"sample {key!r} has shape {tuple(x.shape)}, not {expected}")
        for name, value in (("mask", sample.mask), ("roi", sample.roi)):
            if value is not None and tuple(value.shape) != shape:
                raise DataError(
                    f"the {name} of {key!r} has shape {tuple(value.shape)}, not {shape}"
                )
        for box in sample.boxes or ():
            if not _is_box(box, shape):
                raise DataError(f"{key!r} has the box {box}, which is none of {shape}")
        if sample.counterpart is not None and sample.counterpart.shape != x.shape:
            raise DataError(f"the counterpart of {key!r} has another shape than its x")
        if not np.isfinite(x.numpy()).all():  # torch would wake its threads for this
            raise DataError(f"sample {key!r} holds NaN or inf")
        if key in self._keys:
            raise DataError(f"two samples have the key {key!r}")
        split = part.partition("-")[0]
        group_split = self._split_of.get(sample.group, split)
        if group_split != split and not self._leaky:
            raise DataError(f"group {sample.group!r} is in two splits, {group_split} and {split}")


class Shard:
    """A file of samples that is being written.

    path: where; units: names of the units that are complete in it; size: bytes of voxels

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     shard = Shard(Path(folder, "000000.part"))
    ...     shard.add("train", Sample(torch.ones(1, 4), "a", "a", False))
    ...     shard.finish_unit("patient-1")
    ...     shard.delete()
    >>> shard.size, shard.units
    (16, ['patient-1'])
    """

    def __init__(self, path: Path) -> None:
        self.path, self.units, self.size = path, list[str](), 0
        self._began, self._whole = time.monotonic(), dict[str, int]()
        self._output = HDF5Output(path, libver=LIBRARY_VERSION)
        self._growing = GrowingDatasets(self._output.file)
        self._rows: dict[str, list[str]] = {}  # in JSON

    def add(self, part: str, sample: Sample) -> None:
        rows = self._rows.setdefault(part, [])
        values = {name: getattr(sample, name) for name in TENSOR_FIELDS}
        arrays = {name: value.numpy() for name, value in values.items() if value is not None}
        for name, value in arrays.items():
            self._growing.append(f"{part}/{name}", len(rows), value)
            self.size += value.nbytes
        self._output.check()
        content = content_hash(sample)
        content_without_mask = (
            content
            if sample.mask is None and sample.boxes is None
            else content_hash(replace(sample, mask=None, boxes=None))
        )
        row = {
            "key": sample.key,
            "group": sample.group,
            "label": sample.label,
            "spacing": sample.spacing,
            "tags": dict(sample.tags),
            "tile": sample.tile,
            "boxes": sample.boxes,
            "has": list(arrays),
            "content": content,
            "content without mask": content_without_mask,
        }
        rows.append(json.dumps(row))

    def age(self) -> float:
        """Return the seconds since the shard was started."""
        return time.monotonic() - self._began

    def finish_unit(self, unit: str) -> None:
        self.units.append(unit)
        self._whole = {part: len(rows) for part, rows in self._rows.items()}

    def drop_unfinished(self) -> None:
        """Remove the table rows of unfinished units; their voxels stay and are never read."""
        self._rows = {part: self._rows[part][:count] for part, count in self._whole.items()}

    def finish(self, identity: str) -> None:
        tables = {part: [", ".join(rows)] for part, rows in self._rows.items()}
        _write_tables(self._output.file, identity, tables, [json.dumps(self.units)[1:-1]])
        self._output.close()

    def delete(self) -> None:
        self._output.discard()


def _write_tables(
    file: h5py.File, identity: str, tables: Mapping[str, list[str]], units: list[str]
) -> None:
    """Write everything of a prepared file but its voxels.

    identity: canonical JSON of the cache-key inputs
    tables: of each part the rows in JSON, separated as `json.dumps` does, in pieces
    units: likewise, the names of the units in the file
    """
    write_text(file, "identity", identity)
    write_text(file, "units", *_list_text(units))
    write_text(file, "parts", json.dumps(list(tables)))
    for part, pieces in tables.items():
        write_text(file, f"{part}/table", *_list_text(pieces))


def _list_text(pieces: list[str]) -> Iterator[str]:
    yield "["
    for number, piece in enumerate(filter(None, pieces)):
        if number:
            yield ", "
        yield piece
    yield "]"


class GrowingDatasets:
    """HDF5 datasets that grow by one sample at a time; absent samples take no space.

    file: open for writing

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, h5py.File(Path(folder, "a.h5"), "w") as file:
    ...     growing = GrowingDatasets(file)
    ...     for index in range(3):
    ...         growing.append("train/x", index, np.full((1, 4), index, np.float32))
    ...     get_dataset(file, "train/x")[:, 0, 0].tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._stored: dict[str, h5py.Dataset] = {}

    def append(self, name: str, index: int, value: np.ndarray) -> None:
        """Store a value at an index of a dataset. Flags are stored as uint8."""
        flags = value.dtype == np.bool_
        target = self.extended(name, index, value.shape, np.uint8 if flags else np.float32)
        target[index] = value.view(np.uint8) if flags else value

    def extended(
        self, name: str, index: int, shape: tuple[int, ...], dtype: object
    ) -> h5py.Dataset:
        """Return the dataset, resized so that it has a place at `index`."""
        if name not in self._stored:
            self._stored[name] = self._file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(1, *shape),
                dtype=dtype,
                compression="lzf" if dtype == np.uint8 else None,
                fletcher32=True,
            )
        self._stored[name].resize(index + 1, axis=0)
        return self._stored[name]


def _join_shards(shards: list[Path], path: Path, identity: str) -> None:
    """Write one file of all shards, in order; chunks are copied with their checksums.

    The rows of one shard at a time are parsed; of the others their text is kept.
    """
    tables: dict[str, list[str]] = {}
    counts = Counter[str]()
    units: list[str] = []
    with write_hdf5(path, libver=LIBRARY_VERSION) as output:
        growing = GrowingDatasets(output)
        for shard in shards:
            with hdf5_errors(shard), open_read_only(shard) as file:
                units.append(read_text(file, "units")[1:-1])
                for part in json.loads(read_text(file, "parts")):
                    text = read_table_text(file, part)
                    tables.setdefault(part, []).append(text[1:-1])
                    rows = TableRows(text)
                    _copy_chunks(file, part, rows, growing, counts[part])
                    counts[part] += len(rows)
        _write_tables(output, identity, tables, units)


def _copy_chunks(
    file: h5py.File, part: str, rows: TableRows, growing: GrowingDatasets, first: int
) -> None:
    """Append the chunks of a part of a shard; `first` rows of the part are there already."""
    sources: dict[str, h5py.Dataset] = {}
    for index, row in enumerate(rows):
        for name in (f"{part}/{field}" for field in row["has"]):
            if name not in sources:
                sources[name] = get_dataset(file, name)
            source = sources[name]
            offset = (index, *[0] * (source.ndim - 1))
            filter_mask, chunk = source.id.read_direct_chunk(offset)
            target = growing.extended(name, first + index, source.shape[1:], source.dtype)
            target.id.write_direct_chunk((first + index, *offset[1:]), chunk, filter_mask)


def _is_box(box: Sequence[int], shape: tuple[int, ...]) -> bool:
    """Whether a box holds at least a step of every axis, and none beyond the sample."""
    first, end = box[: len(shape)], box[len(shape) :]
    return len(box) == 2 * len(shape) and all(
        0 <= a < b <= size for a, b, size in zip(first, end, shape, strict=True)
    )


def _canonical_sample(sample: Sample) -> Sample:
    """Return the sample exactly as it will be read back."""

    def flags(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach().cpu().bool().contiguous()

    def floats(value: Tensor) -> Tensor:
        return value.detach().cpu().float().contiguous()

    return replace(
        sample,
        x=floats(sample.x),
        label=bool(sample.label),
        mask=flags(sample.mask),
        roi=flags(sample.roi),
        spacing=None if sample.spacing is None else tuple(float(mm) for mm in sample.spacing),
        tags={str(name): str(value) for name, value in sample.tags.items()},
        boxes=None if sample.boxes is None else tuple(tuple(map(int, b)) for b in sample.boxes),
        counterpart=None if sample.counterpart is None else floats(sample.counterpart),
    )
