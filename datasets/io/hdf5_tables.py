"""Metadata of samples in an HDF5 file: shapes, labels, groups and splits, without voxels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..base import DataError
from .folder_names import pool_of
from .hdf5_arrays import find_dataset, is_complex, open_hdf5, require_dataset

CALIBRATION_NAMES = ("held_out", "held-out", "heldout", "calibration")


@dataclass(frozen=True)
class SampleTable:
    """Metadata of all samples of one file.

    name: of the file in errors and keys
    channels, shape: C and S of every sample; complex ones have two channels each
    roles: the datasets that the file has: "x", "label", "mask", "roi", "group", "split"
    labels: true where abnormal
    groups: of every sample; None if the file has none
    splits: of every sample; None if the file has none

    >>> table = SampleTable("a.h5", 1, (8,), frozenset({"x"}), [False, True], None, None)
    >>> table.keys()
    ['a/000000', 'a/000001']
    """

    name: str
    channels: int
    shape: tuple[int, ...]
    roles: frozenset[str]
    labels: list[bool]
    groups: list[str] | None
    splits: list[str] | None

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @property
    def has_masks(self) -> bool:
        """Whether the file has masks."""
        return "mask" in self.roles

    def keys(self) -> list[str]:
        """Return the key of every sample: file name and index."""
        stem = self.name.rpartition(".")[0]
        return [f"{stem}/{index:06d}" for index in range(self.count)]

    def group_names(self) -> list[str]:
        """Return the group of every sample; its key if the file has no groups."""
        return self.keys() if self.groups is None else self.groups


def read_sample_table(
    path: Path,
    name: str,
    dataset_names: Mapping[str, str],
    axes: int | None,
    *,
    labelled: bool = True,
) -> SampleTable:
    """Return the metadata of all samples of a file. Reads no voxels.

    path: of the file
    name: of the file in errors and keys
    dataset_names: name of the dataset of each role
    axes: number of spatial axes of a sample; None to infer it
    labelled: false takes a file without labels, and calls all of it normal

    Raises DataError with all problems of the file.

    >>> with h5py.File("samples.h5", "w") as file:
    ...     file["x"], file["label"] = np.zeros((2, 1, 8)), [0, 1]
    >>> table = read_sample_table(Path("samples.h5"), "samples.h5", {"x": "x", "label": "label"}, 1)
    >>> table.shape, table.labels
    ((8,), [False, True])
    """
    with open_hdf5(path, name) as file:
        x = require_dataset(file, dataset_names["x"], name)
        if x.ndim < 2 or 0 in x.shape:
            raise DataError(f"{name} has {dataset_names['x']} of shape {x.shape}, not (N, C, *S)")
        if x.dtype.fields and not is_complex(x.dtype):
            fields = ", ".join(x.dtype.fields)
            raise DataError(
                f"{name} holds records of {fields} in {dataset_names['x']}: store the numbers as "
                "an array (complex ones have the fields r and i)"
            )
        if x.dtype.kind not in "buif" and not is_complex(x.dtype):
            raise DataError(f"{name} holds {x.dtype} in {dataset_names['x']}, no numbers")
        stored = {
            role: find_dataset(file, dataset_name, name, sparse=role in ("mask", "roi"))
            for role, dataset_name in dataset_names.items()
        }
        has = frozenset(role for role, dataset in stored.items() if dataset is not None)
        mask_shapes = {
            role: dataset.shape
            for role, dataset in stored.items()
            if role in ("mask", "roi") and dataset is not None
        }
        channels, shape = infer_channels_and_shape(x.shape, mask_shapes, name, axes)
        problems = [
            f"{name} has {role} of shape {flag_shape}, its {dataset_names['x']} has {x.shape}"
            for role, flag_shape in mask_shapes.items()
            if flag_shape not in ((x.shape[0], *shape), (x.shape[0], 1, *shape))
        ]
        x_type, count = x.dtype, x.shape[0]
        columns: dict[str, list[str]] = {}
        for role in ("label", "group", "split"):
            if role in has or (role == "label" and labelled):
                try:
                    columns[role] = read_column(
                        require_dataset(file, dataset_names[role], name), x.shape[0]
                    )
                except DataError as error:
                    problems.append(f"{name}: {dataset_names[role]} {error.summary}")
    wrong_values = {
        "label": Counter(v for v in columns.get("label", ()) if v not in ("0", "1")),
        "split": Counter(v for v in columns.get("split", ()) if not split_name(v)),
    }
    allowed = {"label": "0 and 1", "split": "train, held_out, val, test"}
    for role, counts in wrong_values.items():
        if counts:
            examples = ", ".join(f"{value!r} ({count})" for value, count in counts.most_common(5))
            problems.append(
                f"{name}: {dataset_names[role]} holds {examples}; it may hold {allowed[role]}"
            )
    if problems:
        raise DataError(f"{name} is unusable", problems)
    splits = [split_name(value) for value in columns["split"]] if "split" in columns else None
    labels = [value == "1" for value in columns["label"]] if "label" in columns else [False] * count
    channels *= 1 + is_complex(x_type)
    return SampleTable(name, channels, shape, has, labels, columns.get("group"), splits)


def infer_channels_and_shape(
    x_shape: tuple[int, ...],
    mask_shapes: Mapping[str, tuple[int, ...]],
    name: str,
    axes: int | None,
) -> tuple[int, tuple[int, ...]]:
    """Return channels and spatial shape of a sample, inferred from the shapes of x and the masks.

    x_shape: (N, C, *S) or (N, *S)
    mask_shapes: by role
    name: of the file in errors
    axes: number of spatial axes; None to infer it

    Raises DataError if the shape is ambiguous.

    >>> infer_channels_and_shape((10, 3, 64, 64), {}, "a.h5", None)
    (3, (64, 64))
    """
    inner = x_shape[1:]
    for shape in mask_shapes.values():
        if axes is None and len(inner) > 1 and shape[1:] == inner[1:]:
            axes = len(inner) - 1
        elif axes is None and shape[1:] == inner:  # (N, 1, *S) rather has one channel
            axes = len(inner) - (len(inner) > 1 and inner[0] == 1)
    if axes is None and len(inner) in (1, 4):
        axes = min(len(inner), 3)
    if axes is None:
        if x_shape[-1] <= 4:
            choices = f"axes={len(inner) - 1} or axes={len(inner)}"
            question = f"is its last axis channels or space? Store (N, C, *S), or say {choices}"
            raise DataError(f"{name} has samples of shape {inner}: {question}")
        axes = len(inner) - (x_shape[1] <= 4)
    if len(inner) == axes:
        return 1, inner
    if len(inner) == axes + 1:
        return x_shape[1], inner[1:]
    raise DataError(
        f"{name} has samples of shape {inner}: not {axes} axes, nor channels and {axes}"
    )


def read_column(dataset: h5py.Dataset, count: int) -> list[str]:
    """Return one value per sample as text; whole numbers have no decimal point.

    dataset: (N,) or (N, 1)
    count: N

    Raises DataError for another shape, and for fractions or NaN.

    >>> with h5py.File("column.h5", "w") as file:
    ...     file["label"] = [0.0, 1.0]
    ...     read_column(file["label"], 2)
    ['0', '1']
    """
    if dataset.shape not in ((count,), (count, 1)):
        raise DataError(f"has shape {dataset.shape}, not ({count},): one for each sample")
    values = dataset[()].reshape(count)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise DataError("holds fractions or NaN")
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    return [
        v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else str(v)
        for v in values.tolist()
    ]


def split_name(value: str) -> str:
    """Return the name of a split that a file spells in another way, or "" for an unknown one.

    value: as in the file

    >>> split_name("Validation"), split_name("other")
    ('val', '')
    """
    return "held_out" if value.strip().lower() in CALIBRATION_NAMES else pool_of(value)


def table_mismatches(tables: Sequence[SampleTable]) -> list[str]:
    """Return a problem for each difference between a file and the first in shape and roles.

    tables: of all files

    >>> a = SampleTable("a.h5", 1, (8,), frozenset(), [False], None, None)
    >>> b = SampleTable("b.h5", 1, (9,), frozenset(), [False], None, None)
    >>> table_mismatches([a, b])
    ['b.h5 has samples of (1, 9), a.h5 of (1, 8)']
    """
    first = tables[0]
    problems = []
    for other in tables[1:]:
        if (other.channels, other.shape) != (first.channels, first.shape):
            extents, first_extents = ((t.channels, *t.shape) for t in (other, first))
            problems.append(
                f"{other.name} has samples of {extents}, {first.name} of {first_extents}"
            )
        for role in ("mask", "group", "split"):
            if (role in other.roles) != (role in first.roles):
                has, lacks = (other, first) if role in other.roles else (first, other)
                problems.append(f"{has.name} has {role!r}, {lacks.name} has not")
    return problems


def split_problems(tables: Sequence[SampleTable]) -> list[str]:
    """Return a problem for each group in several splits, and each abnormal calibration sample.

    tables: of all files

    >>> table = SampleTable("a.h5", 1, (8,), frozenset(), [True], None, ["held_out"])
    >>> split_problems([table])
    ['a/000000 is abnormal, and its split is held_out: move it to val or test']
    """
    splits_of_group: dict[str, Counter[str]] = defaultdict(Counter)
    problems = []
    for t in tables:
        rows = zip(t.keys(), t.group_names(), t.labels, t.splits or (), strict=True)
        for key, group, label, split in rows:
            splits_of_group[group][split] += 1
            if label and split == "held_out":
                problems.append(
                    f"{key} is abnormal, and its split is held_out: move it to val or test"
                )
    for group, split_counts in splits_of_group.items():
        if len(split_counts) > 1:
            location = " and ".join(
                f"{split} ({count})" for split, count in sorted(split_counts.items())
            )
            problems.append(f"group {group} is in {location}: a patient belongs to one split")
    return problems
