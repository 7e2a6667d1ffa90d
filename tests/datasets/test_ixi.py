"""IXI against BraTS21 and MSLUB, from pDDPM's tree and tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import manifest
from adbench.datasets.ixi import IXIMSLUB, IXIBraTS

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, trees) -> Path:
    return trees.ixi(tmp_path_factory.mktemp("ixi"))


@pytest.fixture
def root(tmp_path, pristine) -> Path:
    return shutil.copytree(pristine, tmp_path / "ixi")


def brats(root: Path, **more) -> IXIBraTS:
    return IXIBraTS(**{"root": str(root), "size": 24, "pad": 24, **more})


def rows(root: Path, split: str) -> list[str]:
    return (root / f"Data/splits/{split}.csv").read_text().splitlines()


@pytest.mark.parametrize(("kind", "sick"), [(IXIBraTS, "BraTS2021_0000"), (IXIMSLUB, "patient0")])
@pytest.mark.parametrize("modality", ["t1", "t2"])
def test_splits_are_the_published_ones_and_share_nobody(root, trees, kind, sick, modality):
    data = kind(root=str(root), size=24, pad=24, modality=modality)
    trees.sound(data)
    assert trees.apart(data) and not data.spec.labels
    results = trees.groups(data)
    assert results["train"] | results["held_out"] == {f"IXI{n:03d}" for n in range(5)}
    assert results["val"] == {"IXI005", "IXI006", f"{sick}0"}
    assert results["test"] == {"IXI007", "IXI008", f"{sick}1"}
    for sample in data.test():
        healthy = sample.group.startswith("IXI")
        assert sample.tags["subject_status"] == ("healthy" if healthy else "diseased")
        assert not (healthy and sample.label) and sample.roi is not None
    assert any(s.label for s in data.test()) and any(s.label for s in data.val())


def test_a_plane_is_what_a_second_implementation_makes_of_it(root):
    sample = next(s for s in brats(root).test() if s.key == "test/BraTS2021_00001/z008")
    base = root / "Data/Test/Brats21"

    def array(kind: str) -> np.ndarray:
        path = base / kind / f"BraTS2021_00001_{kind}.nii.gz"
        return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)

    image, mask = array("t2"), array("mask") > 0
    low, high = np.percentile(image[mask], [1, 99])
    plane = np.clip((image[:, :, 8] - low) / (high - low), 0, 1).T  # the file is LPS
    assert np.allclose(sample.x[0], np.pad(plane, ((0, 0), (2, 2))), atol=1e-6)
    assert sample.mask is not None and sample.roi is not None
    assert np.array_equal(sample.mask, np.pad(array("seg")[:, :, 8].T > 0, ((0, 0), (2, 2))))
    assert np.array_equal(sample.roi, np.pad(mask[:, :, 8].T, ((0, 0), (2, 2))))


@pytest.mark.parametrize("above", ["t1data", "mask/seg", "t2_t1"])
def test_names_above_the_data_do_not_matter(root, tmp_path, above, cache, monkeypatch):
    first = manifest(brats(root).test())
    moved = tmp_path / above
    shutil.copytree(root, moved)
    monkeypatch.chdir(tmp_path)
    for place in (moved, moved / "Data", Path(above), moved / "Data/splits"):
        assert manifest(brats(place).test()) == first
    for path in (moved / "Data").iterdir():  # the tree of the README has no Data/
        path.rename(moved / path.name)
    assert manifest(brats(moved).test()) == first
    assert len(list(cache.glob("*.h5"))) == 1


def test_published_folds_leak_and_are_mended_by_default(tmp_path, trees):
    trees.ixi(tmp_path, double=True)
    with pytest.warns(UserWarning) as output:
        data = brats(tmp_path)
        data.prepare()
    notes = [str(warning.message) for warning in output]
    assert any("1 subject removed from train" in n and "test: IXI008" in n for n in notes)
    assert any(n.endswith("count once: 1") for n in notes)
    assert trees.apart(data)
    with pytest.warns(UserWarning, match=r"LEAKY as published: 1 subject of train .*IXI008"):
        stored = brats(tmp_path, split="published")
        stored.prepare()
    results = trees.groups(stored)
    assert "IXI008" in results["test"] and "IXI008" in results["train"] | results["held_out"]
    assert not trees.groups(brats(tmp_path, fold=1))["train"] & {"IXI008"}


def test_subjects_without_t2_are_left_out_where_a_table_lists_them(root, trees):
    path = root / "Data/Train/ixi/t2/IXI001-Guys-0701_t2.nii.gz"
    path.unlink()
    (problem,) = trees.refused(brats(root)).problems
    assert "Train/ixi/t2/IXI001-Guys-0701_t2.nii.gz is not there, but splits/IXI_train" in problem
    names = [p.name for p in (root / "Data/Train/ixi/t2").iterdir()]
    (root / "Data/splits/avail_t2.csv").write_text(
        ",0\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names))
    )
    with pytest.warns(UserWarning, match=r"subjects without t2 .*: 1 \(IXI001-Guys-0701\)"):
        brats(root).prepare()
    assert len(trees.groups(brats(root))["train"]) == 3


def test_warped_masks_are_halved_and_strange_ones_refused(root, trees):
    whole = trees.everything(brats(root))
    path = root / "Data/Test/Brats21/seg/BraTS2021_00001_seg.nii.gz"

    def soften(seg: np.ndarray) -> np.ndarray:
        soft = seg.astype(np.float32)
        soft[6, 9:14, 7:10], soft[11, 9:14, 7:10] = 0.4, 0.6
        return soft

    trees.rewrite(path, soften)
    with pytest.warns(UserWarning, match=r"_seg.nii.gz\) holds 30 fractions"):
        softened = trees.everything(brats(root))
    for key, sample in softened.items():
        if sample.group == "BraTS2021_00001" and sample.label:
            before = whole[key].mask
            assert sample.mask is not None and before is not None
            assert sample.mask.sum() == before.sum() + 5
    trees.rewrite(path, lambda seg: seg * 60)
    assert "holds values from 0 to 60" in str(trees.refused(brats(root)))
    trees.rewrite(path, np.zeros_like)
    assert "marks no lesion" in str(trees.refused(brats(root)))


@pytest.mark.parametrize(
    "row", ["1 truncated", "2 flipped byte", "3 checksum", "4 html", "4 plain", "6 nan", "7 inf"]
)
def test_all_bad_volumes_are_reported_and_nothing_is_cached(root, trees, cache, row):
    spoil, says = trees.SPOILS[row]
    spoil(root / "Data/Train/ixi/t2/IXI002-Guys-0702_t2.nii.gz")
    spoil(root / "Data/Test/Brats21/t2/BraTS2021_00000_t2.nii.gz")
    results = brats(root).verify()
    assert results.bad_cases == 2 and all(says in problem for problem in results.problems)
    assert trees.refused(brats(root)).summary.startswith("2 of 11 cases are unusable.")
    assert not list(cache.glob("*.h5"))


def test_shapes_affines_copies_and_missing_files_are_reported(root, trees):
    base = root / "Data/Train/ixi"
    trees.rewrite(base / "mask/IXI000-Guys-0700_mask.nii.gz", lambda m: m[:-1])
    moved = np.diag([-1, -1, 1.1, 1])
    trees.rewrite(base / "mask/IXI001-Guys-0701_mask.nii.gz", lambda m: m, moved)
    shutil.copy(base / "t2/IXI002-Guys-0702_t2.nii.gz", base / "t2/IXI008-Guys-0708_t2.nii.gz")
    (root / "Data/Test/Brats21/seg/BraTS2021_00001_seg.nii.gz").unlink()
    (root / "Data/splits/Brats21_val.csv").write_text("a,b\n1,2\n")
    results = "\n".join(brats(root).verify().problems)
    assert "differ in shape: (19, 24, 18) and (20, 24, 18)" in results
    assert "differ in affine, by up to 0.1" in results
    assert "IXI008-Guys-0708_t2.nii.gz is a copy of train/IXI002-Guys-0702" in results
    assert "Brats21/seg/BraTS2021_00001_seg.nii.gz is not there" in results
    assert "splits/Brats21_val.csv lacks the column img_name" in results


def test_a_constant_image_warns_and_is_not_trained_on(root, trees):
    name = min(trees.groups(brats(root))["train"])
    path = next((root / "Data/Train/ixi/t2").glob(f"{name}-*"))
    trees.rewrite(path, lambda image: np.full_like(image, 7))
    with pytest.warns(UserWarning, match="is constant"):
        assert name not in trees.groups(brats(root))["train"]


def test_a_brain_that_does_not_fit_is_an_error(root, trees):
    error = trees.refused(brats(root, pad=16, size=16))
    assert len(error.problems) == 11 and "pad=16 cuts off a part of the brain" in error.problems[0]


@pytest.mark.parametrize(
    "wrong", [{"fold": 5}, {"modality": "flair"}, {"split": "x"}, {"size": 32}, {"axial": (3, 2)}]
)
def test_arguments_that_make_no_sense_are_refused(root, wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        brats(root, **wrong)


def test_without_data_it_says_what_is_expected(tmp_path, trees):
    error = trees.refused(brats(tmp_path))
    assert error.summary.startswith("dataset 'ixi-brats' found no data")
    assert "adbench info ixi-brats" in str(error)
