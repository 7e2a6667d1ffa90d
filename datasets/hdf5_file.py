"""Dataset of a user's own HDF5 files: signals, images or volumes, with labels, masks and groups.

    x (N, C, *S) or (N, *S)     label (N,), 1 where abnormal
    mask, roi (N, *S)           group (N,), names or numbers: patient, recording
    split (N,), of "train", "held_out", "val", "test"

All but x and label may be missing; an argument says what each is called. One file, or all under a
folder; each holds its own N, all of one shape. Complex x has two channels each: all real parts,
then all imaginary parts.

A mask holds 0 where normal and one other number where abnormal. -1, and 255 in files whose masks
hold 1, too, mark what nobody judged: it is outside of the roi, so that it counts neither as normal
nor as abnormal. A roi holds 0 where nothing is evaluated and one other number elsewhere.

All values must lie in the file itself: links into other files, virtual datasets and raw files
outside are refused, because HDF5 reads what is missing there as zeros.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch

from .base import DataError, FourFractions, Natural, Sample, Spec, ThreeFractions
from .io.directories import find_files, name_conflicts
from .io.hdf5_arrays import (
    Array,
    Scale,
    is_complex,
    open_hdf5,
    real_and_imaginary,
    require_dataset,
    scale_to_unit_range,
)
from .io.hdf5_tables import SampleTable, read_sample_table, split_problems, table_mismatches
from .io.mask_values import (
    are_whole_numbers,
    ignored_numbers,
    mask_number_problems,
    read_distinct_numbers,
)
from .io.value_range import ValueRange, outside_range_text
from .preparation.array_dataset import ArrayDataset, ArraySample, find_duplicate_samples
from .preparation.cases import CaseSamples, DatasetIndex
from .splits.assignment import Case, assign_groups, check_fractions

MAX_SAMPLES, MAX_BYTES = 512, 16 << 20
"""Samples, and their bytes, that are read together at most."""


class HDF5(ArrayDataset):
    """Samples from the arrays of one or several HDF5 files.

    root: the file or the folder; else $ADBENCH_DATA
    x, label, mask, roi, group, split: names of the datasets in the files
    axes: how many spatial axes a sample has; None to tell from masks and shape (a first axis of up
        to 4 holds channels)
    scale: "range" scales all samples alike; "minmax" and "p1p99" scale each sample by its own
        values (within roi)
    range: with scale="range", the stored numbers that become 0 and 1, such as (0, 4095), or "train"
        for the smallest and the largest of all normal training samples; what lies beyond is cut off
        and counted. None takes integers by the ends of their type, and floats must lie in 0..1
    nan: "zero" takes NaN for 0; else it is an error
    fractions: of the groups in train, held_out, val and test, where no split is given; of the first
        two where the file says train but not held_out
    abnormal: of the groups that hold abnormal samples only, in train, val and test
    allow_empty_mask: accept abnormal samples with an empty mask
    seed: which groups go where

    >>> import h5py
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.hdf5_file import HDF5
    >>> with TemporaryDirectory() as root:
    ...     with h5py.File(Path(root, "ecg.h5"), "w") as file:
    ...         file["x"] = np.zeros((3, 2, 64), np.uint8)  # three signals of two leads
    ...         file["label"] = [0, 0, 1]
    ...     data = HDF5(axes=1)
    ...     index = data.build_index(Path(root))
    >>> data.spec.channels, data.spec.shape, len(index.cases)
    (2, (64,), 3)
    """

    name = "hdf5"
    new_file_suffixes = (".h5", ".hdf5")
    preparation_version = 2  # 2: numbers of masks to ignore
    expected = "<root>/*.h5 (or one file) with x (N, C, *S), label (N,) and, if known, mask, group"

    def __init__(
        self,
        *,
        root: str | None = None,
        x: str = "x",
        label: str = "label",
        mask: str = "mask",
        roi: str = "roi",
        group: str = "group",
        split: str = "split",
        axes: Literal[1, 2, 3] | None = None,
        scale: Scale = "range",
        range: ValueRange | None = None,
        nan: Literal["error", "zero"] = "error",
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        abnormal: ThreeFractions = (0.0, 0.3, 0.7),
        allow_empty_mask: bool = False,
        seed: Natural = 0,
    ) -> None:
        if scale not in ("range", "minmax", "p1p99") or nan not in ("error", "zero"):
            raise ValueError("scale is 'range', 'minmax' or 'p1p99', and nan 'error' or 'zero'")
        if axes not in (None, 1, 2, 3):
            raise ValueError(f"axes is 1, 2 or 3, not {axes!r}")
        if range is not None and scale != "range":
            raise ValueError(
                f"range={range!r} scales all samples alike, scale={scale!r} each alone"
            )
        self._set_range(range)
        self.root, self.axes, self.nan, self.seed = root, axes, nan, seed
        self.scale: Scale = scale
        self.x, self.label, self.mask, self.roi = x, label, mask, roi
        self.group, self.split, self.allow_empty_mask = group, split, allow_empty_mask
        self.fractions = check_fractions(fractions, 4)
        self.abnormal = check_fractions([*abnormal][::-1], 3)[::-1]
        self._case_samples: dict[str, list[ArraySample]] = {}
        self._tables: dict[Path, SampleTable] = {}
        self._ignored: frozenset[int] = frozenset()

    def build_index(self, root: Path) -> DatasetIndex:
        paths = [root] if root.is_file() else list(find_files(root, (".h5", ".hdf5")))
        base = root.parent if root.is_file() else root
        problems, tables = name_conflicts(paths, base), dict[Path, SampleTable]()
        for path in paths:
            name = path.relative_to(base).as_posix()
            try:
                tables[path] = read_sample_table(path, name, self.dataset_names(), self.axes)
            except DataError as error:
                problems += error.problems or (error.summary,)
        if problems and not tables:
            raise DataError(f"these files are unusable. {self._repair_advice()}", problems)
        if not tables:
            raise self.no_data_error(f"no .h5 file lies under {root}")
        self._case_samples, self._tables = {}, tables
        problems += table_mismatches(list(tables.values()))
        problems += self._read_mask_numbers()
        first = next(iter(tables.values()))
        rows, assignment_problems, notes = self._assign_rows(tables)
        problems += assignment_problems
        labels = any(
            r.label and r.split == "train" for rows_of_file in rows.values() for r in rows_of_file
        )
        self.spec = Spec(first.channels, first.shape, labels=labels, masks=first.has_masks)
        cases: list[Case] = []
        for path, rows_of_file in rows.items():
            name, max_samples = tables[path].name, _samples_per_case(first)
            cases += self._make_cases(rows_of_file, {"image": path}, name, max_samples)
        return DatasetIndex(cases, problems, notes)

    def find_new_cases(self, path: Path) -> DatasetIndex:
        """Return the cases of files that need no label: x, and roi and group where there are any.

        path: as for any dataset. A sample has the key that it has in a dataset of the folder
        """
        base = path if path.is_dir() else path.parent
        files = find_files(path, self.new_file_suffixes) if path.is_dir() else [path]
        names = {role: getattr(self, role) for role in ("x", "roi", "group")}
        cases, problems = list[Case](), list[str]()
        for file in files:
            name = file.relative_to(base).as_posix()
            try:
                axes = len(self.spec.shape)
                table = read_sample_table(file, name, names, axes, labelled=False)
            except DataError as error:
                problems += error.problems or (error.summary,)
                continue
            expected = (self.spec.channels, *self.spec.shape)
            if (table.channels, *table.shape) != expected:
                size = (table.channels, *table.shape)
                problems.append(f"{name} has samples of {size}, the detector takes {expected}")
                continue
            self._tables[file] = table
            rows = [
                ArraySample(i, key, group, False, "")
                for i, (key, group) in enumerate(
                    zip(table.keys(), table.group_names(), strict=True)
                )
            ]
            cases += self._make_cases(rows, {"image": file}, str(file), _samples_per_case(table))
        return DatasetIndex(cases, problems)

    def _read_mask_numbers(self) -> list[str]:
        """Set `_ignored` from the masks of all files, and return what is wrong with them."""
        numbers: dict[str, dict[str, set[int]]] = {"mask": {}, "roi": {}}
        for path, table in self._tables.items():
            with open_hdf5(path, table.name) as file:
                for role in numbers.keys() & table.roles:
                    stored = require_dataset(file, getattr(self, role), table.name, sparse=True)
                    numbers[role][table.name] = read_distinct_numbers(stored)
        self._ignored = ignored_numbers(numbers["mask"])
        return [
            *mask_number_problems(numbers["mask"], self._ignored, self.mask),
            *mask_number_problems(numbers["roi"], frozenset(), self.roi),
        ]

    def dataset_names(self) -> dict[str, str]:
        """Return the name of each role's dataset in the files."""
        roles = ("x", "label", "mask", "roi", "group", "split")
        return {role: getattr(self, role) for role in roles}

    def _assign_rows(
        self, tables: Mapping[Path, SampleTable]
    ) -> tuple[dict[Path, list[ArraySample]], list[str], list[str]]:
        """Return the rows of every file with their splits, problems and notes."""
        all_tables = list(tables.values())
        split_of, problems = {}, list[str]()
        if all(t.splits is not None for t in all_tables):
            problems += split_problems(all_tables)
            split_of = self._assign_calibration(all_tables)
        else:
            split_of = self._assign_groups(all_tables)
        rows = {
            path: [
                ArraySample(
                    i, key, group, label, split_of.get(group, "") if split is None else split
                )
                for i, (key, group, label, split) in enumerate(
                    zip(
                        t.keys(),
                        t.group_names(),
                        t.labels,
                        self._file_splits(t, split_of),
                        strict=True,
                    )
                )
            ]
            for path, t in tables.items()
        }
        ungrouped = sum(t.count for t in all_tables if t.groups is None)
        note = f"{ungrouped} samples have no {self.group!r}: each counts as a patient of its own"
        return rows, problems, [note] if ungrouped else []

    def _file_splits(self, table: SampleTable, split_of: Mapping[str, str]) -> Iterator[str | None]:
        """Yield the split of each sample in the file, or None; training samples that become
        calibration have that split."""
        for group, split in zip(
            table.group_names(), table.splits or [None] * table.count, strict=True
        ):
            yield split_of.get(group, split) if split == "train" else split

    def _assign_calibration(self, tables: Sequence[SampleTable]) -> dict[str, str]:
        """Return the training groups that become calibration, if the files have none."""
        if any("held_out" in (t.splits or ()) for t in tables):
            return {}
        labels_of_group = defaultdict[str, set[bool]](set)
        for t in tables:
            for group, label, split in zip(t.group_names(), t.labels, t.splits or (), strict=True):
                if split == "train":
                    labels_of_group[group].add(label)
        normal = {group for group, labels in labels_of_group.items() if labels == {False}}
        total = sum(self.fractions[:2])
        fractions = {"train": self.fractions[0] / total, "held_out": self.fractions[1] / total}
        return assign_groups(normal, fractions, self.seed)

    def _assign_groups(self, tables: Sequence[SampleTable]) -> dict[str, str]:
        """Return the split of every group."""
        normal, groups = set[str](), set[str]()
        for t in tables:
            groups |= set(t.group_names())
            normal |= {g for g, label in zip(t.group_names(), t.labels, strict=True) if not label}
        fractions: dict[str, float] = dict(
            zip(("train", "held_out", "val", "test"), self.fractions, strict=True)
        )
        fractions["val"] = fractions.pop("val")  # of few groups, val is the one to go without
        abnormal_fractions: dict[str, float] = dict(
            zip(("test", "val", "train"), self.abnormal[::-1], strict=True)
        )
        return assign_groups(normal, fractions, self.seed) | assign_groups(
            groups - normal, abnormal_fractions, self.seed
        )

    def read(self, case: Case) -> CaseSamples:
        path = case.files["image"]
        table = self._tables[path]
        samples, problems, notes, outside = [], list[str](), list[str](), 0
        with open_hdf5(path, table.name) as file:
            for row in self._case_samples[case.name]:
                sample, sample_problems, constant = self._read_sample(file, table, row)
                problems += sample_problems
                if constant:
                    notes.append(f"{row.key} holds one value only: no method trains on it")
                if sample is not None and self._limits is not None:
                    outside += int(((sample.x < 0) | (sample.x > 1)).sum())
                    sample.x.clamp_(0, 1)
                if sample is not None and not (constant and row.split in ("train", "held_out")):
                    samples.append(sample)
        if problems:
            raise DataError(f"{case.name} is unusable", problems)
        counts = {} if self._limits is None else {outside_range_text(self._limits): outside}
        return CaseSamples(samples, notes, counts=counts)

    def _read_sample(
        self, file: h5py.File, table: SampleTable, row: ArraySample
    ) -> tuple[Sample | None, list[str], bool]:
        """Return a sample, all its problems, and whether it is constant."""
        flags, problems = self._read_flags(file, table, row)
        mask, roi = flags["mask"], flags["roi"]
        x, constant = None, False
        try:
            raw = self._stored_numbers(file, table, row)
            x, constant = scale_to_unit_range(raw, self.scale, row.key, roi, self._limits)
        except DataError as error:
            problems.append(error.summary)
        if mask is not None and mask.any() and not row.label:
            problems.append(f"the mask of {row.key} marks an anomaly, and its label says normal")
        if mask is not None and not mask.any() and row.label and not self.allow_empty_mask:
            reason = "and its label says abnormal (allow_empty_mask=true takes that)"
            problems.append(f"the mask of {row.key} is empty, {reason}")
        if roi is not None and not roi.any():
            problems.append(f"{row.key} has nothing to evaluate: roi and mask leave no part of it")
        if x is None or problems:
            return None, problems, False
        tensors: dict[str, Any] = {
            role: None if values is None else torch.from_numpy(values)
            for role, values in flags.items()
        }
        sample = Sample(torch.from_numpy(x), row.key, row.group, row.label, **tensors)
        return sample, [], constant

    def _read_flags(
        self, file: h5py.File, table: SampleTable, row: ArraySample
    ) -> tuple[dict[str, Array | None], list[str]]:
        """Return mask and roi of a sample, (*S) bool or None, and their problems."""
        flags: dict[str, Array | None] = {"mask": None, "roi": None}
        problems: list[str] = []
        ignored: Array | None = None
        for role in flags:
            if role in table.roles:
                stored = require_dataset(file, getattr(self, role), table.name, sparse=True)
                raw = np.asarray(stored[row.position]).reshape(table.shape)
                if not are_whole_numbers(raw):
                    problems.append(f"the {role} of {row.key} holds fractions, such as 0.9999")
                if role == "mask":
                    ignored = np.isin(np.rint(raw), list(self._ignored))
                    raw = np.where(ignored, 0, raw)
                flags[role] = raw != 0
        if ignored is not None and ignored.any():
            flags["roi"] = ~ignored if flags["roi"] is None else flags["roi"] & ~ignored
        return flags, problems

    def _stored_numbers(self, file: h5py.File, table: SampleTable, row: ArraySample) -> Array:
        """Return a sample as (C, *S) real numbers as they are stored."""
        raw = np.asarray(require_dataset(file, self.x, table.name)[row.position])
        parts = real_and_imaginary(raw) if is_complex(raw.dtype) else (raw,)
        values = np.concatenate([part.reshape(-1, *table.shape) for part in parts])
        if self.nan == "zero" and values.dtype.kind == "f":
            values = np.where(np.isnan(values), 0, values)
        return values

    def _training_values(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> Iterator[Array]:
        for case in cases:
            path = case.files["image"]
            with open_hdf5(path, self._tables[path].name) as file:
                for row in self._case_samples[case.name]:
                    if row.split == "train" and not row.label:
                        yield self._stored_numbers(file, self._tables[path], row)

    def _find_copies(
        self, cases: Iterable[Case], digests: Mapping[Path, str], split_of: Mapping[str, str]
    ) -> tuple[list[str], list[str]]:
        """Return copied samples in addition to copied files."""
        problems, notes = super()._find_copies(cases, digests, split_of)
        duplicates = ([], []) if problems else find_duplicate_samples(self._stored_samples(cases))
        return problems + duplicates[0], notes + duplicates[1]

    def _stored_samples(self, cases: Iterable[Case]) -> Iterator[tuple[str, str, Array]]:
        for case in cases:
            path = case.files["image"]
            try:
                with open_hdf5(path, self._tables[path].name) as file:
                    values = require_dataset(file, self.x, case.name)
                    for row in self._case_samples[case.name]:
                        yield row.key, row.split, np.asarray(values[row.position])
            except DataError:
                continue  # reported when it is read


def _samples_per_case(table: SampleTable) -> int:
    size = 4 * table.channels * int(np.prod(table.shape))
    return max(1, min(MAX_SAMPLES, MAX_BYTES // size))
