"""IXI for training, BraTS21 or MSLUB for testing, in the folders and csv splits of pDDPM.

Behrendt et al., "Patched diffusion models for unsupervised anomaly detection in brain MRI", MIDL
2023, https://arxiv.org/abs/2303.03758; cDDPM and mDDPM share the tree. Volumes are skull-stripped,
registered to SRI24 at 1 mm, cropped to the brain and N4-corrected beforehand.

    Data/Train/ixi/{t1,t2,mask}/IXI002-Guys-0828_{t1,t2,mask}.nii.gz
    Data/Test/{Brats21,MSLUB}/{t1,t2,mask,seg}/BraTS2021_00538_{t1,t2,mask,seg}.nii.gz
    Data/splits/{IXI_train_fold0..4,IXI_val_fold0..4,IXI_test,Brats21_{val,test},MSLUB_{val,test}}.csv

The level Data/ may be missing. As there, intensities between the 1st and 99th percentile inside
the brain mask become 0 to 1, and planes are fitted to 192 x 192 and halved. Differs: planes are
averaged over areas, not by splines (which overshoot 0..1); no curvature flow is run beforehand;
lesions that were warped into fractions are true above one half, not above zero, which grows them;
and the splits.

The published folds leak: 9, 9, 9, 7 and 8 of IXI's test subjects are trained on (fold 0 to 4), and
0, 0, 2, 3 and 3 of validation's, because IXI's table of subjects has double rows. By default those
are left out of training, and double rows count once.
"""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta
from torch import Tensor

from .base import Count, DataError, Fraction, Natural, Span, Spec, TwoFractions, first_names
from .io.csv import read_rows
from .io.directories import find_files, list_directory
from .io.folder_names import resolve_case
from .io.nifti import LABEL_TOLERANCE, Volume
from .io.nifti_names import SUFFIXES
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import Case, check_fractions, split_training_pool
from .splits.shared_subjects import check_split_policy, remove_shared_subjects
from .transforms.coregistration import nan_notes, read_coregistered
from .transforms.input_grid import planes_to_samples
from .transforms.slices import (
    intensity_percentiles,
    scale_intensity_range,
    select_slices,
    to_display_planes,
    vanished_lesions_text,
    volume_shape_text,
)

CSV_COLUMNS = ("img_name", "img_path", "mask_path")
NAME_ENDING = re.compile(r"(_t1|_t2)?(\.nii(\.gz)?)?$")


