"""The file a prepared dataset is kept in, and the splits read from it.

One HDF5 file holds every part of one dataset. Each sample is a chunk of its own with a checksum,
so that a sample is read alone and a flipped byte is found; whatever is small stands in one
checksummed table per part. The file appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

from .base import (
    DataError,
    Entry,
    Progress,
    Sample,
    Spec,
    Split,
    content_hash,
    manifest,
    silent,
)

LIBVER = ("v110", "v110")  # the oldest format in which HDF5's own structures carry checksums too


def cache_root() -> Path:
    """Where adbench keeps what it can make again: $ADBENCH_CACHE, or the user's cache folder."""
    given = os.environ.get("ADBENCH_CACHE")
    return Path(given).expanduser() if given else user_cache_path("adbench")


def prepare_once(
    name: str, identity: Mapping[str, object], make: Callable[[Writer], None], *, spec: Spec
) -> Path:
    """The prepared file of the dataset that `identity` describes; made if it is not there.

    identity: everything the samples depend on, as JSON holds it; no paths and no times
    make: adds every sample to the Writer; if it raises, nothing stays behind
    Other processes that want the same file wait, and then find it made.
    """
    path = _place(name, identity)
    if _trouble(path, identity) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        trouble = _trouble(path, identity)
        if trouble is None:
            return path
        if path.exists():
            aside = path.with_name(f"{path.name}.corrupt")
            os.replace(path, aside)
            warnings.warn(f"{trouble} Set aside as {aside.name} and made anew.", stacklevel=2)
        half = path.with_name(f"{path.name}.part")  # whoever holds the lock may overwrite it
        try:
            with h5py.File(half, "w", libver=LIBVER) as file:
                _write_text(file, "identity", _canonical(identity))
                writer = Writer(file, spec)
                make(writer)
                writer.finish()
            _sync(half)
            os.replace(half, path)
            _sync(path.parent)
        finally:
            half.unlink(missing_ok=True)
    return path


def find_prepared(name: str, identity: Mapping[str, object]) -> Path | None:
    """The prepared file, if it is there and whole."""
    path = _place(name, identity)
    return path if _trouble(path, identity) is None else None


class Writer:
    """Takes samples one at a time and keeps none of them in memory.

    Refuses what no later reader could put right: another shape, NaN, a key used twice, and a
    group that stands in two splits. The split of a part is its name up to a hyphen: "train" and
    "train-abnormal" may share patients.
    """

    def __init__(self, file: h5py.File, spec: Spec) -> None:
        self._file, self._spec = file, spec
        self._rows: dict[str, list[dict[str, object]]] = {}
        self._stored: dict[str, h5py.Dataset] = {}
        self._keys: set[str] = set()
        self._split_of: dict[str, str] = {}

    def add(self, part: str, sample: Sample) -> None:
        sample = _plain(sample)
        self._refuse(part, sample)
        rows = self._rows.setdefault(part, [])
        fields = {"x": sample.x, "mask": sample.mask, "roi": sample.roi, "twin": sample.twin}
        for name, value in fields.items():
            if value is not None:
                self._append(f"{part}/{name}", len(rows), value.numpy())
        content = content_hash(sample)
        rows.append(
            {
                "key": sample.key,
                "group": sample.group,
                "label": sample.label,
                "spacing": sample.spacing,
                "tags": dict(sample.tags),
                "has": [name for name, value in fields.items() if value is not None],
                "content": content,
                "content without mask": content_hash(replace(sample, mask=None))
                if sample.mask is not None
                else content,
            }
        )

    def finish(self) -> None:
        """Write the tables; whoever opened the file calls this once."""
        _write_text(self._file, "parts", json.dumps(list(self._rows)))
        for part, rows in self._rows.items():
            _write_text(self._file, f"{part}/table", json.dumps(rows))

    def _append(self, name: str, index: int, value: np.ndarray) -> None:
        """Put a value at `index` of a dataset that grows; samples that lack it cost no space."""
        flags = value.dtype == np.bool_
        if name not in self._stored:
            self._stored[name] = self._file.create_dataset(
                name,
                shape=(0, *value.shape),
                maxshape=(None, *value.shape),
                chunks=(1, *value.shape),
                dtype=np.uint8 if flags else np.float32,
                compression="lzf" if flags else None,
                fletcher32=True,
            )
        self._stored[name].resize(index + 1, axis=0)
        self._stored[name][index] = value.view(np.uint8) if flags else value

    def _refuse(self, part: str, sample: Sample) -> None:
        key, S = sample.key, tuple(self._spec.shape)
        if tuple(sample.x.shape) != (self._spec.channels, *S):
            want = (self._spec.channels, *S)
            raise DataError(f"sample {key!r} has shape {tuple(sample.x.shape)}, not {want}")
        for name, value in (("mask", sample.mask), ("roi", sample.roi)):
            if value is not None and tuple(value.shape) != S:
                raise DataError(f"the {name} of {key!r} has shape {tuple(value.shape)}, not {S}")
        if sample.twin is not None and sample.twin.shape != sample.x.shape:
            raise DataError(f"the twin of {key!r} has another shape than its x")
        if not bool(sample.x.isfinite().all()):
            raise DataError(f"sample {key!r} holds NaN or inf")
        if key in self._keys:
            raise DataError(f"two samples have the key {key!r}")
        split = part.partition("-")[0]
        other = self._split_of.setdefault(sample.group, split)
        if other != split:
            raise DataError(f"group {sample.group!r} stands in two splits, {other} and {split}")
        self._keys.add(key)


def _plain(sample: Sample) -> Sample:
    """The sample exactly as it will be read back."""

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
        twin=None if sample.twin is None else floats(sample.twin),
    )


