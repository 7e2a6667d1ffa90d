"""Dataset of a user's own volumes: NIfTI files, normal and abnormal, with or without masks.

    <root>/{train,val,test}/{normal,<what is abnormal>}/NAME.nii.gz
    <root>/{normal,<what is abnormal>}/NAME.nii.gz                    without splits: ours are made
    <root>/sub-001[/ses-01]/anat/sub-001[_ses-01]_T1w.nii.gz          BIDS: see layouts/bids.py

Splits may be called training, validation, testing, and normal healthy, good or the like, in any
case (io/folder_names.py); any other folder names what is abnormal in it. A mask is
NAME_mask.nii.gz or NAME_seg.nii.gz beside its image, or NAME.nii.gz in a folder masks/. With
`modalities`, the files of a subject are NAME_<modality>.nii.gz, one each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .base import (
    Count,
    DataError,
    FourFractions,
    Fraction,
    Many,
    Natural,
    Sample,
    Span,
    Spec,
    first_names,
)
from .io.directories import find_files
from .io.hdf5_arrays import Array
from .io.nifti import Volume, read_volume
from .io.nifti_names import SUFFIXES
from .io.value_range import ValueRange, outside_range_text, scale_to_limits
from .layouts.bids import BidsVolumes, find_bids_root, read_bids
from .layouts.volume_pairs import find_new_subjects, find_subjects, unmatched_volume_folders
from .preparation.cases import CaseSamples, DatasetIndex
from .preparation.file_dataset import FileDataset
from .splits.assignment import (
    Case,
    assign_groups,
    check_fractions,
    four_way_split,
    normalise_fractions,
)
from .transforms.coregistration import NanPolicy, nan_notes, read_coregistered
from .transforms.crops import crop_and_resize, to_display_axes
from .transforms.input_grid import planes_to_samples, volume_to_sample
from .transforms.slices import (
    intensity_percentiles,
    scale_intensity_range,
    select_slices,
    to_display_planes,
    vanished_lesions_text,
    volume_shape_text,
)


class Volumes(FileDataset):
    """Axial planes (C, H, W), or whole volumes (C, D, H, W), in 0..1, as radiologists look.

    root: the folder of the tree above; else $ADBENCH_DATA
    slices: true cuts planes, false keeps volumes
    size: rows and columns: planes are padded to a square and averaged over areas. Of volumes one
        number or three (up, back, left), averaged over areas without keeping the aspect
    modalities: endings of the files that become channels, in this order
    axial: first and last plane, counted from the feet; None takes all that show enough
    every: take each n-th
    scale: "p1p99" makes 0 to 1 of the 1st to 99th percentile of what is not zero in a volume,
        "minmax" of its extremes; "none" takes values in 0..1 as they are
    range: the stored numbers that become 0 and 1, such as (0, 3000), or "train" for the smallest
        and the largest of all normal training volumes, in place of `scale`; what is 0 stays 0, and
        what lies beyond is cut off and counted
    group: a pattern that finds the patient in NAME, such as "^[^_]+"; None: each NAME is one
    fractions: of patients in train, held_out, val and test, where the tree has no splits; the
        abnormal ones go to val and test. With splits, train/ is divided into train, held_out, and
        val if it holds abnormal ones and there is no val/
    min_foreground: planes with less than this part of non-zero pixels are left out
    min_lesion: planes with a lesion of which fewer pixels remain at `size` are left out
    nan, ignore_affine, allow_empty_mask: as in BraTS: accept what is an error otherwise

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.volumes import Volumes
    >>> with TemporaryDirectory() as root:
    ...     for name in ("normal/p1.nii.gz", "tumour/p2.nii.gz", "tumour/p2_mask.nii.gz"):
    ...         Path(root, name).parent.mkdir(exist_ok=True)
    ...         Path(root, name).touch()
    ...     data = Volumes(slices=False, size=(32, 64, 64))
    ...     index = data.build_index(Path(root))
    >>> data.spec.shape, [(case.name, case.label) for case in index.cases]
    ((32, 64, 64), [('normal/p1', False), ('tumour/p2', True)])
    """

    name = "volumes"
    new_file_suffixes = SUFFIXES
    volume_grid = "display"
    expected = (
        "<root>/{train,test}/{normal,abnormal}/NAME.nii.gz, masks as NAME_mask.nii.gz, or BIDS "
        "(sub-001/anat/sub-001_T1w.nii.gz)"
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        slices: bool = True,
        size: Count | Many[Count] = 128,
        modalities: Many[str] | None = None,
        axial: Span | None = None,
        every: Count = 1,
        scale: Literal["p1p99", "minmax", "none"] = "p1p99",
        range: ValueRange | None = None,
        group: str | None = None,
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        min_foreground: Fraction = 0.05,
        min_lesion: Count = 1,
        nan: NanPolicy = "error",
        ignore_affine: bool = False,
        allow_empty_mask: bool = False,
        seed: Natural = 0,
    ) -> None:
        extent = (size,) * (2 if slices else 3) if isinstance(size, int) else tuple(size)
        if (
            len(extent) != (2 if slices else 3)
            or min(extent) < 1
            or (slices and len({*extent}) > 1)
        ):
            raise ValueError(f"size is one number, or three of volumes, not {size}")
        if axial is not None and (len(axial) != 2 or not 0 <= axial[0] <= axial[1]):
            raise ValueError(f"no planes from {axial}; axial is (first, last)")
        if scale not in ("p1p99", "minmax", "none") or nan not in ("error", "zero"):
            raise ValueError(f"no scale {scale!r}, or no nan {nan!r}: see adbench info volumes")
        if every < 1 or min_lesion < 1:
            raise ValueError(f"every and min_lesion are at least 1, not {every} and {min_lesion}")
        if modalities is not None and (not modalities or len({*modalities}) < len(modalities)):
            raise ValueError(f"modalities are some endings, once each, not {modalities}")
        self.root, self.slices, self.size, self.every = root, slices, list(extent), every
        self.modalities = None if modalities is None else list(modalities)
        self.axial, self.scale = None if axial is None else list(axial), scale
        self.group, self.fractions, self.seed = group, check_fractions(fractions, 4), seed
        self.min_foreground, self.min_lesion = min_foreground, min_lesion
        self.nan: NanPolicy = nan
        self.ignore_affine, self.allow_empty_mask = ignore_affine, allow_empty_mask
        self._set_range(range)
        self._roles = tuple(modalities or ("image",))
        self.unique_roles = frozenset(self._roles)
        self.spec = Spec(channels=len(self._roles), shape=extent)

    def build_index(self, root: Path) -> DatasetIndex:
        bids_root = find_bids_root(root)
        bids = BidsVolumes() if bids_root is None else read_bids(root, bids_root, self.modalities)
        subjects, problems = bids.subjects, bids.problems
        if bids_root is None:
            subjects, problems = find_subjects(root, self.modalities)
        cases = []
        for subject in subjects:
            match = re.search(self.group, subject.stem) if self.group else None
            if self.group and match is None:
                problems.append(
                    f"{subject.name}: no patient is found in its name by group={self.group!r}"
                )
                continue
            group = match[0] if match else subject.subject or subject.name
            extra = {**bids.metadata.get(subject.subject, {})}
            extra |= {"kind": subject.kind} if subject.label else {}
            cases.append(
                Case(subject.name, group, subject.files, subject.pool, subject.label, extra)
            )
        abnormal = [case for case in cases if case.label]
        unmasked = [case.name for case in abnormal if "mask" not in case.files]
        has_masks = len(unmasked) < len(abnormal)
        if has_masks:
            problems += [
                f"{name} is abnormal and has no mask, but others have" for name in unmasked
            ]
        left_out = {} if bids_root else unmatched_volume_folders(root)
        notes = [
            f"the folder {path.name}/ is left out: {reason}"
            for path, reason in left_out.items()
            if any(find_files(path, SUFFIXES))
        ]
        if unmasked and not has_masks and self.slices:
            notes.append("no abnormal volume has a mask: every plane of theirs counts as abnormal")
        if any(case.pool for case in cases) and not self.group:
            pools: dict[str, set[str]] = defaultdict(set)
            for subject in subjects:
                pools[subject.stem].add(subject.pool)
            repeated = sorted(stem for stem, stem_pools in pools.items() if len(stem_pools) > 1)
            if repeated:
                notes.append(
                    f"names in two splits: {len(repeated)} ({first_names(repeated)}); "
                    "if each is one patient, say how to find it in the name (group)"
                )
        labels = any(case.pool == "train" for case in abnormal)
        self.spec = Spec(self.spec.channels, self.spec.shape, labels=labels, masks=has_masks)
        left_out = {**left_out, **bids.left_out}
        return DatasetIndex(cases, problems, notes, bids.tables, left_out)

    def find_new_cases(self, path: Path) -> DatasetIndex:
        subjects, problems = find_new_subjects(path, self.modalities)
        cases = []
        for subject in subjects:
            match = re.search(self.group, subject.stem) if self.group else None
            if self.group and match is None:
                problems.append(
                    f"{subject.name}: no patient is found in its name by group={self.group!r}"
                )
                continue
            group = match[0] if match else subject.name
            cases.append(Case(subject.name, group, subject.files, label=False))
        return DatasetIndex(cases, problems)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        train, held_out, val, test = self.fractions
        published = any(case.pool for case in cases)
        unpublished = [case for case in cases if case.pool in ("", "train")]
        normal_groups = {case.group for case in unpublished if not case.label}
        abnormal_groups = {case.group for case in unpublished} - normal_groups
        if not published:
            split_of_group = four_way_split(normal_groups, self.fractions, self.seed)
            abnormal_fractions = {"test": test, "val": val}
        else:
            needs_val = bool(abnormal_groups) and all(case.pool != "val" for case in cases)
            abnormal_fractions = {"train": train} | ({"val": val} if needs_val else {})
            normal_fractions = {"train": train, "held_out": held_out} | abnormal_fractions
            split_of_group = assign_groups(
                normal_groups, normalise_fractions(normal_fractions), self.seed
            )
        split_of_group |= assign_groups(
            abnormal_groups, normalise_fractions(abnormal_fractions), self.seed
        )
        return {
            c.name: c.pool if c.pool in ("val", "test") else split_of_group[c.group] for c in cases
        }

    def read(self, case: Case) -> CaseSamples:
        def name_of(role: str) -> str:
            return f"{case.name} ({case.files[role].name})"

        order = [role for role in (*self._roles, "mask") if role in case.files]
        volumes, problems = read_coregistered(
            {role: case.files[role] for role in order},
            name_of,
            labels=("mask",),
            allowed=range(256),
            nan=self.nan,
            ignore_affine=self.ignore_affine,
        )
        mask = volumes.pop("mask", None)
        if mask is not None and case.label and not mask.data.any() and not self.allow_empty_mask:
            empty = "is empty, and its image is called abnormal (allow_empty_mask)"
            problems.append(f"{name_of('mask')} {empty}")
        if mask is not None and not case.label and mask.data.any():
            problems.append(f"{name_of('mask')} marks something, and its image is called normal")
        for role, volume in volumes.items():
            low, high = float(volume.data.min()), float(volume.data.max())
            if self.scale == "none" and self._limits is None and not 0 <= low <= high <= 1:
                problems.append(
                    f"{name_of(role)} holds values from {low:g} to {high:g} (scale, or range)"
                )
            if self.slices and self.axial and volume.data.shape[2] <= self.axial[1]:
                depth = volume.data.shape[2]
                problems.append(
                    f"{name_of(role)} has {depth} planes; axial asks for {self.axial[1]}"
                )
        if problems or len(volumes) < len(self._roles):
            raise DataError(f"{case.name} is unusable", problems or [f"{case.name} is incomplete"])
        notes, constant, channels = nan_notes(volumes, name_of), False, []
        outside = 0
        for role, volume in volumes.items():
            scaled_values, beyond = self._scale(volume.data)
            outside += beyond
            if scaled_values is None:
                constant = True
                reason = "is constant: it becomes zeros, and no method trains on it"
                notes.append(f"{name_of(role)} {reason}")
            channels.append(np.zeros_like(volume.data) if scaled_values is None else scaled_values)
        foreground = np.any([volume.data != 0 for volume in volumes.values()], axis=0)
        reference = next(iter(volumes.values()))
        lesion = None
        if mask is not None or not case.label:
            lesion = np.zeros(foreground.shape, bool) if mask is None else mask.data > 0
        make_samples = self._plane_samples if self.slices else self._volume_sample
        samples, counts, ratios = make_samples(case, reference, channels, foreground, lesion)
        if self._limits is not None:
            counts[outside_range_text(self._limits)] = outside
        shape = volume_shape_text(reference.data.shape)
        return CaseSamples(samples, notes, not constant, counts, shape, ratios)

    def map_to_samples(self, volume: Volume) -> torch.Tensor:
        if self.slices:
            return planes_to_samples(volume, self.size[0])
        return volume_to_sample(volume, self.size)

    def _scale(self, data: np.ndarray) -> tuple[np.ndarray | None, int]:
        """Return data scaled to 0..1, zero where it was zero, None if it is constant; and how many
        voxels were beyond `range`."""
        low, high = float(data.min()), float(data.max())
        if low == high:
            return None, 0
        if self._limits is not None:
            return scale_to_limits(data, self._limits)
        if self.scale == "none":
            return data, 0
        if self.scale == "minmax":
            return scale_intensity_range(data, low, high), 0
        limits = intensity_percentiles(data)
        return (None if limits is None else scale_intensity_range(data, *limits, data != 0)), 0

    def _training_values(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> Iterator[Array]:
        for case in cases:
            if split_of.get(case.name) == "train" and not case.label:
                for role in self._roles:
                    with suppress(DataError, KeyError):  # named by its file when it is read
                        data = read_volume(case.files[role], nan=self.nan, name=case.name).data
                        yield data[data != 0]

    def _tags(self, case: Case) -> dict[str, str]:
        status = {"subject_status": "diseased" if case.label else "healthy"}
        return status | {name: str(value) for name, value in case.extra.items()}

    def _plane_samples(
        self,
        case: Case,
        reference: Volume,
        channels: Sequence[np.ndarray],
        foreground: np.ndarray,
        lesion: np.ndarray | None,
    ) -> tuple[list[Sample], dict[str, int], Sequence[float]]:
        first, last = self.axial or (0, foreground.shape[2] - 1)
        axial = slice(first, last + 1, self.every)
        slices = select_slices(
            torch.stack([to_display_planes(data.T[axial]) for data in channels], 1),
            to_display_planes(foreground.T[axial]),
            None if lesion is None else to_display_planes(lesion.T[axial]),
            range(first, last + 1, self.every),
            size=self.size[0],
            spacing=(reference.spacing[1], reference.spacing[0]),
            min_brain=self.min_foreground,
            min_lesion=self.min_lesion,
            tags=self._tags(case),
        )
        assert slices is not None  # nothing was cropped
        counts = {vanished_lesions_text(self.size[0], self.min_lesion): slices.vanished_lesions}
        samples = list(slices.samples(case.name, case.group, label=bool(case.label)))
        return samples, counts, slices.mask_area_ratios

    def _volume_sample(
        self,
        case: Case,
        reference: Volume,
        channels: Sequence[np.ndarray],
        foreground: np.ndarray,
        lesion: np.ndarray | None,
    ) -> tuple[list[Sample], dict[str, int], Sequence[float]]:
        def resized(data: np.ndarray) -> torch.Tensor:
            display_axes = np.ascontiguousarray(data.T[:, ::-1, ::-1])
            return crop_and_resize(torch.from_numpy(display_axes), self.size, spacing)[0]

        _, spacing = to_display_axes(reference)
        steps = crop_and_resize(torch.empty(foreground.T.shape), self.size, spacing)[1]
        mask, ratios = None, list[float]()
        if lesion is not None:
            lesion_share = resized(lesion)  # a lesion of less than half a voxel is its largest part
            mask = (lesion_share > 0.5) | (
                (lesion_share > 0)
                & (lesion_share >= lesion_share.max())
                & bool(lesion_share.max() <= 0.5)
            )
            if lesion.any():
                ratios.append(float(mask.float().mean()) / float(lesion.mean()))
        roi = resized(foreground) > 0.5
        sample = Sample(
            x=torch.stack([resized(data) for data in channels]),
            key=case.name,
            group=case.group,
            label=bool(case.label),
            mask=mask,
            roi=None if bool(roi.all()) else roi,
            spacing=steps,
            tags=self._tags(case),
        )
        return [sample], {}, ratios
