"""Users' own volumes."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from adbench.datasets.base import manifest
from adbench.datasets.volumes import Volumes

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, trees) -> Path:
    return trees.own(tmp_path_factory.mktemp("own"))


@pytest.fixture
def root(tmp_path, pristine) -> Path:
    return shutil.copytree(pristine, tmp_path / "own")


def own(root: Path, **more) -> Volumes:
    return Volumes(**{"root": str(root), "size": 24, **more})


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def test_folders_say_the_split_and_the_kind(root, trees):
    data = own(root)
    trees.sound(data)
    assert trees.apart(data) and data.spec.masks and not data.spec.labels
    results = trees.groups(data)
    assert [len(results[part]) for part in ("train", "held_out", "val", "test")] == [3, 1, 0, 4]
    for sample in data.test():
        sick = sample.group.startswith("test/lesion")
        assert sample.tags["subject_status"] == ("diseased" if sick else "healthy")
        assert sample.tags.get("kind") == ("lesion" if sick else None)
        assert sample.label == (sick and 7 <= int(sample.key[-3:]) < 10)


def test_without_splits_they_are_assigned(tmp_path, trees):
    trees.own(tmp_path, pools=False)
    data = own(tmp_path)
    trees.sound(data)
    results = trees.groups(data)
    assert trees.apart(data) and [len(part) for part in results.values()] == [3, 1, 2, 2]
    assert any(s.label for s in data.val()) and any(s.label for s in data.test())


def test_a_plane_is_what_a_second_implementation_makes_of_it(root):
    sample = next(s for s in own(root).test() if s.key == "test/lesion/test0/z008")
    array = stored(root / "test/lesion/test0.nii.gz")
    low, high = np.percentile(array[array != 0], [1, 99])
    plane = np.where(array != 0, np.clip((array - low) / (high - low), 0, 1), 0)[:, :, 8].T
    assert np.allclose(sample.x[0], np.pad(plane, ((0, 0), (2, 2))), atol=1e-6)
    assert sample.mask is not None
    assert np.array_equal(sample.mask, np.pad(_lesion(root)[:, :, 8].T, ((0, 0), (2, 2))))
    whole = next(s for s in own(root, scale="minmax").test() if s.key == sample.key)
    assert np.allclose(whole.x[0, :, 2:-2], array[:, :, 8].T / array.max(), atol=1e-6)


def _lesion(root: Path) -> np.ndarray:
    return stored(root / "test/lesion/test0_mask.nii.gz") > 0


def test_volumes_are_averaged_whole(root, trees):
    data = own(root, slices=False, size=(9, 12, 10))
    trees.sound(data)
    assert data.spec.shape == (9, 12, 10) and len(data.train()) == 3 and len(data.test()) == 4
    assert [s.label for s in data.test()] == [True, True, False, False]
    sample, other = data.test()[0], own(root, slices=False, size=(18, 24, 20)).test()[0]
    assert torch.allclose(sample.x, torch.nn.functional.avg_pool3d(other.x, 2), atol=1e-6)
    assert other.mask is not None and np.array_equal(other.mask, _lesion(root).T)
    assert sample.spacing == (2, 2, 2) and other.spacing == (1, 1, 1)
    tiny = own(root, slices=False, size=1).test()[0]
    assert tiny.label and tiny.mask is not None and bool(tiny.mask.all())


def test_modalities_become_channels_in_the_order_asked_for(tmp_path, trees):
    trees.own(tmp_path, modalities=("t1", "t2"))
    one, other = own(tmp_path, modalities=["t1", "t2"]), own(tmp_path, modalities=["t2", "t1"])
    assert one.test()[0].x.shape[0] == 2
    assert torch.equal(one.test()[0].x, other.test()[0].x.flip(0))
    assert one.test()[0].key == "test/lesion/test0/z002"
    (tmp_path / "train/normal/train0_t2.nii.gz").unlink()
    shutil.copy(tmp_path / "train/normal/train1_t2.nii.gz", tmp_path / "train/normal/odd.nii.gz")
    results = "\n".join(own(tmp_path, modalities=["t1", "t2"]).verify().problems)
    assert "train/normal/train0: missing t2; found train0_t1.nii.gz" in results
    assert "train/normal/odd.nii.gz ends in none of t1, t2" in results


@pytest.mark.parametrize("place", ["test/lesion/masks", "test/masks/lesion", "test/masks"])
def test_masks_may_lie_in_a_folder_of_their_own(root, tmp_path, place, cache):
    first = manifest(own(root).test())
    (root / place).mkdir(parents=True)
    for path in (root / "test/lesion").glob("*_mask.nii.gz"):
        path.rename(root / place / path.name.replace("_mask", ""))
    assert manifest(own(root).test()) == first
    assert len(list(cache.glob("*.h5"))) == 1


def test_roots_moved_trees_and_junk(root, tmp_path, monkeypatch, cache):
    first = manifest(own(root).test())
    monkeypatch.chdir(tmp_path)
    assert manifest(own(Path("own")).test()) == first
    shutil.move(root, tmp_path / "moved")
    (tmp_path / "moved/train/normal/._train0.nii.gz").write_bytes(b"\0")
    (tmp_path / "moved/train/.ipynb_checkpoints").mkdir()
    assert manifest(own(tmp_path / "moved").test()) == first
    assert len(list(cache.glob("*.h5"))) == 1


def test_without_masks_every_plane_of_an_abnormal_volume_counts(root):
    for path in root.rglob("*_mask.nii.gz"):
        path.unlink()
    with pytest.warns(UserWarning, match="no abnormal volume has a mask"):
        data = own(root)
        data.prepare()
    assert not data.spec.masks
    assert all(s.label == ("lesion" in s.key) for s in data.test())
    assert all(s.mask is None for s in data.test() if s.label)


def test_a_training_pool_may_hold_labelled_abnormal_volumes(root, trees):
    shutil.move(root / "test/lesion", root / "train/lesion")
    for number in range(2, 4):
        trees.save(trees.brain(90 + number), root / f"test/lesion/late{number}.nii.gz")
        trees.save(trees.lesion(), root / f"test/lesion/late{number}_seg.nii.gz")
    data = own(root)
    more = data.train(labelled=True)
    assert not any(s.label for s in data.train()) and any(more[n].label for n in range(len(more)))
    assert data.spec.labels and {s.label for s in data.val()} == {True, False}
    assert trees.apart(data)


def test_patients_may_be_found_in_names(root, trees):
    with pytest.warns(UserWarning, match=r"names in two splits: 1 \(same\)"):
        trees.save(trees.brain(70), root / "train/normal/same.nii.gz")
        trees.save(trees.brain(71), root / "test/normal/same.nii.gz")
        own(root).prepare()
    results = own(root, group="^[a-z]+[0-9]?").verify().problems
    assert any(p.startswith("same is in ") for p in results)
    assert any("no patient is found" in p for p in own(root, group="^[0-9]+").verify().problems)


@pytest.mark.parametrize(
    "row", ["1 truncated", "2 flipped byte", "3 checksum", "4 html", "4 plain", "6 nan", "7 inf"]
)
def test_all_bad_volumes_are_reported_and_nothing_is_cached(root, trees, cache, row):
    spoil, says = trees.SPOILS[row]
    spoil(root / "train/normal/train1.nii.gz")
    spoil(root / "test/lesion/test1.nii.gz")
    results = own(root).verify()
    assert results.bad_cases == 2 and all(says in problem for problem in results.problems)
    assert trees.refused(own(root)).summary.startswith("2 of 8 cases are unusable.")
    assert not list(cache.glob("*.h5"))


def test_nan_can_be_taken_for_background(root, trees):
    trees.SPOILS["6 nan"][0](root / "train/normal/train1.nii.gz")
    with pytest.warns(UserWarning, match="1 NaN voxels were set to zero"):
        own(root, nan="zero").prepare()


MASK = "test/lesion/test0_mask.nii.gz"


@pytest.mark.parametrize(
    ("row", "change", "says"),
    [
        ("10", lambda mask: mask * np.float32(0.0035), "no whole numbers"),
        ("11", lambda mask: mask.astype(np.int16) * -1, "holds the labels -255"),
        ("12", np.zeros_like, "is empty, and its image is called abnormal"),
        ("14", lambda mask: mask[:, :-1], "differ in shape: (20, 23, 18) and (20, 24, 18)"),
    ],
)
def test_masks_that_are_wrong_are_reported(root, trees, row, change, says):
    trees.rewrite(root / MASK, change)
    (problem,) = trees.refused(own(root)).problems
    assert "test/lesion/test0" in problem and says in problem
    if row == "12":
        own(root, allow_empty_mask=True).prepare()


def test_row_15_affines_that_differ(root, trees):
    trees.rewrite(root / MASK, lambda mask: mask, np.diag([-1, -1, 1.1, 1]))
    assert "differ in affine, by up to 0.1" in str(trees.refused(own(root)))
    own(root, ignore_affine=True).prepare()


def test_rows_25_and_26_copies_and_orphans(root, trees):
    shutil.copy(root / "train/normal/train0.nii.gz", root / "test/normal/test0.nii.gz")
    trees.save(trees.lesion(), root / "test/normal/test1_mask.nii.gz")
    trees.save(trees.lesion(), root / "test/lesion/none_mask.nii.gz")
    (root / "test/lesion/test1_mask.nii.gz").unlink()
    trees.save(trees.brain(3), root / "test/stray.nii.gz")
    trees.save(trees.brain(4), root / "test/lesion/test1.nii")
    results = "\n".join(own(root).verify().problems)
    assert "train/normal/train0: train0.nii.gz is a copy of test/normal/test0: test0" in results
    assert "test/normal/test1 (test1_mask.nii.gz) marks something" in results
    assert "test/lesion/none_mask.nii.gz is a mask without an image" in results
    assert "test/lesion/test1 is abnormal and has no mask, but others have" in results
    assert "test/stray.nii.gz lies in no folder that tells its kind" in results
    assert (
        "test1.nii.gz and test1.nii are the same image twice" in results.replace("test/lesion/", "")
        or "are the same image twice" in results
    )


def test_row_8_a_constant_volume_is_not_trained_on(root, trees):
    name = min(trees.groups(own(root))["train"])
    trees.rewrite(root / f"{name}.nii.gz", lambda image: np.full_like(image, 3))
    with pytest.warns(UserWarning, match="is constant"):
        assert name not in trees.groups(own(root))["train"]


def test_negative_values_are_no_background(root, trees):
    path = root / "test/lesion/test0.nii.gz"
    trees.rewrite(path, lambda image: np.where(image > 0, image - 800, 0))
    sample = next(s for s in own(root).test() if s.key == "test/lesion/test0/z008")
    array = stored(path)[:, :, 8].T
    assert (array < 0).mean() > 0.2
    inside = array != 0
    assert np.corrcoef(sample.x[0, :, 2:-2].numpy()[inside], array[inside])[0, 1] > 0.99


@pytest.mark.parametrize(
    "wrong",
    [{"size": (8, 9)}, {"axial": (3, 2)}, {"scale": "z"}, {"every": 0}, {"modalities": []}],
)
def test_arguments_that_make_no_sense_are_refused(root, wrong):
    with pytest.raises(ValueError):
        own(root, **wrong)
