"""What BraTS says of files that are not as they should be."""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import manifest
from adbench.datasets.brats import BraTS
from small_brats import brats, everything, file, load, refused, rewrite, same, stored

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path, five_cases) -> Path:
    return shutil.copytree(five_cases, tmp_path / "data")


# The catalogue of errors: two cases of five are broken, both are told, nothing is kept


def _cut(path: Path, volumes) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _flip(path: Path, volumes) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)


def _checksum(path: Path, volumes) -> None:
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)


def _html(path: Path, volumes) -> None:
    path.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")


def _pointer(path: Path, volumes) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def _plain(path: Path, volumes) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def _with(value: float, dtype: type = np.float32) -> Callable[[Path, object], None]:
    def spoil(path: Path, volumes: object) -> None:
        def put(image: np.ndarray) -> np.ndarray:
            image = image.astype(dtype)
            image[12, 12, 8] = value
            return image

        rewrite(path, put)

    return spoil


def _empty(path: Path, volumes) -> None:
    rewrite(path, np.zeros_like)


def _missing(path: Path, volumes) -> None:
    path.unlink()


def _misnamed(path: Path, volumes) -> None:
    path.rename(path.with_name("W39_1998.09.19_Segm.nii.gz"))


def _double(path: Path, volumes) -> None:
    path.with_name(path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))


def _short(path: Path, volumes) -> None:
    rewrite(path, lambda image: image[:, :, :-1])


def _moved(path: Path, volumes) -> None:
    rewrite(path, lambda image: image, np.diag([-1, -1, 1.01, 1]))


def _thin(path: Path, volumes) -> None:
    for other in path.parent.iterdir():
        rewrite(other, lambda image: image[:, :, :12])


CATALOGUE = {
    "1 truncated": (_cut, "t1", "truncated (expected 18 432 bytes of voxels, found "),
    "2 flipped byte": (_flip, "t1ce", "is corrupt"),
    "3 checksum": (_checksum, "seg", "is corrupt"),
    "4 html": (_html, "flair", "looks like an HTML page"),
    "4 pointer": (_pointer, "flair", "looks like a git-lfs pointer"),
    "4 plain": (_plain, "flair", "looks like an uncompressed NIfTI"),
    "6 nan": (_with(np.nan), "t2", "holds 1 NaN voxel"),
    "7 inf": (_with(np.inf), "t2", "holds 1 infinite voxel"),
    "10 broken label": (_with(0.9), "seg", "1 voxel that are no whole numbers"),
    "11 strange label": (_with(9, np.uint8), "seg", "holds the labels 9 (1 voxel)"),
    "12 empty": (_empty, "seg", "marks no tumour"),
    "13 missing": (_missing, "t1ce", "missing t1ce"),
    "13 misnamed": (_misnamed, "seg", "missing seg; not recognised or double W39_1998.09.19_Segm"),
    "13 double": (_double, "t2", "not recognised or double BraTS20_Training_0"),
    "14 shape": (_short, "seg", "differ in shape: (24, 24, 15) and (24, 24, 16)"),
    "15 affine": (_moved, "seg", "differ in affine, by up to 0.01"),
    "too few slices": (_thin, "t1", "has 12 axial slices; axial asks for number 12"),
}


@pytest.mark.parametrize("row", CATALOGUE)
def test_all_bad_cases_are_reported_and_nothing_is_cached(root, cache, volumes, row):
    spoil, name, says = CATALOGUE[row]
    for number in (2, 5):
        spoil(file(root, number, name), volumes)
    error = refused(brats(root))
    assert error.summary.startswith("2 of 5 cases are unusable. Nothing was cached.")
    assert "adbench info brats" in error.summary
    assert len(error.problems) == 2
    for number, problem in zip((2, 5), error.problems, strict=True):
        assert problem.startswith(f"BraTS20_Training_{number:03d}") and says in problem
        assert str(root) not in problem
        assert row.startswith("13") or f"BraTS20_Training_{number:03d}_{name}.nii.gz" in problem
    assert list(cache.glob("*.h5")) == []


def test_different_problems_are_reported_together(root, cache, volumes):
    _cut(file(root, 1, "t1"), volumes)
    _empty(file(root, 1, "seg"), volumes)
    _missing(file(root, 3, "flair"), volumes)
    _flip(file(root, 3, "seg"), volumes)
    shutil.copy(file(root, 2, "t2"), file(root, 4, "t2"))
    error = refused(brats(root))
    assert error.summary.startswith("3 of 5 cases")
    assert [problem[:20] for problem in error.problems] == [
        f"BraTS20_Training_{number:03d}" for number in (4, 1, 1, 3, 3)
    ]
    assert "is a copy of BraTS20_Training_002: BraTS20_Training_002_t2" in error.problems[0]
    assert list(cache.glob("*.h5")) == []


def test_row_5_byte_order_does_not_matter(root, tmp_path):
    shutil.copytree(root, tmp_path / "big")
    for path in (tmp_path / "big").rglob("*.nii.gz"):
        image = load(path)
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(stored(path).dtype.newbyteorder(">"))
        nib.save(nib.Nifti1Image(stored(path), image.affine, header), path)
    assert same(brats(root), brats(tmp_path / "big"))


