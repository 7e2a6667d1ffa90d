"""DICOM series become volumes at the place that their headers say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from adbench.benchmark.prediction.detector_parts import PredictionError
from adbench.benchmark.prediction.dicom import convert_series
from adbench.benchmark.prediction.grids import VolumeGrid
from adbench.datasets.volumes import Volumes
from dicom_series import COLUMNS, ORIENTATION, ROWS, SLICES, SPACING, STEP, write_series
from scans import affine_of, read_nifti


def voxels(seed: int) -> np.ndarray:
    """(slices, rows, columns)"""
    return np.random.default_rng(seed).integers(0, 400, (SLICES, ROWS, COLUMNS), np.uint16)


def test_a_voxel_lies_where_its_slice_says(tmp_path: Path) -> None:
    """By the equation of the DICOM standard, PS3.3 C.7.6.2.1.1, in NIfTI's axes."""
    write_series(tmp_path / "mri/p1", voxels(0))
    ((path,), problems) = convert_series([tmp_path / "mri"], tmp_path / "to")
    assert not problems and path.name == "p1.nii.gz"
    image = read_nifti(path)
    values = image.get_fdata()
    for k, row, column in ((0, 0, 0), (3, 5, 2), (1, 4, 4)):
        along_row, along_column = np.array(ORIENTATION[:3]), np.array(ORIENTATION[3:])
        position = np.array([10, -20, 30 + STEP * k]) + along_row * SPACING[1] * column
        position = (position + along_column * SPACING[0] * row) * [-1, -1, 1]
        assert np.allclose(affine_of(image) @ [column, row, k, 1], [*position, 1])
        assert values[column, row, k] == 2.0 * voxels(0)[k, row, column] - 100


def test_a_series_is_converted_once_and_read_as_any_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", voxels(0))
    ((path,), _) = convert_series([tmp_path / "p1"], tmp_path / "to")
    before = path.stat()
    convert_series([tmp_path / "p1"], tmp_path / "to")
    assert path.stat() == before
    dataset = Volumes(size=6, scale="minmax", min_foreground=0)
    (case,) = dataset.find_new_cases(path).cases
    samples = dataset.read(case).samples
    maps = np.stack([s.x[0].numpy() for s in samples])
    back = VolumeGrid.of_file(path, display=True).restore(maps, samples)
    stored = read_nifti(path).get_fdata()
    low, high = stored.min(), stored.max()
    assert np.allclose(back, (stored - low) / (high - low), atol=1e-6)


def test_two_series_of_a_folder_have_two_names(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", voxels(0), number=2)
    write_series(tmp_path / "p1", voxels(1), number=7)
    paths, problems = convert_series([tmp_path / "p1"], tmp_path / "to")
    assert sorted(path.name for path in paths) == ["p1-2.nii.gz", "p1-7.nii.gz"] and not problems


def test_what_is_no_whole_series_is_one_line_and_the_others_are_done(tmp_path: Path) -> None:
    write_series(tmp_path / "a", voxels(0))
    write_series(tmp_path / "b", voxels(1), skip=2)
    (tmp_path / "a/broken.dcm").write_bytes(b"none")
    (tmp_path / "empty").mkdir()
    folders = [tmp_path / name for name in ("a", "b", "empty", "nowhere")]
    paths, problems = convert_series(folders, tmp_path / "to")
    assert [path.name for path in paths] == ["a.nii.gz"]
    texts = sorted(str(problem).replace(f"{tmp_path}/", "") for problem in problems)
    assert texts == [
        "a/broken.dcm: is no DICOM file",
        "b has slices that are missing, doubled, or not evenly spaced",
        "empty: holds no DICOM series of slices with a position",
        "nowhere: is not there",
    ]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["a.nii.gz"]


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(PredictionError, match=r"diffusion-adbench\[dicom\]"):
        convert_series([tmp_path], tmp_path)
