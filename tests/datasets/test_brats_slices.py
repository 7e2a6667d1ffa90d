"""BraTS in slices: Wolleb's folders and BerDiff's stacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from adbench.datasets.base import manifest
from adbench.datasets.brats_slices import BraTSSlices

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore:no patient is named"),
]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, trees) -> Path:
    return trees.slices(tmp_path_factory.mktemp("slices") / "data/brats")


@pytest.fixture
def root(tmp_path, pristine) -> Path:
    return shutil.copytree(pristine, tmp_path / "slices/data/brats")


@pytest.fixture
def stacks(tmp_path, trees) -> Path:
    return trees.stacks(tmp_path / "stacks")


def slices(root: Path, **more) -> BraTSSlices:
    return BraTSSlices(**{"root": str(root), "size": 32, "pad": 32, **more})


def test_patients_are_assigned_whole_and_labels_are_any_tumour(root, trees):
    data = slices(root)
    trees.sound(data)
    assert data.spec.labels and trees.apart(data)
    results = trees.groups(data)
    assert results["test"] == {"brats_train_005", "brats_train_006"}
    assert [len(results[part]) for part in ("train", "held_out", "val")] == [2, 1, 1]
    assert (len(data.train()), len(data.train(labelled=True)), len(data.val())) == (2, 6, 3)
    assert [s.label for s in data.test()] == [False, True, True] * 2
    assert {s.tags["subject_status"] for s in data.test()} == {"diseased"}


def test_a_slice_is_padded_in_the_order_of_channels_and_its_label_alike(root):
    sample = next(s for s in slices(root).test() if s.key == "testing/000014")
    folder = root / "testing/000014"
    for index, name in enumerate(("t1", "t1ce", "t2", "flair")):
        plane = nib.Nifti1Image.from_filename(folder / f"brats_train_005_{name}_081_w.nii.gz")
        want = np.pad(np.asarray(plane.dataobj), 4)
        assert np.allclose(sample.x[index], want, atol=1e-6)
    label = nib.Nifti1Image.from_filename(root / "test_labels/000014-label.nii.gz")
    assert sample.mask is not None
    assert np.array_equal(sample.mask, np.pad(np.asarray(label.dataobj) > 0, 4))
    assert sample.spacing == (1, 1)


def test_a_smaller_size_averages_the_padded_slice(root, trees):
    whole, half = trees.everything(slices(root)), trees.everything(slices(root, size=16))
    assert whole.keys() == half.keys()
    for key, sample in half.items():
        mean = torch.nn.functional.avg_pool2d(whole[key].x, 2)
        assert torch.allclose(sample.x, mean, atol=1e-6) and sample.spacing == (2, 2)


def test_roots_above_relative_ones_and_moved_trees_are_the_same_data(
    root, tmp_path, monkeypatch, cache
):
    first = manifest(slices(root).test())
    monkeypatch.chdir(tmp_path)
    for place in ("slices", "slices/data", "slices/data/brats", "slices/data/brats/training"):
        assert manifest(slices(Path(place)).test()) == first
    shutil.move(root, tmp_path / "moved")
    assert manifest(slices(tmp_path / "moved").test()) == first
    assert len(list(cache.glob("*.h5"))) == 1


def test_one_patient_cannot_be_shared_out_but_its_slices_can(tmp_path, trees):
    trees.slices(tmp_path, train=1, test=1, each=8, healthy=4)
    error = trees.refused(slices(tmp_path))
    assert "slices of 1 patient (brats_train_001)" in error.problems[0]
    assert "group='slice'" in error.problems[0]
    with pytest.warns(UserWarning, match="share patients"):
        data = slices(tmp_path, group="slice", fractions=(0.5, 0.1, 0.4))
        data.prepare()
    parts = (data.train(), data.calibration(), data.val())
    normal = [s.key for part in parts for s in part if not s.label]
    assert normal == [f"training/{n:06d}" for n in range(1, 5)]  # in blocks of neighbours
    assert [len(part) for part in parts[:2]] == [1, 1]
    assert sum(s.label for s in data.val()) + len(data.train(labelled=True)) - 1 == 4
    assert any(s.label for s in data.val())


def test_patients_of_testing_are_left_out_of_training_or_stay_with_a_warning(root, trees):
    for path in (root / "testing/000013").iterdir():
        path.rename(path.with_name(path.name.replace("train_005", "train_001")))
    with pytest.warns(UserWarning, match=r"1 subject removed from train, .* test: brats_train_001"):
        data = slices(root)
        data.prepare()
    assert trees.apart(data) and "brats_train_001" not in trees.groups(data)["train"]
    with pytest.warns(UserWarning, match="LEAKY as published: 1 subject"):
        remaining = slices(root, split="published")
        remaining.prepare()
    assert sum(len(part) for part in trees.groups(remaining).values()) > 6


def _unlink(folder: Path) -> None:
    next(folder.glob("*_t1ce_*")).unlink()


def _extra(folder: Path) -> None:
    path = next(folder.glob("*_t1_*"))
    shutil.copy(path, folder / "odd_name.nii.gz")


def _other(folder: Path) -> None:
    path = next(folder.glob("*_t2_*"))
    path.rename(path.with_name(path.name.replace("_001_", "_009_")))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_unlink, "missing t1ce"),
        (_extra, "not recognised or double odd_name.nii.gz"),
        (_other, "several slices"),
        (_empty, "missing t1, t1ce, t2, flair, seg"),
    ],
)
def test_folders_that_are_incomplete_are_reported(root, trees, spoil, says):
    for number in (1, 2):
        spoil(root / f"training/00000{number}")
    error = trees.refused(slices(root))
    assert [p[:15] for p in error.problems] == ["training/000001", "training/000002"]
    assert all(says in problem for problem in error.problems)


@pytest.mark.parametrize(
    "row", ["1 truncated", "2 flipped byte", "3 checksum", "4 html", "4 plain", "6 nan", "7 inf"]
)
def test_all_bad_slices_are_reported_and_nothing_is_cached(root, trees, cache, row):
    spoil, says = trees.SPOILS[row]
    for number in (2, 5):
        spoil(next((root / f"training/{number:06d}").glob("*_flair_*")))
    results = slices(root).verify()
    assert results.bad_cases == 2 and all(says in problem for problem in results.problems)
    assert trees.refused(slices(root)).summary.startswith("2 of 18 cases are unusable.")
    assert not list(cache.glob("*.h5"))


def test_values_shapes_labels_and_pairs_are_checked(root, trees):
    def file(number: int, name: str) -> Path:
        return next((root / f"training/{number:06d}").glob(f"*_{name}_*"))

    trees.rewrite(file(1, "t1"), lambda plane: plane * 255)
    trees.rewrite(file(2, "t2"), lambda plane: plane[:-2])
    trees.rewrite(file(3, "seg"), lambda seg: seg + 9)
    trees.rewrite(file(5, "seg"), lambda seg: seg * 0.45)
    (root / "test_labels/000013-label.nii.gz").unlink()
    shutil.copy(root / "test_labels/000014-label.nii.gz", root / "test_labels/000099-label.nii.gz")
    results = "\n".join(slices(root).verify().problems)
    assert "training/000001 holds values from 0 to 25" in results
    assert "differ in shape: (22, 24, 1) and (24, 24, 1)" in results
    assert "holds the labels 9" in results and "no whole numbers" in results
    assert "test_labels/000013-label.nii.gz" in results
    assert "000099-label.nii.gz has no slice in testing/" in results


def test_a_constant_channel_warns_becomes_zeros_and_is_not_trained_on(root, trees):
    for number in (1, 4, 7, 10):
        path = next((root / f"training/{number:06d}").glob("*_t1_*"))
        trees.rewrite(path, lambda plane: np.full_like(plane, 0.5))
    results = slices(root).verify()
    assert sum("holds one value only" in note for note in results.notes) >= 4
    assert results.samples.get("train", 0) == 0


def test_junk_is_skipped(root):
    first = manifest(slices(root).test())
    (root / "training/.ipynb_checkpoints").mkdir()
    (root / "training/000001/._brats_train_001_t1_080_w.nii.gz").write_bytes(b"\0")
    (root / "test_labels/.DS_Store").write_bytes(b"\0")
    assert manifest(slices(root).test()) == first


# BerDiff's stacks


def test_stacks_are_split_in_blocks_and_small_lesions_left_out(stacks, trees):
    with pytest.warns(UserWarning, match="no patient is named"):
        data = slices(stacks)
        data.prepare()
    trees.sound(data)
    assert not data.spec.labels
    keys = [s.key for part in (data.train(), data.calibration()) for s in part]
    assert keys == [f"train/{number:06d}" for number in range(10)] and len(data.calibration()) == 1
    counts = [int(s.mask.sum()) for s in data.test() if s.mask is not None]
    assert counts == [0, 30, 40, 50] and len(data.val()) == 0
    every = slices(stacks, min_lesion=1)
    assert [int(s.mask.sum()) for s in every.test() if s.mask is not None] == [*range(0, 60, 10)]


def test_a_part_of_validation_can_become_val(stacks):
    data = slices(stacks, cut_val=0.5, min_lesion=1)
    assert [s.key for s in data.test()] == [f"test/{n:06d}" for n in (10, 11, 12)]
    assert [s.key for s in data.val()] == [f"test/{n:06d}" for n in (13, 14, 15)]


def test_the_label_is_no_part_of_the_image_and_folders_have_two_names(stacks, trees):
    first = manifest(slices(stacks).test())
    stored = nib.Nifti1Image.from_filename(stacks / "validation/000015.nii.gz")
    sample = next(s for s in slices(stacks).test() if s.key == "test/000015")
    assert np.allclose(sample.x, np.pad(np.asarray(stored.dataobj)[:4], ((0, 0), (4, 4), (4, 4))))
    (stacks / "training").rename(stacks / "train_healthy")
    (stacks / "validation").rename(stacks / "val_diseased")
    assert manifest(slices(stacks).test()) == first


def test_stacks_that_are_wrong_are_reported(stacks, trees):
    trees.rewrite(stacks / "training/000001.nii.gz", lambda x: x[:3])
    trees.rewrite(stacks / "validation/000011.nii.gz", lambda x: x[:4])
    trees.rewrite(stacks / "validation/000012.nii.gz", lambda x: np.concatenate([x[:4], x[4:] * 7]))
    shutil.copy(stacks / "validation/000015.nii.gz", stacks / "training/000005.nii.gz")
    results = "\n".join(slices(stacks).verify().problems)
    assert "train/000001" in results and "(3, 24, 24)" in results
    assert "test/000011" in results and "it needs 5" in results
    assert "holds 7 in its label channel" in results
    assert "000015.nii.gz is a copy of train/000005" in results
    assert "train/000005 marks a tumour, and lies among the healthy" in results


@pytest.mark.parametrize(
    "wrong", [{"group": "case"}, {"split": "mine"}, {"size": 64}, {"cut_val": 1}, {"min_lesion": 0}]
)
def test_arguments_that_make_no_sense_are_refused(root, wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        slices(root, **wrong)


def test_without_data_it_says_what_is_expected(tmp_path, trees):
    error = trees.refused(slices(tmp_path))
    assert "found no data" in error.summary and "training/000001" in str(error)
