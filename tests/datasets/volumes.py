"""Small real NIfTI files: brains, tumours, and whole BraTS trees of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

SHAPE = (24, 24, 16)
AXIAL = (3, 12)  # slices of such a volume that show enough brain; the tumour lies in 6..9
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = {
    "2020": "BraTS20_Training_{0:03d}",
    "2021": "BraTS2021_{0:05d}",
    "2023": "BraTS-GLI-{0:05d}-000",
}
ENDINGS = {
    "2020": {name: f"_{name}" for name in ("t1", "t1ce", "t2", "flair", "seg")},
    "2021": {name: f"_{name}" for name in ("t1", "t1ce", "t2", "flair", "seg")},
    "2023": {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"},
}


def ball(shape: tuple[int, ...], middle: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, extent) for extent in shape)]
    far = sum(((a - m) / r) ** 2 for a, m, r in zip(axes, middle, radii, strict=True))
    return np.asarray(far < 1)


def brain(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """int16: 0 outside an ellipsoid, 300 to 1000 within, another value at every voxel."""
    inside = ball(shape, tuple(n / 2 for n in shape), tuple(0.42 * n for n in shape))
    values = np.random.default_rng(seed).integers(300, 1001, shape)
    return (inside * values).astype(np.int16)


def tumour(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """uint8: oedema 2 around a rim 4 around a core 1, off the middle on every axis."""
    middle, labels = (9.0, 11.0, 7.5), np.zeros(shape, np.uint8)
    for label, radii in ((2, (4, 4, 2.2)), (4, (2.5, 2.5, 2)), (1, (1.5, 1.5, 1.5))):
        labels[ball(shape, middle, radii)] = label
    return labels


def save(array: np.ndarray, path: Path, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def turned(
    array: np.ndarray, codes: str, affine: np.ndarray = LPS
) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places, with axes stored in the order and sense of `codes`."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


def case(
    folder: Path, number: int, *, release: str = "2020", suffix: str = ".nii.gz", codes: str = "LPS"
) -> Path:
    """One patient's five files, in a folder of their own, which is returned."""
    name = NAMES[release].format(number)
    for index, (modality, ending) in enumerate(ENDINGS[release].items()):
        array = tumour() if modality == "seg" else brain(10 * number + index)
        stored, affine = turned(array, codes)
        save(stored, folder / name / f"{name}{ending}{suffix}", affine)
    return folder / name


def tree(
    root: Path,
    *,
    count: int = 5,
    release: str = "2020",
    suffix: str = ".nii.gz",
    codes: str = "LPS",
) -> list[Path]:
    """A BraTS tree; the folders of its cases."""
    return [
        case(root, number, release=release, suffix=suffix, codes=codes)
        for number in range(1, count + 1)
    ]