class IXI(FileDataset, ABC):
    """Axial planes of T1- or T2-weighted brains in 0..1.

    root: the folder Data, or the one above it; else $ADBENCH_DATA
    fold: which of the five published divisions of IXI
    modality: "t2" as in the paper, or "t1"
    size, pad: planes are fitted to the square `pad`, then averaged over areas to `size`; a brain
        that does not fit is an error
    axial: first and last plane, counted from the feet; None takes all with enough brain
    every: take each n-th; the paper halves the resolution along this axis too
    min_brain: planes in which less than this part of the pixels is brain are left out
    min_lesion: planes with a lesion of which fewer pixels remain at `size` are left out
    fractions: of IXI's training subjects in train and held_out
    split: "corrected", or "published" with its leaks, and images that are copies, and a warning

    >>> from adbench.datasets.ixi import IXIBraTS, IXIMSLUB
    >>> [(data.name, data.spec.shape) for data in (IXIBraTS(), IXIMSLUB(size=48))]
    [('ixi-brats', (96, 96)), ('ixi-mslub', (48, 48))]
    """

    target: ClassVar[str]
    expected = "<root>/Data/Train/ixi/t2/IXI002-Guys-0828_t2.nii.gz and <root>/Data/splits/*.csv"
    unique_roles = frozenset({"image"})
    mask_roles = frozenset({"seg"})
    volume_grid = "display"

    def __init__(
        self,
        *,
        root: str | None = None,
        fold: Annotated[int, Meta(ge=0, le=4)] = 0,
        modality: Literal["t1", "t2"] = "t2",
        size: Count = 96,
        pad: Count = 192,
        axial: Span | None = None,
        every: Count = 2,
        min_brain: Fraction = 0.05,
        min_lesion: Count = 1,
        fractions: TwoFractions = (0.9, 0.1),
        split: Literal["corrected", "published"] = "corrected",
        nan: Literal["error", "zero"] = "error",
        ignore_affine: bool = False,
        seed: Natural = 0,
    ) -> None:
        if fold not in range(5) or modality not in ("t1", "t2"):
            raise ValueError(f"fold is 0 to 4, modality 't1' or 't2', not {fold} and {modality!r}")
        if nan not in ("error", "zero"):
            raise ValueError(f"nan is 'error' or 'zero', not {nan!r}")
        if axial is not None and (len(axial) != 2 or not 0 <= axial[0] <= axial[1]):
            raise ValueError(f"no planes from {axial}; axial is (first, last)")
        if not 0 < size <= pad or every < 1 or min_lesion < 1:
            raise ValueError(
                "0 < size <= pad, every >= 1 and min_lesion >= 1 are needed, not "
                f"size={size}, pad={pad}, every={every}, min_lesion={min_lesion}"
            )
        self.root, self.fold, self.modality, self.size, self.pad = root, fold, modality, size, pad
        self.axial, self.every = None if axial is None else tuple(axial), every
        self.min_brain, self.min_lesion = min_brain, min_lesion
        self.fractions, self.seed = check_fractions(fractions, 2), seed
        self.split = check_split_policy(split)
        self.nan: Literal["error", "zero"] = nan
        self.ignore_affine = ignore_affine
        self.spec = Spec(channels=1, shape=(size, size))

    def build_index(self, root: Path) -> DatasetIndex:
        places = (root, resolve_case(root, "Data"), root.parent)
        base = next((p for p in places if resolve_case(p, "splits").is_dir()), None)
        if base is None:
            raise self.no_data_error(f"no folder Data/splits lies under {root}")
        lists_of_pool = {
            "train": (f"IXI_train_fold{self.fold}",),
            "val": (f"IXI_val_fold{self.fold}", f"{self.target}_val"),
            "test": ("IXI_test", f"{self.target}_test"),
        }
        cases, problems, repeated, unavailable = [], [], 0, []
        available = _subjects_with_modality(base, self.modality)
        for pool, names in lists_of_pool.items():
            subjects: set[str] = set()
            for name in names:
                rows, row_problems = _read_split_rows(base, name)
                problems += row_problems
                for row in rows:
                    subject = NAME_ENDING.sub("", PurePosixPath(row["img_name"]).name)
                    if subject in subjects:
                        repeated += 1
                        continue
                    subjects.add(subject)
                    case, missing = self._row_case(base, pool, subject, row, name)
                    if missing and not name.startswith("IXI"):
                        problems += missing
                    elif missing and available is not None and subject not in available:
                        unavailable.append(subject)
                    elif missing:
                        problems += missing
                    else:
                        cases.append(case)
        disjoint = remove_shared_subjects(
            cases, ("test", "val", "train"), published=self.split == "published"
        )
        self.leaky = self.split == "published"
        notes = list(disjoint.notes)
        if repeated:
            notes.append(
                f"rows of the csv files that name a subject again, and count once: {repeated}"
            )
        if unavailable:
            examples = first_names(sorted(set(unavailable)))
            notes.append(
                f"subjects without {self.modality} (avail_t2.csv): {len(unavailable)} ({examples})"
            )
        other_modality = {"t1": "t2", "t2": "t1"}[self.modality]
        left_out: dict[Path, str] = dict(disjoint.left_out)
        for place in ("Train/ixi", f"Test/{self.target}"):
            folder = resolve_case(base, f"{place}/{other_modality}")
            left_out[folder] = f"modality={self.modality} was chosen"
        for target in {"Brats21", "MSLUB"} - {self.target}:
            folder = resolve_case(base, f"Test/{target}")
            left_out[folder] = f"belongs to {target}; this is {self.name}"
        for kind in (self.modality, "mask", "seg"):
            for place in ("Train/ixi", f"Test/{self.target}"):
                folder = resolve_case(base, f"{place}/{kind}")
                paths = find_files(folder, SUFFIXES, 0) if folder.is_dir() else ()
                for path in paths:
                    left_out.setdefault(path, f"its subject is in no list of fold={self.fold}")
        split_names = [name for names in lists_of_pool.values() for name in names]
        tables = [resolve_case(base, f"splits/{name}.csv") for name in split_names]
        if available is not None:
            tables.append(resolve_case(base, "splits/avail_t2.csv"))
        for table in list_directory(resolve_case(base, "splits")):
            if table not in tables and table.suffix == ".csv":
                left_out[table] = f"list of another fold or set than fold={self.fold}, {self.name}"
        return DatasetIndex(disjoint.cases, problems, notes, tables, left_out)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return split_training_pool(cases, self.fractions, self.seed)

    def read(self, case: Case) -> CaseSamples:
        def name_of(role: str) -> str:
            return f"{case.name} ({case.files[role].parent.name}/{case.files[role].name})"

        volumes, problems = read_coregistered(
            case.files, name_of, labels=(), nan=self.nan, ignore_affine=self.ignore_affine
        )
        notes = nan_notes(volumes, name_of)
        flags = {role: volumes[role].data != 0 for role in ("mask", "seg") if role in volumes}
        for role in flags:
            flags[role], flag_notes, flag_problems = _read_flags(volumes[role], name_of(role))
            notes += flag_notes
            problems += flag_problems
        if "seg" in flags and not flags["seg"].any() and not problems:
            problems.append(f"{name_of('seg')} marks no lesion, and its image is called abnormal")
        if "mask" in flags and not flags["mask"].any():
            problems.append(f"{name_of('mask')} marks no brain")
        depth = volumes["image"].data.shape[2] if "image" in volumes else 0
        if self.axial is not None and depth and depth <= self.axial[1]:
            too_shallow = (
                f"{name_of('image')} has {depth} axial planes; axial asks for {self.axial[1]}"
            )
            problems.append(too_shallow)
        if problems:
            raise DataError(f"{case.name} is unusable", problems)
        data, brain = volumes["image"].data, flags["mask"]
        lesion = flags.get("seg", np.zeros_like(brain))
        first, last = self.axial or (0, depth - 1)
        levels = range(first, last + 1, self.every)
        axial = slice(first, last + 1, self.every)
        limits = intensity_percentiles(data, brain)
        stack = data.T[axial]
        stack = np.zeros_like(stack) if limits is None else scale_intensity_range(stack, *limits)
        mm = volumes["image"].spacing
        slices = select_slices(
            to_display_planes(stack)[:, None],
            to_display_planes(brain.T[axial]),
            to_display_planes(lesion.T[axial]),
            levels,
            size=self.size,
            crop=self.pad,
            spacing=(mm[1], mm[0]),
            min_brain=self.min_brain,
            min_lesion=self.min_lesion,
            tags={
                "subject_status": "diseased" if case.label else "healthy",
                "set": str(case.extra["set"]),
            },
        )
        if slices is None:
            raise DataError(f"{case.name}: pad={self.pad} cuts off a part of the brain")
        if limits is None:
            reason = "is constant: it becomes zeros, and no method trains on it"
            notes.append(f"{name_of('image')} {reason}")
        counts = {vanished_lesions_text(self.size, self.min_lesion): slices.vanished_lesions}
        return CaseSamples(
            list(slices.samples(case.name, case.group)),
            notes,
            limits is not None,
            counts,
            volume_shape_text(data.shape),
            slices.mask_area_ratios,
        )

    def map_to_samples(self, volume: Volume) -> Tensor:
        return planes_to_samples(volume, self.size, self.pad)

    def _row_case(
        self, base: Path, pool: str, subject: str, row: Mapping[str, str], split: str
    ) -> tuple[Case, list[str]]:
        """Return the case that a row of a csv file describes, and problems: its missing files."""
        label = not split.startswith("IXI")
        csv_paths = {"image": row["img_path"], "mask": row["mask_path"]}
        csv_paths |= {"seg": row.get("seg_path", "")} if label else {}
        files, missing = {}, []
        for role, name in csv_paths.items():
            places = _candidate_paths(
                base, name, subject, self.modality if role == "image" else role
            )
            files[role] = next((path for path in places if path.is_file()), places[0])
            if not files[role].is_file():
                location = files[role].relative_to(base).as_posix()
                missing.append(f"{location} is not there, but splits/{split}.csv names {subject}")
        group = subject.partition("-")[0] if not label else subject
        extra = {"set": "ixi" if not label else self.target.lower()}
        return Case(f"{pool}/{subject}", group, files, pool, label, extra), missing


