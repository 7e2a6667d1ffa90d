"""BraTS cut into single slices, in the file layouts of two papers.

Wolleb et al., "Diffusion models for medical anomaly detection", MICCAI 2022,
https://arxiv.org/abs/2203.04306: a folder a slice, numbered through; the token before the modality
is the patient, the one behind it the axial index.

    {training,testing}/000001/brats_train_001_{t1,t1ce,t2,flair,seg}_080_w.nii.gz    240 x 240
    test_labels/000247-label.nii.gz                           in place of testing's missing seg

Wolleb's code pads images to 256 x 256 and leaves labels at 240 x 240; here both are padded.
BerDiff (Bernoulli diffusion): a file a slice, channels first, the fifth one the label; it names no
patient. Its code scales all channels by their joint extremes, the label's among them; here the
values are taken as they are.

    {training,train_healthy}/000034.nii.gz        (4, 256, 256), healthy
    {validation,val_diseased}/000247.nii.gz       (5, 256, 256)
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .base import Count, DataError, Fraction, Natural, Spec, ThreeFractions, first_names
from .io.directories import list_directory
from .io.folder_names import resolve_case
from .io.hdf5_arrays import Array
from .io.nifti import BRATS_LABELS, read_labels, read_volume
from .io.nifti_names import is_nifti
from .io.value_range import ValueRange, outside_range_text, scale_to_limits
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import Case, assign_groups, assign_pools, check_fractions
from .splits.shared_subjects import check_split_policy, remove_shared_subjects
from .transforms.coregistration import read_coregistered
from .transforms.slices import pad_or_crop_square, select_slices, vanished_lesions_text

MODALITIES = ("t1", "t1ce", "t2", "flair")
SLICE_NAME = re.compile(
    r"(?P<patient>.+)_(?P<modality>t1|t1ce|t2|flair|seg)_(?P<at>\d+)(_w)?\.nii(\.gz)?",
    re.IGNORECASE,
)
FOLDER_NUMBER = re.compile(r"\d+")
FILE_NAME = re.compile(r"(\d+)\.nii(\.gz)?", re.IGNORECASE)
LABEL_NAME = re.compile(r"(\d+)-label\.nii(\.gz)?", re.IGNORECASE)
TRAIN_FOLDERS, TEST_FOLDERS = (
    ("training", "train_healthy"),
    ("testing", "validation", "val_diseased"),
)


class BraTSSlices(FileDataset):
    """Slices in 0..1, four modalities (t1, t1ce, t2, flair), axes as they are stored.

    root: the folder that holds training/, or one or two above it; else $ADBENCH_DATA
    size: rows and columns, averaged over areas from `pad`
    pad: images, masks and roi are padded with zeros to this square first
    min_lesion: slices with fewer pixels of tumour (but some) are left out; None takes the papers'
        rule: 1 for Wolleb's, 21 for BerDiff's
    group: "patient" assigns whole patients to splits; "slice" assigns blocks of neighbouring
        slices, for data of one patient: then train and val share a patient, and a warning says so
    fractions: of the training pool in train, held_out and val. BerDiff's has no abnormal slices
        and so no val: there the last one goes to train
    cut_val: this part of BerDiff's validation set becomes val, the rest is test
    split: "corrected" leaves patients that are in testing out of training; "published" keeps them
    range: the stored numbers that become 0 and 1, such as (0, 4095), or "train" for the smallest
        and the largest of all normal training slices; what is 0 stays 0, and what lies beyond is
        cut off and counted. None takes values in 0..1

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.brats_slices import BraTSSlices
    >>> with TemporaryDirectory() as root:
    ...     for name in ("train_healthy/000034.nii.gz", "val_diseased/000247.nii.gz"):
    ...         Path(root, name).parent.mkdir()
    ...         Path(root, name).touch()
    ...     index = BraTSSlices().build_index(Path(root))
    >>> [(case.pool, case.label) for case in index.cases]  # reading a test slice tells
    [('train', False), ('test', None)]
    """

    name = "brats-slices"
    volume_grid = "stored"
    expected = "<root>/training/000001/brats_train_001_{t1,t1ce,t2,flair,seg}_080_w.nii.gz"
    unique_roles = frozenset({*MODALITIES, "image"})

    def __init__(
        self,
        *,
        root: str | None = None,
        size: Count = 256,
        pad: Count = 256,
        min_lesion: Count | None = None,
        group: Literal["patient", "slice"] = "patient",
        fractions: ThreeFractions = (0.8, 0.1, 0.1),
        cut_val: Fraction = 0.0,
        split: Literal["corrected", "published"] = "corrected",
        range: ValueRange | None = None,
        seed: Natural = 0,
    ) -> None:
        if group not in ("patient", "slice"):
            raise ValueError(f"group is 'patient' or 'slice', not {group!r}")
        if (
            not 0 < size <= pad
            or not 0 <= cut_val < 1
            or (min_lesion is not None and min_lesion < 1)
        ):
            raise ValueError(
                "0 < size <= pad, 0 <= cut_val < 1 and min_lesion >= 1 are needed, not "
                f"size={size}, pad={pad}, cut_val={cut_val}, min_lesion={min_lesion}"
            )
        self.root, self.size, self.pad, self.min_lesion = root, size, pad, min_lesion
        self.group, self.cut_val = group, float(cut_val)
        self.fractions = check_fractions(fractions, 3)
        self.split, self.seed = check_split_policy(split), seed
        self._set_range(range)
        self.spec = Spec(channels=4, shape=(size, size), labels=True)

    def build_index(self, root: Path) -> DatasetIndex:
        base, layout = _find_layout(root)
        if base is None:
            raise self.no_data_error(
                f"no folder training/ or train_healthy/ with slices is under {root}"
            )
        if layout == "berdiff":
            self.spec = Spec(channels=4, shape=(self.size, self.size), labels=False)
            return _index_berdiff(base)
        cases, problems = _wolleb_cases(base)
        disjoint = remove_shared_subjects(
            cases, ("test", "train"), published=self.split == "published"
        )
        self.leaky = self.split == "published"
        patients = sorted({case.group for case in disjoint.cases if case.pool == "train"})
        notes = disjoint.notes
        if self.group == "patient" and len(patients) < 2:
            finding = f"training/ holds slices of {len(patients)} patient ({', '.join(patients)})"
            problems.append(
                f"{finding}, and train and held_out need one each: add patients, or set "
                "group='slice' to split the slices of this one"
            )
        if self.group == "slice":
            warning = "train, held_out and val share patients: what is chosen on them is too good"
            notes = [*notes, f"group='slice': {warning}"]
            cases = [replace(c, group=c.name) if c.pool == "train" else c for c in disjoint.cases]
        return DatasetIndex(cases if self.group == "slice" else disjoint.cases, problems, notes)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        train, held_out, val = self.fractions
        fractions = {"train": train, "held_out": held_out, "val": val}
        training_cases = [case for case in cases if case.pool == "train"]
        test_cases = [case for case in cases if case.pool == "test"]
        if any("image" in case.files for case in cases):
            normal_splits = _assign_blocks(
                training_cases, {"train": train + val, "held_out": held_out}
            )
            return normal_splits | _assign_blocks(
                test_cases, {"test": 1 - self.cut_val, "val": self.cut_val}
            )
        if self.group == "patient":
            return assign_pools(cases, {"train": fractions, "test": {"test": 1.0}}, self.seed)
        abnormal_names = {case.name for case in training_cases if _shows_tumour(case)}
        del fractions["held_out"]
        normal = [case for case in training_cases if case.name not in abnormal_names]
        return (
            _assign_blocks(normal, {"train": train, "held_out": held_out, "val": val})
            | _assign_blocks(
                [case for case in training_cases if case.name in abnormal_names], fractions
            )
            | {case.name: "test" for case in test_cases}
        )

    def _training_values(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> Iterator[Array]:
        for case in cases:
            normal = case.label is False or not _shows_tumour(case)
            if split_of.get(case.name) == "train" and normal:
                with suppress(DataError):  # named by its file when it is read
                    stored = _read_slice(case)[0]
                    yield stored[stored != 0]

    def read(self, case: Case) -> CaseSamples:
        stored, seg, spacing = _read_slice(case)
        x, shown, problems, counts = stored, None, [], {}
        if self._limits is not None:
            x, outside = scale_to_limits(stored, self._limits)
            shown, counts[outside_range_text(self._limits)] = stored != 0, outside
        elif not x.min() >= -1e-3 or not x.max() <= 1 + 1e-3:
            low, high = float(x.min()), float(x.max())
            problems.append(
                f"{case.name} holds values from {low:g} to {high:g}, not 0 to 1 (range=LOW,HIGH or "
                "range=train gives one scale to all)"
            )
        if max(x.shape[1:]) > self.pad:
            problems.append(f"{case.name} has {x.shape[1:]} pixels; pad is {self.pad}")
        if case.label is False and seg.any():
            problems.append(f"{case.name} marks a tumour, and lies among the healthy")
        if problems:
            raise DataError(f"{case.name} is unusable", problems)
        min_pixels = self.min_lesion or (21 if "image" in case.files else 1)
        too_small = 0 < seg.sum() < min_pixels
        channels = x.reshape(len(x), -1)
        constant = [
            name
            for name, low, high in zip(MODALITIES, channels.min(1), channels.max(1), strict=True)
            if low == high
        ]
        x = x.clip(0, 1)
        x[[MODALITIES.index(name) for name in constant]] = 0
        brain = (x != 0 if shown is None else shown).any(0)
        slices = select_slices(
            pad_or_crop_square(torch.from_numpy(x), self.pad)[None],
            pad_or_crop_square(torch.from_numpy(brain), self.pad)[None],
            pad_or_crop_square(torch.from_numpy(seg), self.pad)[None],
            [0],
            size=self.size,
            spacing=spacing,
            tags={"subject_status": "diseased"} if "image" not in case.files else {},
        )
        assert slices is not None  # nothing was cropped
        samples = [] if too_small else list(slices.samples(case.name, case.group))
        reason = "holds one value only: it becomes zeros, and no method trains on this slice"
        notes = [f"{case.name}: {', '.join(constant)} {reason}"] if constant else []
        vanished = int(too_small or slices.vanished_lesions)
        counts[vanished_lesions_text(self.size, min_pixels)] = vanished
        return CaseSamples(
            [replace(sample, key=case.name) for sample in samples],
            notes,
            not constant,
            counts,
            f"{x.shape[1]} x {x.shape[2]}",
            () if too_small else slices.mask_area_ratios,
        )


def _find_layout(root: Path) -> tuple[Path | None, str]:
    """Return the folder that holds the pools, and its layout, "wolleb" or "berdiff"."""
    above = [root.parent] if root.name.lower() in TRAIN_FOLDERS + TEST_FOLDERS else []
    for base in (root, root / "brats", root / "data/brats", root / "data", *above):
        for pool in TRAIN_FOLDERS:
            folder = resolve_case(base, pool)
            for path in list_directory(folder) if folder.is_dir() else ():
                if path.is_dir() and any(
                    SLICE_NAME.fullmatch(p.name) for p in list_directory(path)
                ):
                    return base, "wolleb"
                if path.is_file() and FILE_NAME.fullmatch(path.name):
                    return base, "berdiff"
    return None, ""


def _wolleb_cases(base: Path) -> tuple[list[Case], list[str]]:
    """Return every slice, ordered by patient and index, and every problem."""
    cases, problems = [], []
    labels: dict[str, Path] = {}
    label_folder = resolve_case(base, "test_labels")
    for path in list_directory(label_folder) if label_folder.is_dir() else ():
        match = LABEL_NAME.fullmatch(path.name)
        if match:
            labels[match[1]] = path
    for pool in ("training", "testing"):
        pool_folder = resolve_case(base, pool)
        if not pool_folder.is_dir():
            problems.append(f"{pool}/ is not there")
            continue
        for folder in (path for path in list_directory(pool_folder) if path.is_dir()):
            name = f"{pool}/{folder.name}"
            files, tokens, unrecognised = _slice_files(folder)
            if pool == "testing" and folder.name in labels:
                files["seg"] = labels.pop(folder.name)
            missing = [role for role in (*MODALITIES, "seg") if role not in files]
            if missing or unrecognised or len(tokens) != 1:
                label = f"test_labels/{folder.name}-label.nii.gz"
                location = f" ({label})" if "seg" in missing and pool == "testing" else ""
                several_text = f"; several slices: {sorted(tokens)}" if len(tokens) > 1 else ""
                problems.append(
                    f"{name}: expected one file each for {', '.join((*MODALITIES, 'seg'))}; "
                    f"missing {', '.join(missing) or 'nothing'}{location}; not recognised or "
                    f"double {', '.join(unrecognised) or 'nothing'}{several_text}"
                )
                continue
            ((patient, slice_index),) = tokens
            files = {role: files[role] for role in (*MODALITIES, "seg")}
            extra = {"patient": patient, "slice": slice_index}
            cases.append(Case(name, patient, files, pool.removesuffix("ing"), extra=extra))
    problems += [f"{path.name} has no slice in testing/" for path in labels.values()]
    places = defaultdict(list)
    for case in cases:
        places[case.pool, case.group, case.extra["slice"]].append(case.name)
    problems += [
        f"slice {slice_index} of {patient} is in {' and '.join(names)}"
        for (_, patient, slice_index), names in places.items()
        if len(names) > 1
    ]
    return sorted(cases, key=lambda case: (case.group, case.extra["slice"], case.name)), problems


def _slice_files(folder: Path) -> tuple[dict[str, Path], set[tuple[str, int]], list[str]]:
    """Return files by modality, the (patient, index) in their names, and other NIfTI names."""
    files: dict[str, Path] = {}
    tokens, unrecognised = set(), []
    for path in list_directory(folder):
        match = SLICE_NAME.fullmatch(path.name)
        if match and match["modality"].lower() not in files:
            files[match["modality"].lower()] = path
            tokens.add((match["patient"], int(match["at"])))
        elif is_nifti(path.name):
            unrecognised.append(path.name)
    return files, tokens, unrecognised


def _index_berdiff(base: Path) -> DatasetIndex:
    """Return every file in the order of its number; its patient is unknown."""
    cases, problems, folder_of_name = [], [], dict[str, str]()
    folders = [resolve_case(base, name) for name in TRAIN_FOLDERS + TEST_FOLDERS]
    for folder in (path for path in folders if path.is_dir()):
        pool = "train" if folder.name.lower() in TRAIN_FOLDERS else "test"
        paths = {}
        for path in list_directory(folder):
            match = FILE_NAME.fullmatch(path.name)
            if match and match[1] not in paths:
                paths[match[1]] = path
            elif is_nifti(path.name):
                problems.append(f"{folder.name}/{path.name} has no number of its own for a name")
        for number, path in sorted(paths.items(), key=lambda item: (int(item[0]), item[0])):
            name = f"{pool}/{number}"
            if name in folder_of_name:
                problems.append(
                    f"{number} is in {folder_of_name[name]} and {folder.name}: remove one"
                )
                continue
            folder_of_name[name] = folder.name
            label = False if pool == "train" else None
            cases.append(Case(name, name, {"image": path}, pool, label))
    note = (
        "no patient is named in this form: neighbouring numbers are likely one patient's, so "
        "each split is a block of numbers; a patient between two blocks may be in both"
    )
    return DatasetIndex(cases, problems, [note])


def _assign_blocks(cases: Sequence[Case], fractions: Mapping[str, float]) -> dict[str, str]:
    """Return the split of every case; a split is one block of consecutive cases."""
    counts = Counter(assign_groups([case.name for case in cases], fractions, 0).values())
    splits = [split for split in fractions for _ in range(counts[split])]
    return {case.name: split for case, split in zip(cases, splits, strict=True)}


def _shows_tumour(case: Case) -> bool:
    """Return whether a slice shows tumour; false for one that `read` refuses."""
    try:
        return bool(read_labels(case.files["seg"], reorient=False).data.any())
    except DataError:
        return False


def _read_slice(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return (4, H, W) as it is stored, its tumour (H, W) and mm per pixel."""
    return _read_channel_file(case) if "image" in case.files else _read_modality_files(case)


