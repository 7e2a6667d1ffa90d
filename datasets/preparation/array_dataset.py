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
    """A sample of a file that holds many. position: where in the file"""

    position: int
    key: str
    group: str
    label: bool
    split: str


class ArrayDataset(FileDataset, ABC):
    """A layout whose files hold too many samples to make a case of each: its survey shares them
    out itself, and bundles those of one file and split."""

    _case_samples: dict[str, list[ArraySample]]

    def _make_cases(
        self, samples: Iterable[ArraySample], files: Mapping[str, Path], name: str, max_samples: int
    ) -> Iterator[Case]:
        """Cases of at most so many samples each. What they hold goes into the identity."""
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
    """Samples that are equal to the last bit: problems across splits, notes within one.

    samples: (name, split, values), one after another; only their hashes are kept
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
