"""Reading the volumes of one patient together, with all problems of each and between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ..base import DataError
from ..io.nifti import BRATS_LABELS, Volume, read_labels, read_volume

NanPolicy = Literal["error", "zero"]


def read_coregistered(
    files: Mapping[str, Path],
    name_of: Callable[[str], str],
    *,
    labels: Collection[str] = ("seg",),
    allowed: Collection[int] = BRATS_LABELS,
    nan: NanPolicy = "error",
    ignore_affine: bool = False,
    reorient: bool = True,
) -> tuple[dict[str, Volume], list[str]]:
    """Return the readable volumes by role, and every problem, one line each.

    files: by role
    name_of: returns the name of a role's file in errors
    labels: the roles that hold labels
    allowed: the labels that may occur
    nan: "zero" sets NaN to 0, "error" reports them
    ignore_affine: use the affine of the first file for all
    reorient: false leaves all axes as they are stored

    >>> import nibabel as nib
    >>> nib.Nifti1Image(np.ones((2, 3, 4), np.float32), np.eye(4)).to_filename("t1.nii")
    >>> volumes, problems = read_coregistered({"t1": Path("t1.nii")}, lambda role: f"{role}.nii")
    >>> list(volumes), problems
    (['t1'], [])
    """
    volumes: dict[str, Volume] = {}
    problems: list[str] = []
    trusted_affine: np.ndarray | None = None
    voxels = 0
    for index, (role, path) in enumerate(files.items()):
        name = name_of(role)
        try:
            if role in labels:
                volume = read_labels(
                    path,
                    allowed=allowed,
                    affine=trusted_affine,
                    name=name,
                    reorient=reorient,
                    expected_voxels=voxels,
                )
            else:
                volume = read_volume(
                    path,
                    nan=nan,
                    affine=trusted_affine,
                    name=name,
                    reorient=reorient,
                    expected_voxels=voxels,
                )
        except DataError as error:
            problems.append(error.summary)
            continue
        volumes[role] = volume
        voxels = max(voxels, volume.data.size)
        if index == 0 and ignore_affine:
            trusted_affine = volume.stored_affine
    problems += find_mismatches(volumes, name_of, ignore_affine=ignore_affine)
    return volumes, problems


def find_mismatches(
    volumes: Mapping[str, Volume], name_of: Callable[[str], str], *, ignore_affine: bool = False
) -> Iterator[str]:
    """Yield a problem for each volume that differs from the first in shape or affine.

    volumes: by role
    name_of: returns the name of a role's file in errors
    ignore_affine: compare shapes only

    >>> def volume(*shape: int) -> Volume:
    ...     return Volume(np.zeros(shape), np.eye(4), (1.0, 1.0, 1.0), "RAS", np.eye(4), "")
    >>> list(find_mismatches({"t1": volume(2, 2, 2), "t2": volume(2, 2, 3)}, str.upper))
    ['T2 and T1 differ in shape: (2, 2, 3) and (2, 2, 2)']
    """
    if not volumes:
        return
    (first, reference), *others = volumes.items()
    for role, volume in others:
        pair = f"{name_of(role)} and {name_of(first)}"
        if volume.data.shape != reference.data.shape:
            yield f"{pair} differ in shape: {volume.data.shape} and {reference.data.shape}"
            continue
        difference = float(np.abs(volume.affine - reference.affine).max())
        if difference > 1e-3 and not ignore_affine:
            yield f"{pair} differ in affine, by up to {difference:.3g} (ignore_affine)"


def nan_notes(volumes: Mapping[str, Volume], name_of: Callable[[str], str]) -> list[str]:
    """Return a note for each volume whose NaN were set to zero.

    volumes: by role
    name_of: returns the name of a role's file in notes

    >>> nan_notes({}, str.upper)
    []
    """
    return [
        f"{name_of(role)}: {volume.nans} NaN voxels were set to zero"
        for role, volume in volumes.items()
        if volume.nans
    ]
