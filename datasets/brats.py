"""BraTS as it is downloaded: axial slices of brains with a glioma, from skull-stripped volumes.

Menze et al., "The multimodal brain tumor image segmentation benchmark (BRATS)", IEEE TMI 2015;
Baid et al., 2021. https://arxiv.org/abs/2107.02314. Three releases are recognised by their names:

    2020  BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii(.gz)
    2021  BraTS2021_00000/BraTS2021_00000_{t1,t1ce,t2,flair,seg}.nii.gz
    2023  BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz

A healthy slice is a slice without tumour of a brain that has one; nobody here is healthy.
"""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .base import DataError, Dataset, Progress, Sample, Spec, Split, silent
from .digests import file_digests
from .nifti import Volume, read_labels, read_volume
from .prepared import joined, prepare_once, read_part
from .writer import Writer

NATIVE = 240  # voxels along both in-plane axes, in every release
MODALITIES = ("t1", "t1ce", "t2", "flair")
SPLITS = ("train", "held_out", "val", "test")
RELEASES = {
    "2020": re.compile(r"BraTS20_Training_\d{3}"),
    "2021": re.compile(r"BraTS2021_\d{5}"),
    "2023": re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d{5})-\d{3}"),  # patient, then visit
}
ENDINGS = {f"_{name}": name for name in (*MODALITIES, "seg")} | {
    "-t1n": "t1",
    "-t1c": "t1ce",
    "-t2w": "t2",
    "-t2f": "flair",
    "-seg": "seg",
}
JUNK = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|\.ipynb_checkpoints|__MACOSX")
RECIPE = 1  # count up when the same files and arguments give other samples
EXPECTED = (
    "Expected <root>/BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz"
    "   (adbench info brats)"
)