def test_nan_can_be_taken_for_background(root):
    _with(np.nan)(file(root, 2, "t2"), None)
    with pytest.warns(UserWarning, match=r"002_t2.nii.gz: 1 NaN voxels were set to zero"):
        samples = everything(brats(root, nan="zero"))
    assert samples["BraTS20_Training_002/z008"].x[2, 12, 12] == 0


@pytest.mark.parametrize("value", [0, 700])
def test_row_8_a_constant_image_warns_becomes_zeros_and_is_not_trained_on(root, value):
    where = {s.group: s for s in brats(root).test()}
    (test,) = where
    train = sorted({entry.group for entry in manifest(brats(root).train())})
    for name in (test, train[0]):
        path = file(root, int(name[-3:]), "t1")
        rewrite(path, lambda image: np.full_like(image, value))
    with pytest.warns(UserWarning, match="_t1.nii.gz is constant"):
        data = brats(root)
        data.prepare()
    assert {entry.group for entry in manifest(data.train(labelled=True))} == {train[1]}
    assert len(data.test()) == 10
    for sample in data.test():
        assert sample.x[0].max() == 0 and sample.x[1].max() > 0.9
        assert sample.roi is not None and not sample.roi.all()


def test_a_slope_does_not_change_the_labels(root, tmp_path):
    shutil.copytree(root, tmp_path / "sloped")
    for path in (tmp_path / "sloped").glob("*/*_seg.nii.gz"):
        raw = bytearray(gzip.decompress(path.read_bytes()))
        raw[112:116] = np.float32(0.5).tobytes()  # scl_slope
        path.write_bytes(gzip.compress(raw))
        assert stored(path).max() == 2
    assert same(brats(root), brats(tmp_path / "sloped"))


def test_row_10_labels_that_are_almost_whole_are_rounded(root, tmp_path):
    shutil.copytree(root, tmp_path / "almost")
    for path in (tmp_path / "almost").glob("*/*_seg.nii.gz"):
        rewrite(path, lambda seg: (seg * 0.9999).astype(np.float32))
    assert same(brats(root), brats(tmp_path / "almost"))


def test_row_11_label_3_of_later_releases_is_a_tumour_too(root, tmp_path):
    shutil.copytree(root, tmp_path / "later")
    for path in (tmp_path / "later").glob("*/*_seg.nii.gz"):
        rewrite(path, lambda seg: np.where(seg == 4, 3, seg).astype(np.uint8))
    assert same(brats(root), brats(tmp_path / "later"))


def test_row_12_an_empty_mask_can_be_allowed(root, volumes):
    _empty(file(root, 2, "seg"), volumes)
    samples = everything(brats(root, allow_empty_mask=True))
    assert not any(s.label for s in samples.values() if s.group.endswith("002"))


@pytest.mark.parametrize("lost", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, -1, 3, 1])])
def test_row_15_a_wrong_affine_can_be_ignored(root, tmp_path, lost):
    shutil.copytree(root, tmp_path / "lost")
    rewrite(file(tmp_path / "lost", 2, "seg"), lambda seg: seg, lost)
    rewrite(file(tmp_path / "lost", 4, "flair"), lambda image: image, lost)
    assert len(refused(brats(tmp_path / "lost")).problems) == 2
    assert same(brats(root), brats(tmp_path / "lost", ignore_affine=True))


def test_row_25_a_copied_image_is_found(root):
    shutil.copy(file(root, 2, "flair"), file(root, 5, "flair"))
    shutil.copy(file(root, 3, "t1"), file(root, 3, "t2"))
    problems = refused(brats(root)).problems
    assert "005_flair.nii.gz is a copy of BraTS20_Training_002: " in problems[0]
    assert "003_t2.nii.gz is a copy of BraTS20_Training_003: " in problems[1]


def test_verify_lists_all_that_is_bad_and_caches_nothing(root, cache):
    assert not brats(root).verify().problems
    _flip(file(root, 1, "t1"), None)
    _cut(file(root, 4, "t2"), None)
    results = brats(root).verify()
    assert results.bad_cases == 2 and [problem[17:20] for problem in results.problems] == [
        "001",
        "004",
    ]
    assert not list(cache.glob("*.h5"))


def test_background_is_what_is_zero_not_what_is_low(root):
    for path in root.glob("*/*_t1.nii.gz"):
        rewrite(path, lambda image: np.where(image > 0, image - 800, 0).astype(np.int16))
    x = everything(brats(root, modalities=["t1"]))["BraTS20_Training_001/z008"].x[0]
    array = stored(file(root, 1, "t1"))[:, :, 8].T
    assert (array < 0).mean() > 0.2
    assert np.corrcoef(x.numpy()[array != 0], array[array != 0])[0, 1] > 0.999


def test_a_case_with_another_plane_needs_a_size(root):
    error = refused(BraTS(root=str(root), axial=(3, 12)))
    assert len(error.problems) == 5
    assert "slices of 24 x 24, not 240 x 240 (give a size)" in error.problems[0]


def test_good_data_make_no_warning(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brats(root).prepare()