def _read_modality_files(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return (4, H, W), its tumour (H, W) and mm per pixel, from one file per channel."""

    def name_of(role: str) -> str:
        return f"{case.name}/{case.files[role].name}"

    volumes, problems = read_coregistered(case.files, name_of, reorient=False)
    problems_of_shape = [
        f"{name_of(role)} is no slice" for role, v in volumes.items() if v.data.shape[2] != 1
    ]
    if problems or problems_of_shape:
        raise DataError(f"{case.name} is unusable", [*problems, *problems_of_shape])
    x = np.stack([volumes[name].data[..., 0] for name in MODALITIES])
    row_mm, column_mm, _ = volumes["t1"].spacing
    return x, volumes["seg"].data[..., 0] > 0, (row_mm, column_mm)


def _read_channel_file(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return (4, H, W), its tumour (H, W) and mm per pixel, from one file of 4 or 5 channels."""
    name = f"{case.name} ({case.files['image'].name})"
    volume = read_volume(case.files["image"], name=name, reorient=False)
    channels, test = len(volume.data), case.pool == "test"
    _, row_mm, column_mm = volume.spacing
    if channels != 5 and (test or channels != 4):
        expected = "5 (four modalities and the label)" if test else "4 or 5"
        raise DataError(
            f"{name} has shape {volume.data.shape}; it needs {expected} channels in front"
        )
    if channels == 4:
        return volume.data, np.zeros(volume.data.shape[1:], bool), (row_mm, column_mm)
    label = volume.data[4]
    unexpected = sorted(set(np.unique(label).tolist()) - set(BRATS_LABELS))
    if unexpected:
        odd_text = first_names([f"{value:g}" for value in unexpected])
        raise DataError(
            f"{name} holds {odd_text} in its label channel; labels are {sorted(BRATS_LABELS)}"
        )
    return volume.data[:4], label > 0, (row_mm, column_mm)