class IXIBraTS(IXI):
    """IXI against the gliomas of BraTS21 (100 subjects in val, 1151 in test).

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.ixi import IXIBraTS
    >>> with TemporaryDirectory() as root:
    ...     Path(root, "splits").mkdir()
    ...     Path(root, "Train").mkdir()
    ...     index = IXIBraTS(fold=3).build_index(Path(root))
    >>> [problem.split()[0] for problem in index.problems]  # the lists, none of which is there
    ['splits/IXI_train_fold3.csv', 'splits/IXI_val_fold3.csv', 'splits/Brats21_val.csv',
     'splits/IXI_test.csv', 'splits/Brats21_test.csv']
    """

    name = "ixi-brats"
    target = "Brats21"


class IXIMSLUB(IXI):
    """IXI against the multiple sclerosis of MSLUB (10 subjects in val, 20 in test).

    >>> from adbench.datasets.ixi import IXIMSLUB
    >>> IXIMSLUB().target, IXIMSLUB().spec.labels  # no abnormal sample is trained on
    ('MSLUB', False)
    """

    name = "ixi-mslub"
    target = "MSLUB"


def _read_split_rows(base: Path, name: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return the complete rows of a split, and a problem for each incomplete row or unreadable
    file."""
    try:
        path = resolve_case(base, f"splits/{name}.csv")
        rows = read_rows(path, CSV_COLUMNS, f"splits/{name}.csv")
    except DataError as error:
        return [], [error.summary]
    incomplete = [number for number, row in rows if not all(row[c] for c in CSV_COLUMNS)]
    problems = [
        f"splits/{name}.csv, line {n}: expected {', '.join(CSV_COLUMNS)}" for n in incomplete
    ]
    return [row for _, row in rows if all(row[column] for column in CSV_COLUMNS)], problems


def _candidate_paths(base: Path, csv_path: str, subject: str, kind: str) -> list[Path]:
    """Return the paths where the file that a row names may be: for T1, its last folder and its
    ending are replaced, and nothing above them."""
    path = PurePosixPath(csv_path.lstrip("/"))
    folder = resolve_case(base, path.parent.parent / kind)
    names = (f"{subject}_{kind}.nii.gz", f"{subject}.nii.gz", f"{subject}_{kind}.nii")
    return [folder / name for name in names]


def _subjects_with_modality(base: Path, modality: str) -> set[str] | None:
    """Return the subjects that have a T2 image according to avail_t2.csv; None if it is unknown."""
    path = resolve_case(base, "splits/avail_t2.csv")
    if modality != "t2" or not path.is_file():
        return None
    words = path.read_text(encoding="utf-8-sig", errors="replace").replace(",", "\n").split()
    return {NAME_ENDING.sub("", word.strip('"')) for word in words}


def _read_flags(volume: Volume, name: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Return a mask as bool, notes and problems; it may have been resampled into fractions."""
    data = volume.data
    if data.min() < -LABEL_TOLERANCE or data.max() > 4 + LABEL_TOLERANCE:
        low, high = float(data.min()), float(data.max())
        return data > 0.5, [], [f"{name} holds values from {low:g} to {high:g}; labels are 0 to 4"]
    fractional = int((np.abs(data - np.rint(data)) > LABEL_TOLERANCE).sum())
    note = f"{name} holds {fractional} fractions (it was warped): true above one half"
    return data > 0.5, [note] if fractional else [], []