class BraTS(Dataset):
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
    fractions: of subjects in train, held_out, val and test; each gets at least one
    min_brain: slices in which less than this part of all pixels is brain are left out everywhere
    min_lesion: slices with a lesion are left out where fewer pixels of it remain at `size`
    nan: "zero" takes NaN for background instead of refusing the case
    ignore_affine: let a case's files disagree about where their voxels lie; the first one counts
    allow_empty_mask: let a case have no tumour at all
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        modalities: Sequence[str] = MODALITIES,
        axial: Sequence[int] = (80, 128),
        every: int = 1,
        size: int | None = None,
        crop: int | None = None,
        seed: int = 0,
        fractions: Sequence[float] = (0.6, 0.1, 0.1, 0.2),
        min_brain: float = 0.05,
        min_lesion: int = 1,
        nan: Literal["error", "zero"] = "error",
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
        self.nan: Literal["error", "zero"] = nan
        self.ignore_affine, self.allow_empty_mask = ignore_affine, allow_empty_mask
        side = size or NATIVE
        self.spec = Spec(channels=len(self.modalities), shape=(side, side), labels=True)
        self._path: Path | None = None

    def prepare(self, progress: Progress = silent) -> None:
        if self._path is None:
            root = _root(self.root)
            cases = _cases(root)
            patients = sorted({case.patient for case in cases})
            split_of = _assign(patients, self.fractions, self.seed)
            paths = [path for case in cases for path in self._wanted(case).values()]
            digests = dict(zip(paths, file_digests(paths, progress), strict=True))
            self._path = prepare_once(
                "brats",
                self._identity(cases, digests),
                lambda writer: self._write(writer, cases, split_of, digests, progress),
                spec=self.spec,
            )

    def train(self, *, labelled: bool = False) -> Split:
        healthy = self._read("train", masks=False)
        return joined(healthy, self._read("train-abnormal", masks=False)) if labelled else healthy

    def held_out(self) -> Split:
        return self._read("held_out", masks=False)

    def val(self) -> Split:
        return self._read("val")

    def test(self) -> Split:
        return self._read("test")

    def _read(self, part: str, *, masks: bool = True) -> Split:
        self.prepare()
        assert self._path is not None
        return read_part(self._path, part, masks=masks)

    def _wanted(self, case: Case) -> dict[str, Path]:
        """The files of a case that the samples depend on."""
        names = (*self.modalities, "seg")
        return {name: case.files[name] for name in names if name in case.files}

    def _identity(self, cases: Sequence[Case], digests: Mapping[Path, str]) -> dict[str, object]:
        arguments = set(inspect.signature(type(self)).parameters) - self.circumstances
        return {
            "recipe": RECIPE,
            "arguments": {name: getattr(self, name) for name in arguments},
            "files": {
                case.name: {name: digests[path] for name, path in self._wanted(case).items()}
                for case in cases
            },
        }

    def _write(
        self,
        writer: Writer,
        cases: Sequence[Case],
        split_of: Mapping[str, str],
        digests: Mapping[Path, str],
        progress: Progress,
    ) -> None:
        """Check every case and add its slices, reading each file once. The first bad case ends
        the adding but not the checking: the user hears of all of them at once."""
        problems: list[str] = []
        notes: list[str] = []
        bad, vanished, counts = 0, 0, Counter[str]()
        seen: dict[str, str] = {}
        with ThreadPoolExecutor(min(len(self.modalities), os.cpu_count() or 1)) as pool:
            for done, case in enumerate(cases, 1):
                slab, wrong = self._slab(case, digests, seen, pool)
                wrong = [*self._misnamed(case), *wrong]
                problems += wrong
                bad += bool(wrong)
                if slab is not None and not bad:
                    notes += slab.notes
                    vanished += slab.vanished
                    for sample in slab.samples(case):
                        part = _part(split_of[case.patient], sample.label, slab.constant)
                        if part is not None:
                            writer.add(part, sample)
                            counts[part] += 1
                progress("checking and slicing", done, len(cases))
        if bad:
            raise DataError(
                f"{bad} of {len(cases)} cases are unusable. Nothing was cached. "
                "Mend, replace or remove them and run again. (adbench info brats)",
                problems,
            )
        empty = [split for split in SPLITS if not counts[split]]
        if empty:
            raise DataError(f"no slice is left for {', '.join(empty)}: widen axial, or min_brain")
        if vanished:
            notes.append(
                f"slices left out because fewer than {self.min_lesion} pixels of their lesion "
                f"remain at size {self.spec.shape[0]}: {vanished} (min_lesion)"
            )
        for note in notes:
            warnings.warn(note, stacklevel=2)

    def _misnamed(self, case: Case) -> list[str]:
        wanted = [*self.modalities, "seg"]
        missing = [name for name in wanted if name not in case.files]
        if not missing and not case.strange:
            return []
        found = [*sorted(path.name for path in case.files.values()), *case.strange]
        return [
            f"{case.name}: expected one file each for {', '.join(wanted)}; "
            f"missing {', '.join(missing) or 'nothing'}; not recognised or double "
            f"{', '.join(case.strange) or 'nothing'}; found {', '.join(found) or 'nothing'}"
        ]

    def _slab(
        self,
        case: Case,
        digests: Mapping[Path, str],
        seen: dict[str, str],
        pool: ThreadPoolExecutor,
    ) -> tuple[Slab | None, list[str]]:
        """The slices of a case that are worth keeping, or everything that is wrong with it.

        digests: of the files when they were first read
        seen: by digest, what the images of earlier cases are called
        """
        files = self._wanted(case)

        def read(name: str, affine: np.ndarray | None = None) -> Volume | str:
            path, called = files[name], case.called(name)
            try:
                if name == "seg":
                    volume = read_labels(path, affine=affine, name=called)
                else:
                    volume = read_volume(path, nan=self.nan, affine=affine, name=called)
            except DataError as error:
                return error.summary
            changed = f"{called} has changed since it was first read"
            return volume if volume.sha256 == digests[path] else changed

        outcomes: dict[str, Volume | str] = {}
        if files:
            first, *others = files
            outcomes[first] = lead = read(first)
            known = None if isinstance(lead, str) else lead.stored_affine
            affine = known if self.ignore_affine else None
            outcomes |= zip(others, pool.map(lambda name: read(name, affine), others), strict=True)
        problems = [outcome for outcome in outcomes.values() if isinstance(outcome, str)]
        volumes = {name: v for name, v in outcomes.items() if isinstance(v, Volume)}
        problems += [*self._misfits(case, volumes), *self._copies(case, volumes, seen)]
        if problems or len(volumes) <= len(self.modalities):
            return None, problems
        return self._cut(case, volumes)

    def _misfits(self, case: Case, volumes: Mapping[str, Volume]) -> list[str]:
        """What keeps the volumes of a case from being used together."""
        if not volumes:
            return []
        problems = []
        (first, lead), *others = volumes.items()
        for name, volume in others:
            called = f"{case.called(name)} and {case.called(first)}"
            if volume.data.shape != lead.data.shape:
                shapes = f"{volume.data.shape} and {lead.data.shape}"
                problems.append(f"{called} differ in shape: {shapes}")
                continue
            off = float(np.abs(volume.affine - lead.affine).max())
            if off > 1e-3 and not self.ignore_affine:
                problems.append(f"{called} differ in affine, by up to {off:.3g} (ignore_affine)")
        height, width, depth = lead.data.shape
        if depth <= self.axial[1]:
            problems.append(
                f"{case.called(first)} has {depth} axial slices; axial asks for number "
                f"{self.axial[1]}"
            )
        if self.size is None and (height, width) != (NATIVE, NATIVE):
            problems.append(
                f"{case.called(first)} has slices of {height} x {width}, not {NATIVE} x {NATIVE} "
                "(give a size)"
            )
        if "seg" in volumes and not self.allow_empty_mask and not volumes["seg"].data.any():
            problems.append(f"{case.called('seg')} marks no tumour (allow_empty_mask)")
        return problems

    def _copies(
        self, case: Case, volumes: Mapping[str, Volume], seen: dict[str, str]
    ) -> Iterator[str]:
        """Images that stood in another case, or under another name, byte for byte."""
        for name, volume in volumes.items():
            called = case.called(name)
            first = seen.setdefault(volume.sha256, called) if name != "seg" else called
            if first != called and volume.data.min() < volume.data.max():
                yield f"{called} is a copy of {first}"

    def _cut(self, case: Case, volumes: Mapping[str, Volume]) -> tuple[Slab | None, list[str]]:
        """Axial slices, scaled, fitted to size, and rid of those that show nothing."""
        levels = range(self.axial[0], self.axial[1] + 1, self.every)
        axial = slice(levels.start, levels.stop, levels.step)
        tumour = volumes["seg"].data.T[axial] > 0  # (N, Y, X)
        notes, constant, images, brain = [], False, [], np.zeros_like(tumour)
        for name in self.modalities:
            volume = volumes[name]
            if volume.nans:
                notes.append(f"{case.called(name)}: {volume.nans} NaN voxels were set to zero")
            slices = volume.data.T[axial]
            scaled = _scaled(slices, volume.data)
            if scaled is None:
                constant, scaled = True, np.zeros_like(slices)
                why = "is constant: it becomes zeros, and no method trains on this case"
                notes.append(f"{case.called(name)} {why}")
            else:
                brain = brain | (slices != 0)
            images.append(_planes(scaled))
        x = torch.stack(images, 1)  # (N, C, H, W)
        brain, tumour = _planes(brain), _planes(tumour)  # (N, H, W)
        size = self.spec.shape[0]
        side = self.crop or max(size, *brain.shape[1:])
        if _square(brain, side).sum() < brain.sum():
            return None, [f"{case.name}: crop={side} cuts off a part of the brain"]
        roi, mask = _fit(brain, side, size) > 0.5, _fit(tumour, side, size) > 0.5
        lesion, left = tumour.any((1, 2)), mask.sum((1, 2))
        vanished = lesion & (left < self.min_lesion)
        keep = (brain.float().mean((1, 2)) >= self.min_brain) & ~vanished
        mm = volumes[self.modalities[0]].spacing
        slab = Slab(
            x=_fit(x, side, size)[keep],
            mask=mask[keep],
            roi=roi[keep],
            levels=[level for level, kept in zip(levels, keep.tolist(), strict=True) if kept],
            spacing=(mm[1] * side / size, mm[0] * side / size),
            vanished=int(vanished.sum()),
            constant=constant,
            notes=notes,
        )
        return slab, []


