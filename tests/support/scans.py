"""Made-up brain volumes on oblique grids with thick slices, some with a bright lesion."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

SHAPE = (20, 24, 9)
SPACING = (0.9, 1.1, 3.2)
AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1))
"""Which patient axis each stored axis runs along, roughly."""


def oblique_affine(seed: int) -> np.ndarray:
    """A rotation by up to 15 degrees, thick slices, axes in another order, some of them flipped."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix()
    axes = np.zeros((3, 3))
    for stored, patient in enumerate(AXES[seed % len(AXES)]):
        axes[patient, stored] = (-1.0) ** (seed >> stored & 1)
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag(SPACING)
    affine[:3, 3] = rng.uniform(-60, 60, 3)
    return affine


def brain(seed: int, *, lesion: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of an ellipsoid in air, and where its lesion is, (X, Y, Z) each, as stored."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    inside = (grid**2).sum(0) < 0.9
    voxels = 100 + 10 * grid[1] + rng.normal(0, 2, SHAPE)
    where = np.zeros(SHAPE, bool)
    if lesion:
        centre = [rng.integers(int(0.4 * n), int(0.6 * n) + 1) for n in SHAPE]
        away = [(i - c) / r for i, c, r in zip(np.indices(SHAPE), centre, (3, 3, 1.5), strict=True)]
        where = np.sum(np.square(away), 0) < 1
        voxels[where] = 190
    return np.where(inside | where, voxels, 0).astype(np.float32), where


def read_nifti(path: Path) -> nib.Nifti1Image:
    """A NIfTI file, its voxels unread."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def affine_of(image: nib.Nifti1Image) -> np.ndarray:
    """(4, 4)"""
    return np.asarray(image.affine, np.float64)


def write_scan(path: Path, seed: int, *, lesion: bool = False, mask: bool = False) -> None:
    """A volume at `path`, and its mask beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels, where = brain(seed, lesion=lesion)
    affine = oblique_affine(seed)
    nib.Nifti1Image(voxels, affine).to_filename(path)
    if mask:
        name = path.name.replace(".nii", "_mask.nii")
        nib.Nifti1Image(where.astype(np.uint8), affine).to_filename(path.with_name(name))


def write_tree(root: Path, *, train: int = 6, test: int = 2) -> None:
    """A folder as the dataset `volumes` takes it."""
    for i in range(train):
        write_scan(root / f"train/normal/n{i}.nii.gz", i)
    for i in range(test):
        write_scan(root / f"test/normal/t{i}.nii.gz", 40 + i)
        write_scan(root / f"test/lesion/l{i}.nii.gz", 80 + i, lesion=True, mask=True)
