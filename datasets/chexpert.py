"""CheXpert: chest radiographs, healthy or with fluid around the lung (pleural effusion).

Irvin et al., "CheXpert", AAAI 2019, arXiv:1901.07031; as an anomaly set Wolleb et al., MICCAI 2022,
arXiv:2203.04306. Read are

    CheXpert-v1.0-small/{train,valid}.csv and {train,valid}/patient00001/study1/view1_frontal.jpg
    {training,testing}/{healthy,diseased}/patient00128_study3.npy     Wolleb's, uint8 (256, 256, 1)

Of the published form, frontal images count as healthy where No Finding is 1 and as abnormal where
Pleural Effusion is 1; uncertain ones (-1) and blanks are left out. Its valid.csv is the test set,
unless there is a test.csv. Nobody drew masks. A patient's studies stay together.

Differs from Wolleb's loader: the label is read from the folder's name, 0 for healthy (theirs takes
the third folder of the path, and sorts diseased before healthy); and 0 and 1 are the ends of the
stored type's range, not each image's own darkest and brightest pixel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .base import Count, DataError, FourFractions, Natural, Pair
from .io.csv import read_rows, repeated_row_problems
from .io.directories import find_files, folder_levels, list_directory, name_conflicts
from .io.folder_names import is_normal, pool_of
from .io.images import SUFFIXES
from .io.npy import read_npy_array
from .io.value_range import ValueRange
from .preparation.cases import DatasetIndex
from .preparation.deduplicated_dataset import DeduplicatedDataset
from .splits.assignment import Case, check_fractions
from .splits.published import assign_unpublished

PATIENT_NAME = re.compile(r"patient\d+")
DISEASED = "diseased"
COLUMNS = ("Path", "Frontal/Lateral", "No Finding", "Pleural Effusion")


class CheXpert(DeduplicatedDataset):
    """Frontal chest radiographs, healthy or with pleural effusion.

    root: the folder that holds training/ and testing/, or train.csv, or one above it; else
        $ADBENCH_DATA
    size, range: see ImageDataset; 256 x 256 without keeping the aspect
    split: "corrected", or "published" to keep patients that are in the training and test sets
    fractions: of patients in train, held_out, val and test; what is published needs none
    seed: which patients go where

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.chexpert import CheXpert
    >>> with TemporaryDirectory() as root:
    ...     for name in ("training/healthy/patient00001_study1.npy",
    ...                  "testing/diseased/patient00128_study3.npy"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = CheXpert().build_index(Path(root))
    >>> [(case.group, case.pool, case.label) for case in index.cases]
    [('patient00128', 'test', True), ('patient00001', 'train', False)]
    """

    name = "chexpert"
    expected = (
        "<root>/{training,testing}/{healthy,diseased}/patient00128_study3.npy, "
        "or <root>/CheXpert-v1.0-small/{train,valid}.csv with the folders they name"
    )
    new_file_suffixes = (*SUFFIXES, ".npy")
    _has_masks = False
    _has_labels = True

    def __init__(
        self,
        *,
        root: str | None = None,
        size: Count | Pair[Count] | None = 256,
        range: ValueRange | None = None,
        split: Literal["corrected", "published"] = "corrected",
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        seed: Natural = 0,
    ) -> None:
        self.root, self.seed = root, seed
        self.fractions = check_fractions(fractions, 4)
        self._set_split_policy(split)
        self._set_image_options(size, 1, range=range)

    def build_index(self, root: Path) -> DatasetIndex:
        index = _index_tables(root)
        cases, problems, notes = list(index.cases), list(index.problems), index.notes
        if not cases and not problems:
            cases, problems = _index_folders(root)
        problems += name_conflicts((case.files["image"] for case in cases), root)
        cases, leaks = self._remove_shared_subjects(cases)
        self._infer_spec(cases)
        return replace(index, cases=cases, problems=problems, notes=[*notes, *leaks])

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return assign_unpublished(cases, self.fractions, self.seed)

    def _read_pixels(self, case: Case) -> Tensor:
        path = case.files["image"]
        if path.suffix == ".npy":
            limits = self._limits or (None if self.range is None else (0.0, 1.0))
            return read_npy(path.read_bytes(), case.name, limits)
        return super()._read_pixels(case)


def read_npy(file_bytes: bytes, name: str, limits: tuple[float, float] | None = None) -> Tensor:
    """Return the image of a .npy file, (H, W) or (H, W, 1), as (1, H, W) float32 in 0..1.

    file_bytes: all bytes of the file: uint8 or uint16, scaled by the range of the type, or floats
        in 0..1
    name: of the file in errors
    limits: the stored numbers that become 0 and 1, of any type; those beyond them lie below 0 or
        above 1 then

    Raises DataError for anything else. Objects (pickles) are never loaded.

    >>> import io
    >>> buffer = io.BytesIO()
    >>> np.save(buffer, np.full((2, 3), 255, np.uint8))
    >>> read_npy(buffer.getvalue(), "white.npy").unique().tolist()
    [1.0]
    """
    array = read_npy_array(file_bytes, name)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise DataError(f"{name} has the shape {array.shape}, not (rows, columns[, 1])")
    if array.dtype.kind not in "uif" or (limits is None and array.dtype.kind == "i"):
        raise DataError(f"{name} holds {array.dtype}; it takes uint8, uint16, or floats in 0..1")
    if limits is not None:
        if not np.isfinite(array).all():
            raise DataError(f"{name} holds NaN or infinite numbers")
        low, high = limits
        array = (array.astype(np.float64) - low) / (high - low)
    elif array.dtype in (np.uint8, np.uint16):
        array = array.astype(np.float32) / np.iinfo(array.dtype).max
    elif not (np.isfinite(array).all() and 0 <= array.min() <= array.max() <= 1):
        raise DataError(
            f"{name} holds {array.dtype} outside 0..1, or NaN "
            "(range=LOW,HIGH or range=train scales all images alike)"
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]


def _index_folders(root: Path) -> tuple[list[Case], list[str]]:
    """Return the cases in the layout of Wolleb et al., and every problem."""
    cases: list[Case] = []
    problems: list[str] = []
    base = next(_matching_folders(root, _holds_classes), None)
    for path in find_files(base, [".npy"], 3) if base else ():
        pool, label = pool_of(path.parent.parent.name), _label_of_folder(path.parent.name)
        name = "/".join(path.parts[-3:])
        match = PATIENT_NAME.match(path.stem)
        if not pool or label is None:
            problems.append(f"{name} lies in no {{training,testing}}/{{healthy,diseased}} folder")
        elif match is None:
            problems.append(f"{name} has no patient in its name (patient00128_study3.npy)")
        else:
            cases.append(Case(name, match[0], {"image": path}, pool, label))
    return cases, problems


def _holds_classes(folder: Path) -> bool:
    """Return whether a folder holds {training,testing}/{healthy,diseased}."""
    pools = [path for path in list_directory(folder) if path.is_dir() and pool_of(path.name)]
    classes = (path for pool in pools for path in list_directory(pool))
    return any(_label_of_folder(path.name) is not None and path.is_dir() for path in classes)


def _label_of_folder(name: str) -> bool | None:
    """Return whether a folder of this name holds diseased lungs; None if it says neither."""
    return False if is_normal(name) else True if name.lower() == DISEASED else None


def _index_tables(root: Path) -> DatasetIndex:
    """Return the cases in train.csv, valid.csv and test.csv; none without train.csv."""
    base = next(_matching_folders(root, lambda folder: (folder / "train.csv").is_file()), None)
    if base is None:
        return DatasetIndex([])
    tables = {"train": base / "train.csv", "val": base / "valid.csv", "test": base / "test.csv"}
    if not tables["test"].is_file():
        del tables["test"]
        tables["test"] = tables.pop("val")
    cases: list[Case] = []
    problems: list[str] = []
    rows: list[tuple[str, int, str]] = []
    ignored, left_out = 0, dict[Path, str]()
    reason = "lateral, uncertain, or neither healthy nor with pleural effusion"
    for pool, table in tables.items():
        if not table.is_file():
            problems.append(f"{table.name} is missing beside train.csv: fetch it from the source")
            continue
        for number, row in read_rows(table, COLUMNS, table.name):
            name = _name_below_base(row["Path"])
            rows.append((table.name, number, name or row["Path"]))
            label = _label(row)
            if label is None or row["Frontal/Lateral"] != "Frontal":
                ignored += 1
                if name is not None:
                    left_out[base / name] = reason
                continue
            if name is None:
                problems.append(f"{table.name} line {number}: no patient in {row['Path']!r}")
                continue
            if (base / name).is_file():
                patient = name.split("/")[1]
                cases.append(Case(name, patient, {"image": base / name}, pool, label))
            else:
                problems.append(f"{table.name} line {number}: {name} is not there")
    used = {case.name: case for case in cases}
    problems += repeated_row_problems(row for row in rows if row[2] in used)
    notes = [f"{ignored} images left out: {reason}"] if ignored else []
    existing_tables = [table for table in tables.values() if table.is_file()]
    return DatasetIndex([*used.values()], problems, notes, existing_tables, left_out)


def _name_below_base(table_path: str) -> str | None:
    """The path of an image from its pool's folder on, or None if it names no patient."""
    parts = PurePosixPath(table_path).parts
    for index, part in enumerate(parts):
        if index and PATIENT_NAME.fullmatch(part):
            return "/".join(parts[index - 1 :])
    return None


def _label(row: Mapping[str, str]) -> bool | None:
    """Return false for healthy, true for pleural effusion, None for neither or both."""
    healthy, ill = (_is_one(row[column]) for column in ("No Finding", "Pleural Effusion"))
    return None if healthy == ill else ill


def _is_one(text: str) -> bool:
    return text.strip() in ("1", "1.0")


def _matching_folders(root: Path, matches: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the folders that match: root, and folders up to two levels below it."""
    for level in folder_levels(root, 2):
        yield from (folder for folder in level if matches(folder))
