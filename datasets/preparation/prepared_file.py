"""The prepared file of a dataset, and the splits that are read from it.

One HDF5 file holds every part of one dataset. Each sample is a chunk of its own with a checksum,
so that a sample is read alone and a flipped byte is detected; all small values are in one
checksummed table per part. The file gets its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import torch
from filelock import FileLock
from torch import Tensor

from ..base import DataError, ManifestEntry, Sample, Spec, Split, Tile, manifest
from ..io.file_hashes import cache_root
from ..io.hdf5 import get_dataset, hdf5_errors, open_read_only, read_table_text, read_text
from .table_rows import TableRows
from .writer import SampleWriter


def prepare_once(
    name: str,
    key_inputs: Mapping[str, object] | Callable[[], Mapping[str, object]],
    write: Callable[[SampleWriter], Sequence[str] | None],
    *,
    spec: Spec,
    leaky: bool = False,
) -> Path:
    """Return the prepared file of a dataset; write it if it does not exist.

    name: first part of the file name
    key_inputs: everything that the samples depend on, as JSON values; no paths and no times. A
        function that returns them, where they are many: they are not held while samples are read
    write: adds every sample to a SampleWriter, and returns notes for the user, which are stored
        beside the file. If it raises, nothing stays; if it is interrupted or killed, its finished
        units stay and the next call continues after them
    spec: channels and shape that every sample must have
    leaky: whether a group may be in two splits

    Other processes that need the same file wait for it.

    >>> from tempfile import TemporaryDirectory
    >>> from unittest.mock import patch
    >>> sample = Sample(torch.ones(1, 4), "a", "a", False)
    >>> with TemporaryDirectory() as folder, patch.dict("os.environ", ADBENCH_CACHE=folder):
    ...     write = lambda writer: writer.add("train", sample)
    ...     path = prepare_once("ones", {"seed": 0}, write, spec=Spec(1, (4,)))
    ...     read_part(path, "train")[0].x
    tensor([[1., 1., 1., 1.]])
    """
    identity = _canonical_json(key_inputs if isinstance(key_inputs, Mapping) else key_inputs())
    path = _prepared_path(name, identity)
    if _defect(path, identity) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        defect = _defect(path, identity)
        if defect is None:
            return path
        if path.exists():
            corrupt_path = path.with_name(f"{path.name}.corrupt")
            os.replace(path, corrupt_path)
            warnings.warn(
                f"{defect} Renamed to {corrupt_path.name} and prepared again.", stacklevel=2
            )
        writer = SampleWriter(path.with_suffix(".parts"), identity, spec, leaky=leaky)
        try:
            _write_notes(path, write(writer) or ())
            writer.finish(path)
        except Exception:
            writer.discard()
            raise
        except BaseException:  # Ctrl-C: the next call continues after the finished units
            writer.close()
            raise
    return path


def find_prepared(name: str, key_inputs: Mapping[str, object]) -> Path | None:
    """Return the prepared file if it exists and is complete, otherwise None.

    name, key_inputs: as for `prepare_once`

    >>> from tempfile import TemporaryDirectory
    >>> from unittest.mock import patch
    >>> with TemporaryDirectory() as folder, patch.dict("os.environ", ADBENCH_CACHE=folder):
    ...     path = prepare_once("empty", {"seed": 0}, lambda writer: None, spec=Spec(1, (4,)))
    ...     find_prepared("empty", {"seed": 0}) == path, find_prepared("empty", {"seed": 1})
    (True, None)
    """
    identity = _canonical_json(key_inputs)
    path = _prepared_path(name, identity)
    return path if _defect(path, identity) is None else None


def read_notes(path: Path) -> list[str]:
    """Return the notes that were stored with a prepared file; none if there are none.

    path: of the prepared file

    >>> read_notes(Path("missing.h5"))
    []
    """
    try:
        notes = json.loads(_notes_path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _notes_path(path: Path) -> Path:
    return path.with_suffix(".notes.json")


def _write_notes(path: Path, notes: Sequence[str]) -> None:
    """Store the notes beside a prepared file, before it appears; the file is whole or not there."""
    target = _notes_path(path)
    target.unlink(missing_ok=True)
    if notes:
        temporary = target.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(list(notes)), "utf-8")
        os.replace(temporary, target)


class PreparedSplit:
    """One part of a prepared file, as a split.

    path: the prepared file; opened at first use, once per process
    part: name of the part
    masks: false hides masks and healthy counterparts

    Keeps the table of the part in memory, and no voxels.

    >>> from tempfile import TemporaryDirectory
    >>> sample = Sample(torch.ones(1, 4), "a", "a", True, mask=torch.ones(4, dtype=torch.bool))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "ones.h5")
    ...     writer = SampleWriter(Path(folder, "parts"), "{}", Spec(1, (4,)))
    ...     writer.add("test", sample)
    ...     writer.finish(path)
    ...     splits = [PreparedSplit(path, "test", masks=masks) for masks in (True, False)]
    ...     [split[0].mask for split in splits]
    [tensor([True, True, True, True]), None]
    """

    def __init__(self, path: Path, part: str, *, masks: bool = True) -> None:
        self.path, self.part, self.masks = Path(path), part, masks
        self._opened: tuple[int, h5py.File] | None = None
        self._rows: TableRows | None = None

    def __len__(self) -> int:
        return len(self._read_table())

    def __getitem__(self, index: int, /) -> Sample:
        row = self._read_table()[index]
        index = range(len(self))[index]
        hidden = set() if self.masks else {"mask", "counterpart"}
        with hdf5_errors(self.path):
            tensors = {name: self._read_values(name, index) for name in set(row["has"]) - hidden}
            return Sample(
                x=tensors["x"],
                key=row["key"],
                group=row["group"],
                label=row["label"],
                mask=tensors.get("mask"),
                roi=tensors.get("roi"),
                spacing=None if row["spacing"] is None else tuple(row["spacing"]),
                tags=dict(row["tags"]),
                tile=None if row["tile"] is None else Tile(*map(_as_tuple, row["tile"])),
                counterpart=tensors.get("counterpart"),
                boxes=_boxes_of(row) if self.masks else None,
            )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Prepared({self.path.name}, {self.part})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}  # an open file does not travel

    def manifest(self) -> list[ManifestEntry]:
        """Return the identity of every sample as it is read, from the table alone."""
        content = "content" if self.masks else "content without mask"
        return [ManifestEntry(row["key"], row[content], row["group"]) for row in self._read_table()]

    def _read_values(self, name: str, index: int) -> Tensor:
        stored = torch.from_numpy(get_dataset(self._open_file(), f"{self.part}/{name}")[index])
        return stored.bool() if stored.dtype == torch.uint8 else stored

    def _read_table(self) -> TableRows:
        if self._rows is None:
            with hdf5_errors(self.path):
                self._rows = TableRows(read_table_text(self._open_file(), self.part))
        return self._rows

    def _open_file(self) -> h5py.File:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_read_only(self.path)  # a forked child opens its own
        return self._opened[1]


def read_part(path: Path, part: str, *, masks: bool = True) -> PreparedSplit:
    """Return a part of a prepared file as a split; it is empty if no sample was added to it.

    path: the prepared file
    part: "train", "train-abnormal", "held_out", "val" or "test"
    masks: false hides masks and healthy counterparts, for parts that methods train on

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "ones.h5")
    ...     writer = SampleWriter(Path(folder, "parts"), "{}", Spec(1, (4,)))
    ...     writer.add("train", Sample(torch.ones(1, 4), "a", "a", False))
    ...     writer.finish(path)
    ...     len(read_part(path, "train")), len(read_part(path, "val"))
    (1, 0)
    """
    return PreparedSplit(path, part, masks=masks)


class ConcatenatedSplit:
    """Several splits, one after another.

    splits: in order

    >>> len(ConcatenatedSplit([[], []]))
    0
    """

    def __init__(self, splits: Sequence[Split]) -> None:
        self.splits = tuple(splits)
        self._ends = list(accumulate(len(split) for split in self.splits))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> Sample:
        index = range(len(self))[index]
        split_index = bisect_right(self._ends, index)
        return self.splits[split_index][index - (self._ends[split_index - 1] if split_index else 0)]

    def manifest(self) -> list[ManifestEntry]:
        return [entry for split in self.splits for entry in manifest(split)]


def concatenate(*splits: Split) -> Split:
    """Return several splits as one; manifests are joined without reading samples.

    splits: in order

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> sample = Sample(torch.zeros(1, 4), "a", "a", False)
    >>> len(concatenate([sample], [sample, sample]))
    3
    """
    return ConcatenatedSplit(splits)


def _boxes_of(row: Mapping[str, Any]) -> tuple[tuple[int, ...], ...] | None:
    boxes = row.get("boxes")  # files of an older adbench have none
    return None if boxes is None else tuple(tuple(box) for box in boxes)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _prepared_path(name: str, identity: str) -> Path:
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_root() / "data" / f"{name}-{digest}.h5"


def _canonical_json(key_inputs: Mapping[str, object]) -> str:
    return json.dumps(key_inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _defect(path: Path, identity: str) -> str | None:
    """Return why the file cannot be used, or None. Reads its tables, not its voxels.

    identity: canonical JSON of the cache-key inputs
    """
    if not path.exists():
        return f"{path.name} is not there."
    try:
        with hdf5_errors(path), open_read_only(path) as file:
            if read_text(file, "identity") != identity:
                return f"{path.name} holds another dataset than its name says."
            for part in json.loads(read_text(file, "parts")):
                read_text(file, f"{part}/table")  # its checksum
    except DataError as error:
        return error.summary
    return None
