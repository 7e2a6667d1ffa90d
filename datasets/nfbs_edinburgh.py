"""NFBS (healthy heads, for training) and Edinburgh (tumours, for testing), as AnoDDPM reads them.

Wyatt et al., "AnoDDPM", CVPR Workshops (NTIRE) 2022, https://github.com/Julian-Wyatt/AnoDDPM.

    DATASETS/Train/A00028185/sub-A00028185_ses-NFB3_T1w.nii.gz        (or A00028185.npy, its cache)
    DATASETS/Test/<ID>/...                                            as Train, if it is there
    DATASETS/CancerousDataset/EdinburghDataset/Anomalous-T1/{raw_cleaned,raw}/17904.npy
    DATASETS/CancerousDataset/EdinburghDataset/Anomalous-T1/mask/17904.npy           (slice, H, W)

The authors clip a volume (with its background) to mean - sd .. mean + 2 sd and divide by 3 sd, but
do not take the lower bound away first: their values start and end anywhere. Here the window becomes
0 to 1 (`norm="paper"` keeps theirs, clipped to 0..1), and what was exactly zero stays zero. Their
loader leaves .npy files of windowed volumes beside the data; these are read, none is written.
They crop Edinburgh's planes and stretch them; here planes are padded to a square. Axes stay as they
are stored, for the arrays name none: NFBS is cut along its second axis, Edinburgh along its first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta

from .base import Count, DataError, Natural, Span, Spec, TwoFractions
from .io.directories import list_directory
from .io.folder_names import ambiguous_folders, folders_of, resolve_case
from .io.nifti import read_labels, read_volume
from .io.npy import read_npy_array
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import Case, assign_pools, check_fractions
from .transforms.slices import select_slices, vanished_lesions_text, volume_shape_text

PATIENT_RANGES = {  # of Edinburgh's 22 patients, (first, behind the last)
    **{"17904": (165, 205), "18428": (177, 213), "18582": (160, 190), "18638": (160, 212)},
    **{"18675": (140, 200), "18716": (135, 190), "18756": (150, 205), "18863": (130, 190)},
    **{"18886": (120, 180), "18975": (170, 194), "19015": (158, 195), "19085": (155, 195)},
    **{"19275": (184, 213), "19277": (158, 209), "19357": (158, 210), "19398": (164, 200)},
    **{"19423": (142, 200), "19567": (160, 200), "19628": (147, 210), "19691": (155, 200)},
    **{"19723": (140, 170), "19849": (150, 180)},
}
RANGE_MARGIN = 5  # slices around the tumour of patients that are not in PATIENT_RANGES
T1W_NAME = re.compile(r"sub-(?P<id>[^_]+)_.*T1w\.nii(\.gz)?", re.IGNORECASE)
BRAIN_MASK_NAME = re.compile(r"sub-(?P<id>[^_]+)_.*T1w_brainmask\.nii(\.gz)?", re.IGNORECASE)


class NFBSEdinburgh(FileDataset):
    """Planes of T1-weighted volumes in 0..1.

    Without DATASETS/Test, the normal planes of the test set are those of tumour patients; with it,
    those of its healthy subjects are added (tag subject_status).

    root: the folder DATASETS, or the one above it; else $ADBENCH_DATA
    size: rows and columns, padded to a square and averaged over areas
    slices: first and last plane of NFBS; 40 to 100 is the authors' choice
    ranges: which planes of a patient: "paper" takes the authors' ranges (the tumour's and 5 more on
        each side for patients that they do not name), "four" the four that they report on, "all"
        every plane
    every: take each n-th plane; not of "four"
    norm: "window" or "paper", see above
    min_lesion: planes with a lesion of which fewer pixels remain at `size` are left out
    fractions: of the published training people in train and held_out
    val_share: this part of the Edinburgh patients becomes val; published is none

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.nfbs_edinburgh import NFBSEdinburgh
    >>> patients = "CancerousDataset/EdinburghDataset/Anomalous-T1"
    >>> with TemporaryDirectory() as root:
    ...     for name in ("Train/A00028185/A00028185.npy", f"{patients}/raw/17904.npy",
    ...                  f"{patients}/mask/17904.npy"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = NFBSEdinburgh().build_index(Path(root))
    >>> [(case.group, sorted(case.files)) for case in index.cases]
    [('A00028185', ['image']), ('17904', ['image', 'mask'])]
    """

    name = "nfbs-edinburgh"
    expected = "<root>/DATASETS/Train/A00028185/sub-A00028185_ses-NFB3_T1w.nii.gz"

    def __init__(
        self,
        *,
        root: str | None = None,
        size: Count = 256,
        slices: Span = (40, 100),
        ranges: Literal["paper", "four", "all"] = "paper",
        every: Count = 1,
        norm: Literal["window", "paper"] = "window",
        min_lesion: Count = 1,
        fractions: TwoFractions = (0.9, 0.1),
        val_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0,
        seed: Natural = 0,
    ) -> None:
        if len(slices) != 2 or not 0 <= slices[0] <= slices[1] or every < 1 or size < 1:
            raise ValueError(f"no planes from {slices}, every {every}, of size {size}")
        if ranges not in ("paper", "four", "all") or norm not in ("window", "paper"):
            raise ValueError(
                f"ranges is 'paper', 'four' or 'all', norm 'window' or 'paper', not {ranges!r} "
                f"and {norm!r}"
            )
        if min_lesion < 1 or not 0 <= val_share < 1:
            raise ValueError(
                f"min_lesion >= 1 and 0 <= val_share < 1, not {min_lesion}, {val_share}"
            )
        self.root, self.size, self.slices, self.every = root, size, tuple(slices), every
        self.ranges, self.norm, self.min_lesion = ranges, norm, min_lesion
        self.fractions, self.val_share, self.seed = (
            check_fractions(fractions, 2),
            float(val_share),
            seed,
        )
        self.spec = Spec(channels=1, shape=(size, size))

    def build_index(self, root: Path) -> DatasetIndex:
        places = (root, resolve_case(root, "DATASETS"))
        base = next((place for place in places if folders_of(place, "train")), None)
        if base is None:
            raise self.no_data_error(f"no folder DATASETS/Train lies under {root}")
        cases, problems = _nfbs_cases(base)
        patients, patient_problems = _edinburgh_cases(base)
        cases, problems = [*cases, *patients], [*problems, *patient_problems]
        if not patients and not patient_problems:
            problems.append(
                "no patient is there: expected CancerousDataset/EdinburghDataset/Anomalous-T1/"
                "raw_cleaned/17904.npy and mask/17904.npy beside Train/"
            )
        healthy_subjects = {case.group for case in cases if case.pool == "Test"}
        note = (
            f"test holds {len(healthy_subjects)} healthy people of another study than "
            "the patients: compare within subject_status"
        )
        notes = [note] if healthy_subjects else []
        return DatasetIndex(cases, problems, notes, left_out=_unused_duplicates(cases))

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        train, held_out = self.fractions
        pools: dict[str, dict[str, float]] = {"Train": {"train": train, "held_out": held_out}}
        pools |= {
            "Test": {"test": 1.0},
            "Edinburgh": {"test": 1 - self.val_share, "val": self.val_share},
        }
        return assign_pools(cases, pools, self.seed)

    def read(self, case: Case) -> CaseSamples:
        is_patient = case.pool == "Edinburgh"
        name = f"{case.name}/{case.files['image'].name}"
        stack, spacing, problems = _read_planes(
            case.files["image"], name, axis=0 if is_patient else 1
        )
        mask = brain = None
        if "mask" in case.files:
            mask, _, mask_problems = _read_planes(
                case.files["mask"], f"mask/{case.files['mask'].name}", axis=0
            )
            problems += mask_problems
        if "brain" in case.files:
            brain_name = f"{case.name}/{case.files['brain'].name}"
            try:
                brain = read_labels(
                    case.files["brain"], allowed={0, 1}, name=brain_name, reorient=False
                )
            except DataError as error:
                problems.append(error.summary)
        inside = stack != 0 if brain is None else np.moveaxis(brain.data, 1, 0) > 0
        for mask_planes, kind in ((mask, "mask"), (inside, "brain mask")):
            if mask_planes is not None and mask_planes.shape != stack.shape and stack.size:
                shapes = f"{stack.shape} and {mask_planes.shape}"
                problems.append(f"{name} and its {kind} differ in shape: {shapes}")
        lesion = np.zeros(stack.shape, bool) if mask is None else mask > 0
        if mask is not None and mask.size and not lesion.any():
            problems.append(f"{case.name}: mask/{case.files['mask'].name} marks no tumour")
        indices = [] if problems else self._plane_indices(case, lesion)
        if indices and indices[-1] >= len(stack):
            problems.append(f"{name} has {len(stack)} planes; number {indices[-1]} is asked for")
        if problems:
            raise DataError(f"{case.name} is unusable", problems)
        windowed = self._apply_window(stack)
        constant = windowed is None
        stack = np.zeros_like(stack) if windowed is None else windowed
        slices = select_slices(
            torch.from_numpy(np.ascontiguousarray(stack[indices]))[:, None],
            torch.from_numpy(np.ascontiguousarray(inside[indices])),
            torch.from_numpy(np.ascontiguousarray(lesion[indices])),
            indices,
            size=self.size,
            spacing=spacing,
            min_lesion=self.min_lesion,
            tags={"subject_status": "diseased" if is_patient else "healthy"},
        )
        assert slices is not None  # nothing was cropped
        reason = f"{name} is constant: it becomes zeros, and no method trains on it"
        counts = {vanished_lesions_text(self.size, self.min_lesion): slices.vanished_lesions}
        samples = list(slices.samples(case.name, case.group))
        return CaseSamples(
            samples,
            [reason] if constant else [],
            not constant,
            counts,
            volume_shape_text(stack.shape),
            slices.mask_area_ratios,
        )

    def _plane_indices(self, case: Case, lesion: np.ndarray) -> list[int]:
        if case.pool != "Edinburgh":
            return list(range(self.slices[0], self.slices[1] + 1, self.every))
        if self.ranges == "all":
            return list(range(0, len(lesion), self.every))
        lesion_planes = np.flatnonzero(lesion.any((1, 2)))
        default_range = (
            max(int(lesion_planes[0]) - RANGE_MARGIN, 0),
            min(int(lesion_planes[-1]) + RANGE_MARGIN + 1, len(lesion)),
        )
        start, stop = PATIENT_RANGES.get(case.group, default_range)
        if self.ranges == "four":
            return sorted({int(index) for index in np.linspace(start + 5, stop - 5, 4)})
        return list(range(start, stop, self.every))

    def _apply_window(self, stack: np.ndarray) -> np.ndarray | None:
        """Return values scaled to 0..1; None if they are constant.

        An array whose values span no more than 1, which is 3 sd, went through the authors' window
        already: its upper end is where they clipped.
        """
        low, high = float(stack.min()), float(stack.max())
        if not low < high:
            return None
        if high - low > 1 + 1e-3 or np.array_equal(stack, np.rint(stack)):
            values = stack.astype(np.float64)
            low, width = float(values.mean() - values.std()), 3 * float(values.std())
        else:
            low, width = high - 1, 1.0
        start = 0.0 if self.norm == "paper" else low
        clipped = stack.clip(low, low + width)
        windowed = ((clipped - np.float32(start)) / np.float32(width)).clip(0, 1)
        return np.where(stack != 0, windowed, np.float32(0))


def _nfbs_cases(base: Path) -> tuple[list[Case], list[str]]:
    """Return the cases of NFBS, one per folder, and every problem."""
    cases, problems = [], []
    problems += ambiguous_folders(list_directory(base), base)
    pools = {"Train": folders_of(base, "train"), "Test": folders_of(base, "test")}
    for pool, pool_folders in pools.items():
        for folder in (path for place in pool_folders for path in list_directory(place)):
            if not folder.is_dir():
                continue
            paths = list_directory(folder)
            volumes = [path for path in paths if T1W_NAME.fullmatch(path.name)]
            arrays = [path for path in paths if path.name == f"{folder.name}.npy"]
            images = arrays or volumes
            name = f"{pool}/{folder.name}"
            if len(images) != 1:
                problems.append(
                    f"{name}: expected one sub-{folder.name}_ses-NFB3_T1w.nii.gz or "
                    f"{folder.name}.npy; found {', '.join(p.name for p in paths) or 'nothing'}"
                )
                continue
            files = {"image": images[0]}
            brain = [path for path in paths if BRAIN_MASK_NAME.fullmatch(path.name)]
            files |= {"brain": brain[0]} if brain else {}
            cases.append(Case(name, folder.name, files, pool, False))
    return cases, problems


def _edinburgh_cases(base: Path) -> tuple[list[Case], list[str]]:
    """Return the cases of Edinburgh, an array and its mask each, and every problem; raw_cleaned/
    is preferred to raw/."""
    locations = ("CancerousDataset/EdinburghDataset/Anomalous-T1", "EdinburghDataset/Anomalous-T1")
    places = [resolve_case(base, location) for location in (*locations, "Anomalous-T1")]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return [], []
    arrays = {}
    for name in ("mask", "raw", "raw_cleaned"):
        array_folder = resolve_case(folder, name)
        paths = list_directory(array_folder) if array_folder.is_dir() else []
        arrays[name] = {path.stem: path for path in paths if path.suffix == ".npy"}
    images = arrays["raw"] | arrays["raw_cleaned"]
    cases: list[Case] = []
    problems = [
        f"mask/{number}.npy has no raw_cleaned/{number}.npy"
        for number in arrays["mask"]
        if number not in images
    ]
    for number, path in sorted(images.items()):
        if number not in arrays["mask"]:
            problems.append(f"Edinburgh/{number} has no mask/{number}.npy")
            continue
        files = {"image": path, "mask": arrays["mask"][number]}
        cases.append(Case(f"Edinburgh/{number}", number, files, "Edinburgh", True))
    return cases, problems


def _unused_duplicates(cases: Sequence[Case]) -> dict[Path, str]:
    """Return volumes beside arrays, and raw arrays of which there is a cleaned one."""
    left_out: dict[Path, str] = {}
    for case in cases:
        image = case.files["image"]
        if case.pool != "Edinburgh" and image.suffix == ".npy":
            volumes = [p for p in list_directory(image.parent) if T1W_NAME.fullmatch(p.name)]
            left_out |= dict.fromkeys(volumes, "its .npy array is read instead")
        elif image.parent.name == "raw_cleaned":
            left_out[image.parent.parent / "raw" / image.name] = "raw_cleaned is read instead"
    return left_out


def _read_planes(
    path: Path, name: str, *, axis: int
) -> tuple[np.ndarray, tuple[float, float], list[str]]:
    """Return planes (N, H, W) float32, mm along rows and columns, and problems; with a problem,
    no planes."""
    try:
        if path.suffix == ".npy":
            array, spacing = _read_npy_volume(path, name), (1.0, 1.0, 1.0)
        else:
            volume = read_volume(path, name=name, reorient=False)
            array, spacing = volume.data, volume.spacing
    except DataError as error:
        return np.zeros((0, 0, 0), np.float32), (1.0, 1.0), [error.summary]
    in_plane_mm = [mm for index, mm in enumerate(spacing) if index != axis]
    return np.moveaxis(array, axis, 0), (in_plane_mm[0], in_plane_mm[1]), []


def _read_npy_volume(path: Path, name: str) -> np.ndarray:
    array = read_npy_array(path.read_bytes(), name)
    if array.dtype.kind not in "biuf" or array.ndim != 3:
        finding = f"{array.dtype} {array.shape}"
        raise DataError(f"{name} holds {finding}; three axes of numbers are expected")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds {int((~np.isfinite(array)).sum())} voxels of NaN or inf")
    return array
