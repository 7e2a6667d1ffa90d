"""The Decathlon: volumes of one task are normal, those of others are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adbench.datasets.base import manifest
from adbench.datasets.decathlon import Decathlon

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, trees) -> Path:
    return trees.tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def root(tmp_path, pristine) -> Path:
    return shutil.copytree(pristine, tmp_path / "msd")


def tasks(root: Path, **more) -> Decathlon:
    return Decathlon(**{"root": str(root), "size": (9, 12, 10), "crop": None, **more})


def test_one_task_is_normal_and_the_test_images_of_others_are_not(root, trees):
    data = tasks(root)
    trees.sound(data)
    assert data.spec.shape == (9, 12, 10) and not data.spec.masks and trees.apart(data)
    counts = [len(part) for part in (data.train(), data.calibration(), data.val(), data.test())]
    assert counts == [3, 1, 2, 2]
    for part in (data.val(), data.test()):
        assert {(s.tags["task"], s.label) for s in part} == {
            ("Task01_BrainTumour", False),
            ("Task09_Spleen", True),
        }
    abnormal = {s.key for part in (data.val(), data.test()) for s in part if s.label}
    assert abnormal == {f"Task09_Spleen/imagesTs/SPLEEN_00{n}" for n in (6, 7)}
    shutil.rmtree(root / "Task09_Spleen/imagesTs")
    again = tasks(root)
    assert sum(s.label for s in again.val()) + sum(s.label for s in again.test()) == 6


@pytest.mark.parametrize("channel", [0, 2])
def test_a_volume_is_averaged_and_scaled_by_its_extremes(root, trees, channel):
    key = "Task01_BrainTumour/imagesTr/BRAINTUMOUR_003"
    path = root / f"{key}.nii.gz"
    stored = np.asarray(nib.Nifti1Image.from_filename(path).dataobj)[..., channel]
    mean = stored.reshape(10, 2, 12, 2, 9, 2).mean((1, 3, 5)).T  # LPS: already back and left
    want = (mean - mean.min()) / (mean.max() - mean.min())
    for name in root.glob("Task09_Spleen/*/*.nii.gz"):
        if not name.name.startswith("._"):
            trees.rewrite(name, lambda image: np.stack([image, image, image], -1))
    sample = trees.everything(tasks(root, channel=channel))[key]
    assert np.allclose(sample.x[0], want, atol=1e-5) and sample.spacing == (2, 2, 2)


def test_the_middle_is_cut_out_first(root, trees):
    key = "Task01_BrainTumour/imagesTr/BRAINTUMOUR_001"
    stored = np.asarray(nib.Nifti1Image.from_filename(root / f"{key}.nii.gz").dataobj)
    middle = stored[6:14, 8:16, 5:13, 0].T
    sample = trees.everything(tasks(root, size=8, crop=(8, 8, 8)))[key]
    want = (middle - middle.min()) / (middle.max() - middle.min())
    assert np.allclose(sample.x[0], want, atol=1e-6) and sample.spacing == (1, 1, 1)


def test_orientation_does_not_matter(root, trees, volumes):
    before = trees.everything(tasks(root))
    path = root / "Task09_Spleen/imagesTs/SPLEEN_006.nii.gz"
    turned, where = volumes.turned(
        np.asarray(nib.Nifti1Image.from_filename(path).dataobj), "RSA", trees.LPS
    )
    trees.save(turned, path, where)
    after = trees.everything(tasks(root))
    assert all(np.allclose(after[key].x, before[key].x) for key in before)


def test_roots_and_names_of_tasks(root, tmp_path, monkeypatch, cache):
    first = manifest(tasks(root).test())
    monkeypatch.chdir(tmp_path)
    assert manifest(tasks(Path("msd")).test()) == first
    assert manifest(tasks(root / "Task01_BrainTumour").test()) == first
    assert len(list(cache.glob("*.h5"))) == 1
    assert manifest(tasks(root, task="Task01", others=["Task09"]).test()) == first
    assert len(tasks(root, task="Task09").train()) == 3


def test_what_is_not_there_is_reported(root, trees):
    with_error = trees.refused(tasks(root, others=["Task07"]))
    assert "there is no task Task07 beside Task01_BrainTumour" in str(with_error)
    assert "'Task05' is 0 tasks" in str(trees.refused(tasks(root, task="Task05")))
    (root / "Task01_BrainTumour/imagesTr/BRAINTUMOUR_002.nii.gz").unlink()
    shutil.copy(
        root / "Task01_BrainTumour/imagesTr/BRAINTUMOUR_003.nii.gz",
        root / "Task01_BrainTumour/imagesTr/BRAINTUMOUR_099.nii.gz",
    )
    results = "\n".join(tasks(root).verify().problems)
    assert "BRAINTUMOUR_002.nii.gz is not there, but dataset.json names it" in results
    assert "BRAINTUMOUR_099.nii.gz is not named in dataset.json" in results
    (root / "Task01_BrainTumour/dataset.json").write_text("{")
    assert "dataset.json cannot be read" in "\n".join(tasks(root).verify().problems)
    shutil.rmtree(root / "Task09_Spleen")
    assert "no task lies beside Task01" in "\n".join(tasks(root).verify().problems)


def test_json_may_lack_what_is_not_needed_or_be_missing(root):
    first = manifest(tasks(root).test())
    path = root / "Task09_Spleen/dataset.json"
    output = json.loads(path.read_text())
    del output["numTraining"], output["training"]
    path.write_text(json.dumps(output))
    assert manifest(tasks(root).test()) == first
    path.unlink()
    assert manifest(tasks(root).test()) == first


@pytest.mark.parametrize(
    "row", ["1 truncated", "2 flipped byte", "3 checksum", "4 html", "4 plain", "6 nan", "7 inf"]
)
def test_all_bad_volumes_are_reported_and_nothing_is_cached(root, trees, cache, row):
    spoil, says = trees.SPOILS[row]
    path = root / "Task01_BrainTumour/imagesTr/BRAINTUMOUR_004.nii.gz"
    trees.rewrite(path, lambda x: x[..., 0])
    spoil(path)
    spoil(root / "Task09_Spleen/imagesTs/SPLEEN_007.nii.gz")
    results = tasks(root).verify()
    assert results.bad_cases == 2 and all(says in problem for problem in results.problems)
    assert trees.refused(tasks(root)).summary.startswith("2 of 8 cases are unusable.")
    assert not list(cache.glob("*.h5"))


def test_channels_constants_and_copies(root, trees):
    problems = trees.refused(tasks(root, channel=4)).problems
    assert len(problems) == 6 and "has 4 channels; channel=4 counts from 0" in problems[0]
    name = min(trees.groups(tasks(root))["train"])
    trees.rewrite(root / f"{name}.nii.gz", lambda x: np.full_like(x, 3))
    with pytest.warns(UserWarning, match="is constant"):
        assert name not in trees.groups(tasks(root))["train"]
    shutil.copy(
        root / "Task01_BrainTumour/imagesTr/BRAINTUMOUR_001.nii.gz",
        root / "Task09_Spleen/imagesTs/SPLEEN_006.nii.gz",
    )
    results = tasks(root).verify()
    assert any("is a copy of" in line for line in (*results.problems, *results.notes))


@pytest.mark.parametrize("wrong", [{"size": (8, 8)}, {"crop": (8, 8)}, {"channel": -1}])
def test_arguments_that_make_no_sense_are_refused(root, wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        tasks(root, **wrong)
