"""Volumes of one patient, read together: what is wrong with each, and with one beside another."""

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
    """The volumes that can be read, by role, and every problem, one line each.

    name_of: how errors call the file of a role
    labels: the roles that hold labels, each one of `allowed`
    nan: "zero" takes NaN for background
    ignore_affine: the first file's affine counts for all
    reorient: false leaves all axes as they are stored
    """
    volumes: dict[str, Volume] = {}
    problems: list[str] = []
    trusted_affine: np.ndarray | None = None
    for index, (role, path) in enumerate(files.items()):
        name = name_of(role)
        try:
            if role in labels:
                volume = read_labels(
                    path, allowed=allowed, affine=trusted_affine, name=name, reorient=reorient
                )
            else:
                volume = read_volume(
                    path, nan=nan, affine=trusted_affine, name=name, reorient=reorient
                )
        except DataError as error:
            problems.append(error.summary)
            continue
        volumes[role] = volume
        if index == 0 and ignore_affine:
            trusted_affine = volume.stored_affine
    problems += find_mismatches(volumes, name_of, ignore_affine=ignore_affine)
    return volumes, problems


def find_mismatches(
    volumes: Mapping[str, Volume], name_of: Callable[[str], str], *, ignore_affine: bool = False
) -> Iterator[str]:
    """Volumes that differ from the first in shape, or in where their voxels lie."""
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
    """Notes on NaN that were taken for background."""
    return [
        f"{name_of(role)}: {volume.nans} NaN voxels were set to zero"
        for role, volume in volumes.items()
        if volume.nans
    ]
