"""BraTS as it is downloaded: axial slices of brains with a glioma, from skull-stripped volumes.

Menze et al., "The multimodal brain tumor image segmentation benchmark (BRATS)", IEEE TMI 2015;
Baid et al., 2021. https://arxiv.org/abs/2107.02314. Three releases are recognised by their names:

    2020  BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii(.gz)
    2021  BraTS2021_00000/BraTS2021_00000_{t1,t1ce,t2,flair,seg}.nii.gz
    2023  BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz

A healthy slice is a slice without tumour of a brain that has one; no healthy subject is in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .base import Count, DataError, FourFractions, Fraction, Many, Natural, Span, Spec
from .io.directories import list_directory
from .io.nifti import Volume, read_volume
from .io.nifti_names import is_nifti, nifti_stem
from .layouts.volume_pairs import find_new_subjects
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import Case, four_way_split
from .transforms.coregistration import NanPolicy, nan_notes, read_coregistered
from .transforms.input_grid import planes_to_samples
from .transforms.slices import (
    intensity_percentiles,
    scale_intensity_range,
    select_slices,
    to_display_planes,
    vanished_lesions_text,
    volume_shape_text,
)

NATIVE_SIZE = 240  # voxels along both in-plane axes, in every release
MODALITIES = ("t1", "t1ce", "t2", "flair")
RELEASE_NAMES = {
    "2020": re.compile(r"BraTS20_Training_\d{3}"),
    "2021": re.compile(r"BraTS2021_\d{5}"),
    "2023": re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d{5})-\d{3}"),  # patient, then visit
}
MODALITY_ENDINGS = {f"_{name}": name for name in (*MODALITIES, "seg")} | {
    "-t1n": "t1",
    "-t1c": "t1ce",
    "-t2w": "t2",
    "-t2f": "flair",
    "-seg": "seg",
}


class BraTS(FileDataset):
    """Axial slices, rows from front to back, columns from the patient's right to left (as BraTS
    stores them and radiologists look), each modality scaled so that the 1st to 99th percentile of
    its volume's non-zero voxels become 0 to 1; background stays 0.

    root: the folder that holds the cases, or one above it; else $ADBENCH_DATA
    axial: first and last slice, counted from the feet; 80 to 128 is Wolleb et al.'s choice
    every: take each n-th of them
    size: rows and columns; None keeps 240 x 240. The whole slice is padded to a square, nothing is
        cut off, then averaged over areas; masks and roi are true where more than half an area is
    crop: with `size`, cut this square from the middle first; a brain that does not fit is an error
    seed: which subjects go where
    fractions: of subjects in train, held_out, val and test; each gets at least one, but of three
        subjects none is left for val
    min_brain: slices in which less than this part of all pixels is brain are left out everywhere
    min_lesion: slices with a lesion are left out where fewer pixels of it remain at `size`
    nan: "zero" takes NaN for background instead of refusing the case
    ignore_affine: let a case's files disagree about where their voxels lie; the first one counts
    allow_empty_mask: let a case have no tumour at all

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.brats import BraTS
    >>> case = "BraTS-GLI-00007-000"
    >>> with TemporaryDirectory() as root:
    ...     Path(root, case).mkdir()
    ...     for ending in ("t2f", "seg"):
    ...         Path(root, case, f"{case}-{ending}.nii.gz").touch()
    ...     index = BraTS(modalities=["flair"]).build_index(Path(root))
    >>> [(case.group, sorted(case.files)) for case in index.cases]
    [('BraTS-GLI-00007', ['flair', 'seg'])]
    """

    name = "brats"
    volume_grid = "display"
    expected = "<root>/BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz"
    unique_roles = frozenset(MODALITIES)

    def __init__(
        self,
        *,
        root: str | None = None,
        modalities: Many[Literal["t1", "t1ce", "t2", "flair"]] = MODALITIES,
        axial: Span = (80, 128),
        every: Count = 1,
        size: Count | None = None,
        crop: Count | None = None,
        seed: Natural = 0,
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        min_brain: Fraction = 0.05,
        min_lesion: Count = 1,
        nan: NanPolicy = "error",
        ignore_affine: bool = False,
        allow_empty_mask: bool = False,
    ) -> None:
        unknown = [name for name in modalities if name not in MODALITIES]
        if unknown or not modalities or len(set(modalities)) < len(modalities):
            raise ValueError(f"modalities are some of {MODALITIES}, once each, not {modalities}")
        if len(axial) != 2 or not 0 <= axial[0] <= axial[1] or every < 1:
            raise ValueError(f"no slices from {axial}, every {every}; axial is (first, last)")
        if min_lesion < 1:
            raise ValueError(f"min_lesion is at least 1, not {min_lesion}: no label without mask")
        if len(fractions) != 4 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions are four positive numbers that sum to 1, not {fractions}")
        if crop is not None and (size is None or crop < size):
            raise ValueError(f"crop, here {crop}, needs a size, here {size}, that is not larger")
        if nan not in ("error", "zero"):
            raise ValueError(f"nan is 'error' or 'zero', not {nan!r}")
        self.root, self.modalities, self.axial = root, tuple(modalities), tuple(axial)
        self.every, self.size, self.crop, self.seed = every, size, crop, seed
        self.fractions, self.min_brain, self.min_lesion = tuple(fractions), min_brain, min_lesion
        self.nan: NanPolicy = nan
        self.ignore_affine, self.allow_empty_mask = ignore_affine, allow_empty_mask
        side = size or NATIVE_SIZE
        self.spec = Spec(channels=len(self.modalities), shape=(side, side), labels=True)

    def build_index(self, root: Path) -> DatasetIndex:
        folders: dict[str, Path] = {}
        cases, releases, left_out = [], set(), dict[Path, str]()
        for folder in _case_folders(root, 3):
            release, match = _match_release(folder.name)
            if match is None:
                continue
            releases.add(release)
            if match[0] in folders:
                paths = (folders[match[0]], folder)
                duplicates = " and ".join(path.relative_to(root).as_posix() for path in paths)
                raise DataError(
                    f"dataset 'brats' found a case twice: {duplicates}. Remove one of them."
                )
            folders[match[0]] = folder
            patient = match.groupdict().get("patient", match[0])
            files, unrecognised = _modality_files(folder)
            needed = {name: files[name] for name in (*self.modalities, "seg") if name in files}
            left_out |= {
                p: f"{k} is not in modalities" for k, p in files.items() if k not in needed
            }
            extra = {"strange": unrecognised} if unrecognised else {}
            cases.append(Case(match[0], patient, needed, extra=extra))
        if not cases:
            raise self.no_data_error(f"no case lies under {root}")
        if len(releases) > 1:
            releases_text = " and ".join(sorted(releases))
            raise DataError(
                f"{root} holds the releases {releases_text}, which share patients: name one."
            )
        return DatasetIndex(sorted(cases, key=lambda case: case.name), left_out=left_out)

    def find_new_cases(self, path: Path) -> DatasetIndex:
        """Return the cases of new files: folders of BraTS, or NAME_t1.nii.gz and so on."""
        try:
            return super().find_new_cases(path)
        except DataError:
            subjects, problems = find_new_subjects(path, self.modalities)
        cases = [Case(s.name, s.name, s.files, label=False) for s in subjects]
        return DatasetIndex(cases, problems)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        patients = {case.group for case in cases}
        if len(patients) < 3:
            raise DataError(
                f"dataset 'brats' found {len(patients)} patients; train, held_out and test need "
                "one each, 3 in all, and val a fourth. (adbench info brats)"
            )
        split_of = four_way_split(patients, self.fractions, self.seed)
        return {case.name: split_of[case.group] for case in cases}

    def read(self, case: Case) -> CaseSamples:
        """Return the slices of a case that have enough brain."""

        def name_of(role: str) -> str:
            return f"{case.name}/{case.files[role].name}"

        volumes, problems = read_coregistered(
            case.files, name_of, nan=self.nan, ignore_affine=self.ignore_affine
        )
        problems = [*self._file_name_problems(case), *problems]
        if volumes:
            problems += self._extent_problems(volumes, name_of(next(iter(volumes))))
        if "seg" in volumes and not self.allow_empty_mask and not volumes["seg"].data.any():
            problems.append(f"{name_of('seg')} marks no tumour (allow_empty_mask)")
        if problems:
            raise DataError(f"{case.name} is unusable", problems)
        levels = range(self.axial[0], self.axial[1] + 1, self.every)
        axial = slice(levels.start, levels.stop, levels.step)
        mm = volumes[self.modalities[0]].spacing
        shape = volumes[self.modalities[0]].data.T[axial].shape
        # of a new case nobody has drawn a tumour
        drawn = "seg" in volumes
        tumour = volumes["seg"].data.T[axial] > 0 if drawn else np.zeros(shape, bool)  # (N, Y, X)
        notes, constant, images = nan_notes(volumes, name_of), False, []
        brain = np.zeros_like(tumour)
        for name in self.modalities:
            data = volumes[name].data
            stack, range_ = data.T[axial], intensity_percentiles(data)
            if range_ is None:
                constant = True
                reason = "is constant: it becomes zeros, and no method trains on this case"
                notes.append(f"{name_of(name)} {reason}")
                images.append(to_display_planes(np.zeros_like(stack)))
            else:
                brain = brain | (stack != 0)
                images.append(to_display_planes(scale_intensity_range(stack, *range_, stack != 0)))
        size = self.spec.shape[0]
        slices = select_slices(
            torch.stack(images, 1),
            to_display_planes(brain),
            to_display_planes(tumour),
            levels,
            size=size,
            crop=self.crop,
            spacing=(mm[1], mm[0]),
            min_brain=self.min_brain,
            min_lesion=self.min_lesion,
            tags={"subject_status": "diseased"},
        )
        if slices is None:
            raise DataError(f"{case.name}: crop={self.crop} cuts off a part of the brain")
        samples = list(slices.samples(case.name, case.group))
        return CaseSamples(
            samples,
            notes,
            not constant,
            {vanished_lesions_text(size, self.min_lesion): slices.vanished_lesions},
            volume_shape_text(volumes[self.modalities[0]].data.shape),
            slices.mask_area_ratios,
        )

    def map_to_samples(self, volume: Volume) -> torch.Tensor:
        return planes_to_samples(volume, self.spec.shape[0], self.crop)

    def _file_name_problems(self, case: Case) -> list[str]:
        roles, unrecognised = [*self.modalities], case.extra.get("strange", [])
        if case.label is None:
            roles.append("seg")
        missing = [name for name in roles if name not in case.files]
        if not missing and not unrecognised:
            return []
        file_names = [*sorted(path.name for path in case.files.values()), *unrecognised]
        return [
            f"{case.name}: expected one file each for {', '.join(roles)}; "
            f"missing {', '.join(missing) or 'nothing'}; not recognised or double "
            f"{', '.join(unrecognised) or 'nothing'}; found {', '.join(file_names) or 'nothing'}"
        ]

    def _extent_problems(self, volumes: Mapping[str, Volume], first_name: str) -> Iterator[str]:
        """Yield a problem if the first volume has too few slices or another extent."""
        height, width, depth = next(iter(volumes.values())).data.shape
        if depth <= self.axial[1]:
            yield f"{first_name} has {depth} axial slices; axial asks for number {self.axial[1]}"
        if self.size is None and (height, width) != (NATIVE_SIZE, NATIVE_SIZE):
            yield (
                f"{first_name} has slices of {height} x {width}, not {NATIVE_SIZE} x "
                f"{NATIVE_SIZE} (give a size)"
            )

    def _find_copies(
        self, cases: Iterable[Case], digests: Mapping[Path, str], split_of: Mapping[str, str]
    ) -> tuple[list[str], list[str]]:
        """Return copied images as problems, within a split or a case too, because no two images of
        BraTS are equal unless they are constant (an unreadable image counts as constant here)."""
        cases = list(cases)
        images = [path for case in cases for role, path in case.files.items() if role != "seg"]
        counts = Counter(digests[path] for path in images)
        constant = {path for path in images if counts[digests[path]] > 1 and _is_constant(path)}
        distinct_digests = {
            path: str(path) if path in constant else digests[path] for path in digests
        }
        problems, notes = super()._find_copies(cases, distinct_digests, split_of)
        return [*problems, *notes], []

    def _empty_split_hint(self, part: str) -> str:
        return ": widen axial, or min_brain"


def _is_constant(path: Path) -> bool:
    try:
        data = read_volume(path, nan="zero").data
    except DataError:
        return True
    return bool(data.min() == data.max())


def _case_folders(root: Path, depth: int) -> Iterator[Path]:
    """Yield the folders below root; the inside of a case is not searched."""
    for folder in list_directory(root):
        if folder.is_dir():
            yield folder
            if depth > 1 and _match_release(folder.name)[1] is None:
                yield from _case_folders(folder, depth - 1)


def _match_release(name: str) -> tuple[str, re.Match[str] | None]:
    for release, pattern in RELEASE_NAMES.items():
        match = pattern.fullmatch(name)
        if match:
            return release, match
    return "", None


def _modality_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return files by modality and "seg", and the NIfTI names that match none."""
    files: dict[str, Path] = {}
    unrecognised = []
    for path in list_directory(folder):
        if path.is_file() and is_nifti(path.name):
            stem = nifti_stem(path.name)
            modality = MODALITY_ENDINGS.get(stem.removeprefix(folder.name).lower())
            if modality is None or modality in files:
                unrecognised.append(path.name)
            else:
                files[modality] = path
    return files, unrecognised