class Prepared:
    """One part of a prepared file. Opens it when first asked, once per process; holds its table
    in memory, and no voxels."""

    def __init__(self, path: Path, part: str, *, masks: bool = True) -> None:
        self.path, self.part, self.masks = Path(path), part, masks
        self._opened: tuple[int, h5py.File] | None = None
        self._rows: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self._table())

    def __getitem__(self, index: int, /) -> Sample:
        row = self._table()[index]
        index = range(len(self))[index]
        hidden = set() if self.masks else {"mask", "twin"}
        with _reading(self.path):
            held = {name: self._values(name, index) for name in set(row["has"]) - hidden}
            return Sample(
                x=held["x"],
                key=row["key"],
                group=row["group"],
                label=row["label"],
                mask=held.get("mask"),
                roi=held.get("roi"),
                spacing=None if row["spacing"] is None else tuple(row["spacing"]),
                tags=dict(row["tags"]),
                twin=held.get("twin"),
            )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Prepared({self.path.name}, {self.part})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}  # an open file does not travel

    def manifest(self) -> list[Entry]:
        """The identity of every sample as it is read, from the table alone."""
        content = "content" if self.masks else "content without mask"
        return [Entry(row["key"], row[content], row["group"]) for row in self._table()]

    def _values(self, name: str, index: int) -> Tensor:
        stored = torch.from_numpy(_dataset(self._file(), f"{self.part}/{name}")[index])
        return stored.bool() if stored.dtype == torch.uint8 else stored

    def _table(self) -> list[dict[str, Any]]:
        if self._rows is None:
            with _reading(self.path):
                self._rows = _read_table(self._file(), self.part)
        return self._rows

    def _file(self) -> h5py.File:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open(self.path)  # a forked child opens its own
        return self._opened[1]


def read_part(path: Path, part: str, *, masks: bool = True) -> Prepared:
    """A part of a prepared file; an empty split where nothing was added to it.

    masks: false hides masks and twins, for the parts that methods train on
    """
    return Prepared(path, part, masks=masks)


class Joined:
    """Splits one after another, as one."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self.splits = tuple(splits)
        self._ends = list(accumulate(len(split) for split in self.splits))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> Sample:
        index = range(len(self))[index]
        which = bisect_right(self._ends, index)
        return self.splits[which][index - (self._ends[which - 1] if which else 0)]

    def manifest(self) -> list[Entry]:
        return [entry for split in self.splits for entry in manifest(split)]


def joined(*splits: Split) -> Split:
    """The splits one after another; what identifies them is not read again."""
    return Joined(splits)


def file_digests(paths: Sequence[Path], progress: Progress = silent) -> list[str]:
    """The sha256 of every file's bytes. Remembered while a file keeps its place, size and times,
    so that only new files are read; forgetting costs a read and nothing else."""
    memo = cache_root() / "data" / "digests.json"
    try:
        known = dict(json.loads(memo.read_bytes()))
    except (OSError, ValueError, TypeError):
        known = {}
    found: list[str] = []
    fresh = {}
    for path in paths:
        place = str(path.absolute())
        try:
            facts = path.stat()
            stamp = f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
            old = known.get(place)
            if not (isinstance(old, list) and len(old) == 2 and old[0] == stamp):
                with path.open("rb") as file:
                    old = fresh[place] = [stamp, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        found.append(old[1])
        progress("reading files", len(found), len(paths))
    if fresh:
        memo.parent.mkdir(parents=True, exist_ok=True)
        half = memo.with_name(f"digests.{os.getpid()}.part")
        half.write_text(json.dumps(known | fresh))
        os.replace(half, memo)
    return found


def _place(name: str, identity: Mapping[str, object]) -> Path:
    digest = hashlib.sha256(_canonical(identity).encode()).hexdigest()[:16]
    return cache_root() / "data" / f"{name}-{digest}.h5"


def _canonical(identity: Mapping[str, object]) -> str:
    return json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _trouble(path: Path, identity: Mapping[str, object]) -> str | None:
    """Why the file cannot be used, or None. Reads its tables, not its voxels."""
    if not path.exists():
        return f"{path.name} is not there."
    try:
        with _reading(path), _open(path) as file:
            if _read_text(file, "identity") != _canonical(identity):
                return f"{path.name} holds another dataset than its name says."
            for part in json.loads(_read_text(file, "parts")):
                _read_table(file, part)
    except DataError as error:
        return error.summary
    return None


def _open(path: Path) -> h5py.File:
    return h5py.File(path, "r", locking=False)  # never written to again: nothing to lock


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever HDF5 makes of a damaged file becomes one error that says how to mend it."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0].strip("'\"")
        raise DataError(
            f"{path.name} cannot be read ({reason}). Delete {path} and run again: it is made anew."
        ) from error


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    stored = group[name]  # not .get, which takes a damaged entry for an absent one
    if not isinstance(stored, h5py.Dataset):
        raise KeyError(f"its {name} holds no values")
    return stored


def _read_table(file: h5py.File, part: str) -> list[dict[str, Any]]:
    if part not in json.loads(_read_text(file, "parts")):
        return []
    return json.loads(_read_text(file, f"{part}/table"))


def _write_text(group: h5py.Group, name: str, text: str) -> None:
    """As bytes in a checksummed dataset: HDF5 does not checksum strings, nor long attributes."""
    data = np.frombuffer(text.encode(), np.uint8)
    chunk = (min(len(data), 1 << 20),)
    group.create_dataset(name, data=data, chunks=chunk, compression="lzf", fletcher32=True)


def _read_text(group: h5py.Group, name: str) -> str:
    return _dataset(group, name)[()].tobytes().decode()


def _sync(path: Path) -> None:
    """Ask the disk to keep a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
