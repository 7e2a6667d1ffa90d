"""Maps go back to where their samples were cut from, whatever the orientation of the file."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.benchmark.prediction.grids import VolumeGrid
from adbench.datasets.base import DataError
from adbench.datasets.volumes import Volumes
from scans import SHAPE, brain, oblique_affine, write_scan


def restored_input(path: Path, dataset: Volumes, *, smooth: bool = True) -> np.ndarray:
    """What the method would be shown of a file, put back as if it were a map."""
    (case,) = dataset.find_new_cases(path).cases
    samples = dataset.read(case).samples
    grid = VolumeGrid.of_file(path, display=True, step=dataset.every)
    return grid.restore(np.stack([s.x[0].numpy() for s in samples]), samples, smooth=smooth)


@pytest.mark.parametrize("slices", [True, False])
def test_without_resizing_every_voxel_is_back_at_its_place(tmp_path: Path, slices: bool) -> None:
    """In all 48 orientations that a file can have."""
    shape = (5, 6, 7)
    voxels = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * np.array(signs) * (1.0, 2.0, 3.0)
        path = tmp_path / "scan.nii"
        nib.Nifti1Image(voxels, affine).to_filename(path)
        up = nib.as_closest_canonical(nib.load(path)).shape
        size = max(up[:2]) if slices else tuple(reversed(up))
        dataset = Volumes(size=size, slices=slices, scale="none", min_foreground=0)
        assert np.array_equal(restored_input(path, dataset), voxels), (order, signs)


@pytest.mark.parametrize("slices", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_lesion_that_was_made_smaller_keeps_its_centre(
    tmp_path: Path, seed: int, slices: bool
) -> None:
    path = tmp_path / "p.nii.gz"
    write_scan(path, seed, lesion=True)
    size = 12 if slices else (9, 12, 10)
    values = restored_input(path, Volumes(size=size, slices=slices, scale="minmax"))
    assert values.shape == SHAPE
    where = brain(seed, lesion=True)[1]
    centre = np.argwhere(where).mean(0)
    bright = np.where(values > 0.7, values, 0)
    middle = [(i * bright).sum() / bright.sum() for i in np.indices(SHAPE)]
    assert np.abs(centre - middle).max() < 1


def test_planes_that_were_passed_over_lie_between_their_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "p.nii"
    voxels = np.broadcast_to(np.linspace(0.1, 0.9, 9), (4, 4, 9)).astype(np.float32)
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    dataset = Volumes(size=4, scale="none", every=2, axial=(1, 7))
    values = restored_input(path, dataset)
    assert np.allclose(values[..., 1:8], voxels[..., 1:8], atol=1e-6)
    assert (values[..., [0, 8]] == 0).all(), "nobody looked there"
    nearest = restored_input(path, dataset, smooth=False)
    assert set(np.unique(nearest)) <= {0.0, *np.unique(voxels)}


def test_the_written_file_has_the_grid_of_the_input(tmp_path: Path) -> None:
    path = tmp_path / "p.nii.gz"
    affine = oblique_affine(5)
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=2)
    image.header.set_slope_inter(2.5, -7)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    grid = VolumeGrid.of_file(path, display=True)
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    grid.save(values, tmp_path / "map.nii.gz")
    grid.save(values > 0.5, tmp_path / "mask.nii.gz")
    back = nib.load(tmp_path / "map.nii.gz")
    assert np.array_equal(back.affine, nib.load(path).affine)
    assert back.header["qform_code"] == 1 and back.header["sform_code"] == 2
    assert np.array_equal(back.get_fdata(dtype=np.float32), values)
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8 and np.array_equal(mask.get_fdata() > 0, values > 0.5)


def test_samples_that_were_resampled_otherwise_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.nii.gz"
    write_scan(path, 0)
    dataset = Volumes(size=12)
    (case,) = dataset.find_new_cases(path).cases
    samples = dataset.read(case).samples
    grid = VolumeGrid.of_file(path, display=True)
    from dataclasses import replace

    odd = [replace(sample, spacing=(1.234, 1.234)) for sample in samples]
    maps = np.stack([s.x[0].numpy() for s in samples])
    with pytest.raises(DataError, match="resampled in a way that is unknown"):
        grid.restore(maps, odd)