@dataclass(frozen=True)
class Slab:
    """N axial slices of one case. x: (N, C, H, W); mask, roi: (N, H, W).

    vanished: how many slices were left out because too little of their lesion remained
    constant: whether a modality holds one value only
    notes: what the user should know
    """

    x: Tensor
    mask: Tensor
    roi: Tensor
    levels: Sequence[int]
    spacing: tuple[float, float]
    vanished: int
    constant: bool
    notes: Sequence[str]

    def samples(self, case: Case) -> Iterator[Sample]:
        for index, level in enumerate(self.levels):
            yield Sample(
                x=self.x[index],
                key=f"{case.name}/z{level:03d}",
                group=case.patient,
                label=bool(self.mask[index].any()),
                mask=self.mask[index],
                roi=self.roi[index],
                spacing=self.spacing,
                tags={"subject_status": "diseased"},
            )


def _part(split: str, label: bool, constant: bool) -> str | None:
    """The part of the prepared file a slice belongs to, or None."""
    if split in ("val", "test"):
        return split
    if constant or (label and split == "held_out"):
        return None
    return "train-abnormal" if label else split


def _scaled(slices: np.ndarray, data: np.ndarray) -> np.ndarray | None:
    """Slices with the 1st to 99th percentile of their volume scaled to 0..1; None where these are
    one. Background is what is exactly zero: intensities may be negative."""
    data = data.T  # NIfTI keeps X innermost; the other way round this takes five times as long
    inside = data[data != 0]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 0.0)
    if not low < high:
        return None
    scaled = ((slices - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return np.where(slices != 0, scaled, np.float32(0))


def _planes(slices: np.ndarray) -> Tensor:
    """Slices (N, Y, X) to the right and front as planes (N, H, W) to the back and left."""
    return torch.from_numpy(np.ascontiguousarray(slices[:, ::-1, ::-1]))


def _square(planes: Tensor, side: int) -> Tensor:
    """The middle of (..., H, W), cut or padded with zeros to (..., side, side)."""
    pads: list[int] = []
    for extent in (planes.shape[-1], planes.shape[-2]):
        before = (side - extent) // 2  # negative cuts
        pads += [before, side - extent - before]
    return F.pad(planes, pads)


def _fit(planes: Tensor, side: int, size: int) -> Tensor:
    """The middle square (side) of (N, [C,] H, W), as float32 averages over areas (size)."""
    square = _square(planes.float(), side)
    if side == size:
        return square
    if square.ndim == 3:
        return F.adaptive_avg_pool2d(square[:, None], size)[:, 0]
    return F.adaptive_avg_pool2d(square, size)


@dataclass(frozen=True)
class Case:
    """One folder. files: by modality, and "seg"; strange: NIfTI names that fit nothing."""

    name: str
    patient: str
    where: str
    files: Mapping[str, Path]
    strange: Sequence[str]

    def called(self, name: str) -> str:
        """How errors call a file: relative to root."""
        return f"{self.where}/{self.files[name].name}"


def _root(given: str | None) -> Path:
    place = given or os.environ.get("ADBENCH_DATA")
    if not place:
        why = "ADBENCH_DATA is not set and --data was not given"
        raise DataError(f"dataset 'brats' found no data: {why}.", [EXPECTED])
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset 'brats' found no data: {root} is no folder.", [EXPECTED])
    return root


def _cases(root: Path) -> list[Case]:
    """Every case at most three folders below root, by name."""
    cases: dict[str, Case] = {}
    releases = set()
    for folder in _folders(root, 3):
        release, match = _release(folder.name)
        if match is None:
            continue
        releases.add(release)
        where = folder.relative_to(root).as_posix()
        if match[0] in cases:
            twice = f"{cases[match[0]].where} and {where}"
            raise DataError(f"dataset 'brats' found a case twice: {twice}. Remove one of them.")
        patient = match.groupdict().get("patient", match[0])
        cases[match[0]] = Case(match[0], patient, where, *_files(folder))
    if not cases:
        raise DataError(f"dataset 'brats' found no data: no case lies under {root}.", [EXPECTED])
    if len(releases) > 1:
        which = " and ".join(sorted(releases))
        raise DataError(f"{root} holds the releases {which}, which share patients: name one.")
    return [cases[name] for name in sorted(cases)]


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders below root, not looking into those that are cases."""
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not JUNK.fullmatch(folder.name):
            yield folder
            if depth > 1 and _release(folder.name)[1] is None:
                yield from _folders(folder, depth - 1)


def _release(name: str) -> tuple[str, re.Match[str] | None]:
    for release, pattern in RELEASES.items():
        match = pattern.fullmatch(name)
        if match:
            return release, match
    return "", None


def _files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    files: dict[str, Path] = {}
    strange = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.endswith((".nii", ".nii.gz")):
            if JUNK.fullmatch(path.name):
                continue
            stem = path.name.removesuffix(".gz").removesuffix(".nii")
            modality = ENDINGS.get(stem.removeprefix(folder.name))
            if modality is None or modality in files:
                strange.append(path.name)
            else:
                files[modality] = path
    return files, strange


def _assign(patients: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Which split each patient is in: in an order that only seed and names decide."""
    if len(patients) < len(SPLITS):
        raise DataError(
            f"dataset 'brats' found {len(patients)} patients; {', '.join(SPLITS)} need one each, "
            f"{len(SPLITS)} in all. (adbench info brats)"
        )
    counts = [max(1, round(fraction * len(patients))) for fraction in fractions]
    counts[0] = len(patients) - sum(counts[1:])
    while counts[0] < 1:
        counts[counts.index(max(counts))] -= 1
        counts[0] += 1
    order = sorted(patients, key=lambda name: sha256(f"{seed}\0{name}".encode()).digest())
    splits = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(order, splits, strict=True))
