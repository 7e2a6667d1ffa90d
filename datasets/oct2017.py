"""OCT2017: slices through the retina by optical coherence tomography, healthy or diseased.

Kermany et al., "Identifying medical diagnoses and treatable diseases by image-based deep
learning", Cell 2018, doi:10.1016/j.cell.2018.02.010. Read are

    OCT2017/{train,val,test}/{NORMAL,CNV,DME,DRUSEN}/NORMAL-1038998-1.jpeg       as published
    OCT/{training,validation}/DRUSEN-228939-1.jpeg, or OCT/{NORMAL,DRUSEN}/...   BerDiff's
    {train,valid,test}/{good,Ungood}/...                                         BMAD's

A name is {CLASS}-{patient}-{number}: the class is read from it, not from the folder, and patients
are kept together by it. Nobody drew masks. The published training and test sets share patients, so
that by default these are left out of the training set (split).

Differs from BerDiff's loader, which stretches every image to its own darkest and brightest pixel:
0 and 1 are black and white of the JPEG. "validation" is the test set where there is no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from .base import Count, FourFractions, Many, Natural, Pair
from .io.directories import find_files, folder_levels, name_conflicts
from .io.folder_names import is_normal, pool_of
from .io.images import SUFFIXES
from .io.value_range import ValueRange
from .preparation.cases import DatasetIndex
from .preparation.deduplicated_dataset import DeduplicatedDataset
from .splits.assignment import Case, check_fractions
from .splits.published import assign_unpublished

Disease = Literal["CNV", "DME", "DRUSEN"]

NORMAL = "NORMAL"
DISEASES: tuple[Disease, ...] = ("CNV", "DME", "DRUSEN")
IMAGE_NAME = re.compile(rf"({NORMAL}|{'|'.join(DISEASES)})-(\d+)-\d+", re.IGNORECASE)
CLASS_OF_FOLDER = {kind.casefold(): kind for kind in (*DISEASES, "Ungood")}


class OCT2017(DeduplicatedDataset):
    """OCT slices of the retina, healthy or with one of the named diseases.

    root: the folder OCT2017, or one above it; else $ADBENCH_DATA
    classes: the diseases that count as abnormal; images of others are left out
    size, channels, range: see ImageDataset; 256 x 256 without keeping the aspect is the papers'
    split: "corrected", or "published" to keep patients that are in the training and test sets
    fractions: of patients in train, held_out, val and test; those that are published need none
    seed: which patients go where

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.oct2017 import OCT2017
    >>> with TemporaryDirectory() as root:
    ...     for name in ("OCT2017/train/NORMAL/NORMAL-1038998-1.jpeg",
    ...                  "OCT2017/test/DRUSEN/DRUSEN-228939-1.jpeg"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = OCT2017().build_index(Path(root))
    >>> [(case.group, case.pool, case.label) for case in index.cases]
    [('patient 228939', 'test', True), ('patient 1038998', 'train', False)]
    """

    name = "oct2017"
    expected = "<root>/OCT2017/{train,val,test}/{NORMAL,CNV,DME,DRUSEN}/NORMAL-1038998-1.jpeg"
    _has_masks = False
    _has_labels = True

    def __init__(
        self,
        *,
        root: str | None = None,
        classes: Disease | Many[Disease] = DISEASES,
        size: Count | Pair[Count] | None = 256,
        channels: Literal[1, 3] | None = 1,
        range: ValueRange | None = None,
        split: Literal["corrected", "published"] = "corrected",
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        seed: Natural = 0,
    ) -> None:
        classes = [classes] if isinstance(classes, str) else list(classes)
        if not classes or not {*classes} <= {*DISEASES}:
            raise ValueError(f"classes are some of {', '.join(DISEASES)}, not {classes}")
        self.root, self.classes, self.seed = root, classes, seed
        self.fractions = check_fractions(fractions, 4)
        self._set_split_policy(split)
        self._set_image_options(size, channels, range=range)

    def build_index(self, root: Path) -> DatasetIndex:
        base = next(_dataset_folders(root), root)
        outcomes = [
            _image_case(image, image.relative_to(base).parts)
            for image in find_files(base, SUFFIXES, 4)
        ]
        problems = [outcome for outcome in outcomes if isinstance(outcome, str)]
        selected = (None, "Ungood", *self.classes)
        cases = [
            outcome
            for outcome in outcomes
            if isinstance(outcome, Case) and outcome.extra.get("disease") in selected
        ]
        left_out = {
            outcome.files["image"]: f"{outcome.extra['disease']} is not in classes"
            for outcome in outcomes
            if isinstance(outcome, Case) and outcome.extra.get("disease") not in selected
        }
        unnamed = [case.name for case in cases if case.group == case.name]
        problems += name_conflicts((case.files["image"] for case in cases), base)
        if not any(case.pool == "test" for case in cases):
            cases = [replace(c, pool="test") if c.pool == "val" else c for c in cases]
        cases, notes = self._remove_shared_subjects(cases)
        if unnamed:
            note = f"{len(unnamed)} images, such as {unnamed[0]}, have no patient in their names"
            notes.append(f"{note}: each counts as a patient of its own")
        self._has_labels = any(case.label for case in cases if case.pool in ("", "train"))
        self._infer_spec(cases)
        return DatasetIndex(cases, problems, notes, left_out=left_out)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return assign_unpublished(cases, self.fractions, self.seed)


def _image_case(image: Path, parts: Sequence[str]) -> Case | str:
    """Return the case of an image from its place below the dataset's folder, or a problem."""
    folders = parts[:-1]
    pool = next(filter(None, map(pool_of, folders)), "")
    folder = next(filter(None, map(_class_of, folders)), "")
    known_positions = (i for i, part in enumerate(folders) if pool_of(part) or _class_of(part))
    name = "/".join(parts[next(known_positions, 0) :])
    match = IMAGE_NAME.fullmatch(image.stem)
    kind = match[1].upper() if match else folder
    if not kind:
        return f"{name}: neither its name nor its folder tells the class"
    if folder not in ("", kind, "Ungood") or (folder == "Ungood" and kind == NORMAL):
        return f"{name} is called {kind} and lies in {folder}: which is it?"
    group = f"patient {match[2]}" if match else name
    tags = {} if kind == NORMAL else {"disease": kind}
    return Case(name, group, {"image": image}, pool, kind != NORMAL, tags)


def _class_of(folder_name: str) -> str:
    """Return the class that a folder's name means, or ""."""
    return NORMAL if is_normal(folder_name) else CLASS_OF_FOLDER.get(folder_name.casefold(), "")


def _dataset_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this dataset at or below root."""
    for level in folder_levels(root, 2):
        yield from (p for p in level if p.name.strip().upper() in ("OCT2017", "OCT"))
