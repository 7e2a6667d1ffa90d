"""Base class of datasets whose files hold many small samples each, several of which make a case."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..io.hdf5_arrays import Array
from ..splits.assignment import Case
from .file_dataset import FileDataset


class ArraySample(NamedTuple):
    """One sample of a file that holds many.

    position: index of the sample in its file
    key, group, label: as in Sample
    split: the split that the sample is assigned to

    >>> ArraySample(3, "a/000003", "patient-1", False, "train").position
    3
    """

    position: int
    key: str
    group: str
    label: bool
    split: str


class ArrayDataset(FileDataset, ABC):
    """Base class for files with too many samples to make a case of each.

    A subclass assigns samples to splits in `build_index` and groups those of one file and one split
    into cases with `_make_cases`.

    >>> from adbench.datasets.hdf5_file import HDF5
    >>> data = HDF5()
    >>> rows = [ArraySample(i, f"a/{i}", f"a/{i}", False, "train") for i in range(5)]
    >>> [case.name for case in data._make_cases(rows, {"image": Path("a.h5")}, "a.h5", 2)]
    ['a.h5/train/000000', 'a.h5/train/000002', 'a.h5/train/000004']
    """

    _case_samples: dict[str, list[ArraySample]]

    def _make_cases(
        self, samples: Iterable[ArraySample], files: Mapping[str, Path], name: str, max_samples: int
    ) -> Iterator[Case]:
        """Yield cases of at most `max_samples` samples of one split; hash the samples into `extra`,
        which is part of the cache key.
        """
        for split, group in groupby(
            sorted(samples, key=lambda r: (r.split, r.position)), _split_of
        ):
            samples_of_split = list(group)
            for start in range(0, len(samples_of_split), max_samples):
                chunk = samples_of_split[start : start + max_samples]
                case_name = f"{name}/{split}/{start:06d}"
                self._case_samples[case_name] = chunk
                digest = blake2b(repr(chunk).encode(), digest_size=16).hexdigest()
                extra = {"split": split, "rows": digest}
                yield Case(case_name, case_name, files, "", None, extra)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return {case.name: case.extra["split"] for case in cases}


def _split_of(row: ArraySample) -> str:
    return row.split


def find_duplicate_samples(
    samples: Iterable[tuple[str, str, Array]],
) -> tuple[list[str], list[str]]:
    """Return bit-identical samples: as problems across splits, as notes within one split.

    samples: (name, split, values), one after another; only their hashes stay in memory. Constant
        samples are no duplicates of each other

    >>> import numpy as np
    >>> a, b = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    >>> find_duplicate_samples([("a", "train", a), ("b", "test", b)])
    (['b (test) is a copy of a (train): remove one'], [])
    """
    first_samples: dict[bytes, tuple[str, str]] = {}
    problems, notes = [], []
    for name, split, values in samples:
        if (values == values.flat[0]).all():
            continue
        raw = np.ascontiguousarray(values).tobytes()
        first, first_split = first_samples.setdefault(
            blake2b(raw, digest_size=16).digest(), (name, split)
        )
        if first != name and first_split != split:
            problems.append(f"{name} ({split}) is a copy of {first} ({first_split}): remove one")
        elif first != name:
            notes.append(f"{name} is a copy of {first}, both in {split}")
    return problems, notes
