"""Maps go back to where their samples were cut from, whatever the orientation of the file."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.benchmark.prediction.grids import VolumeGrid
from adbench.datasets.base import DataError
from adbench.datasets.brats import BraTS
from adbench.datasets.decathlon import Decathlon
from adbench.datasets.preparation.file_dataset import FileDataset
from adbench.datasets.volumes import Volumes
from scans import SHAPE, affine_of, brain, oblique_affine, read_nifti, write_scan


def restored_input(path: Path, dataset: FileDataset, *, smooth: bool = True) -> np.ndarray:
    """What the method would be shown of a file, put back as if it were a map."""
    (case,) = dataset.find_new_cases(path).cases
    samples = dataset.read(case).samples
    file = next(iter(case.files.values()))
    grid = VolumeGrid.of_file(file, display=True, step=getattr(dataset, "every", 1))
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
        up = nib.as_closest_canonical(read_nifti(path)).shape
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
    back = read_nifti(tmp_path / "map.nii.gz")
    assert np.array_equal(affine_of(back), affine_of(read_nifti(path)))
    assert back.header["qform_code"] == 1 and back.header["sform_code"] == 2
    assert np.array_equal(back.get_fdata(dtype=np.float32), values)
    mask = read_nifti(tmp_path / "mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8 and np.array_equal(mask.get_fdata() > 0, values > 0.5)


def test_samples_that_were_resampled_otherwise_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.nii.gz"
    write_scan(path, 0)
    dataset = Volumes(size=12)
    (case,) = dataset.find_new_cases(path).cases
    samples = dataset.read(case).samples
    grid = VolumeGrid.of_file(path, display=True)
    odd = [replace(sample, spacing=(1.234, 1.234)) for sample in samples]
    maps = np.stack([s.x[0].numpy() for s in samples])
    with pytest.raises(DataError, match="resampled in a way that is unknown"):
        grid.restore(maps, odd)


@pytest.mark.parametrize("folder", ["BraTS20_Training_007", "ward"])
def test_a_new_case_of_brats_needs_no_segmentation(tmp_path: Path, folder: str) -> None:
    """Its modalities are named as in BraTS; planes outside `axial` and a crop stay empty."""
    shape = (10, 9, 7)
    voxels = np.zeros(shape, np.float32)
    voxels[2:8, 2:7] = np.random.default_rng(0).uniform(1, 2, (6, 5, 7))
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    (tmp_path / folder).mkdir()
    for role in ("t1", "flair"):
        name = f"{folder}/{folder}_{role}.nii.gz"
        nib.Nifti1Image(voxels, affine).to_filename(tmp_path / name)
    dataset = BraTS(modalities=("t1", "flair"), axial=(1, 4), size=8, crop=8, min_brain=0)
    values = restored_input(tmp_path, dataset)
    low, high = np.percentile(voxels[voxels != 0], (1, 99))
    expected = np.where(voxels != 0, ((voxels - low) / (high - low)).clip(0, 1), 0)
    expected[..., [0, 5, 6]] = 0
    assert np.allclose(values, expected, atol=1e-5)


def test_a_new_volume_of_the_decathlon_is_put_back_where_it_was_cut_out(tmp_path: Path) -> None:
    """One of two modalities, the middle of it, resized."""
    path = tmp_path / "new.nii.gz"
    voxels = np.zeros((9, 12, 10, 2), np.float32)
    voxels[4:6, 5:8, 4:7, 1] = 1.0
    nib.Nifti1Image(voxels, oblique_affine(1)).to_filename(path)
    values = restored_input(path, Decathlon(channel=1, size=4, crop=(8, 8, 7)))
    assert values.shape == voxels.shape[:3]
    centre = np.argwhere(voxels[..., 1]).mean(0)
    middle = [(i * values).sum() / values.sum() for i in np.indices(values.shape)]
    assert np.abs(centre - middle).max() < 1
