"""CheXpert in Wolleb et al.'s arrays and as published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from adbench.datasets.base import DataError, Spec
from adbench.datasets.chexpert import CheXpert, read_npy
from trees_images import chexpert_npy, chexpert_raw, counts, labels, put, samples, shared, texture

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return chexpert_npy(tmp_path / "arrays")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return chexpert_raw(tmp_path / "raw")


def build_dataset(root: Path, **how) -> CheXpert:
    data = CheXpert(**{"root": str(root), "size": 24, **how})
    data.prepare()
    return data


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        build_dataset(root)
    return str(caught.value)


def test_the_label_is_the_name_of_the_folder(root, tmp_path, monkeypatch) -> None:
    """From wherever: the authors' third folder of an absolute path is the same for all."""
    monkeypatch.chdir(tmp_path / "arrays")
    for place in (root, tmp_path / "arrays", Path("data/chexpert"), Path(".")):
        for sample in samples(build_dataset(place), "test"):
            assert sample.label == ("diseased" in sample.key)


def test_the_published_sets_stay_and_val_is_assigned_from_training(root) -> None:
    data = build_dataset(root)
    assert counts(data) == {"train": 4, "held_out": 1, "val": 2, "test": 4}
    assert data.spec == Spec(1, (24, 24), labels=True, masks=False)
    assert {*labels(samples(data, "val"))} == {True, False}
    assert len(data.train(labelled=True)) == 4 + 3 and shared(data) == set()
    sample = samples(data, "test")[0]
    stored = np.load(root / sample.key, allow_pickle=False)
    assert np.allclose(sample.x[0].numpy() * 255, stored[..., 0], atol=1e-4)


def test_studies_of_a_patient_stay_together(root) -> None:
    for i, path in enumerate(sorted((root / "training/healthy").iterdir())):
        np.save(path.with_name(path.name.replace("study", "study9")), texture(8000 + i))
    data = build_dataset(root)
    assert shared(data) == set() and counts(data)["train"] == 8


def test_patients_of_the_test_set_are_left_out_of_training(root) -> None:
    tested = sorted((root / "testing/healthy").iterdir())[0]
    np.save(root / "training/healthy" / tested.name.replace("study1", "study4"), texture(1))
    with pytest.warns(UserWarning, match="1 subject removed from train, because also in test"):
        assert counts(build_dataset(root)) == {"train": 4, "held_out": 1, "val": 2, "test": 4}
    with pytest.warns(UserWarning, match="LEAKY as published"):
        assert len(shared(build_dataset(root, split="published"))) == 1


def test_the_published_form_takes_frontal_images_of_the_two_findings(raw) -> None:
    with pytest.warns(UserWarning, match="22 images left out: lateral"):
        data = build_dataset(raw)
    results = counts(data)
    assert results["test"] == 4 and sum(labels(samples(data, "test"))) == 2
    trained = len(data.train(labelled=True))
    assert trained + results["held_out"] + results["val"] == 14
    assert shared(data) == set()
    keys = {s.key for part in ("train", "val", "test") for s in samples(data, part)}
    assert all("frontal" in key and "patient00001/" not in key for key in keys)


def test_a_published_test_set_makes_valid_the_validation_set(raw) -> None:
    (raw / "test").mkdir()
    text = (raw / "valid.csv").read_text().replace("small/valid", "small/test")
    (raw / "test.csv").write_text(text.replace("patient0", "patient9"))
    for number, path in enumerate(sorted((raw / "valid").rglob("*frontal.jpg"))):
        there = path.relative_to(raw / "valid").as_posix().replace("patient0", "patient9")
        put(raw / "test" / there, texture(9000 + number, (20, 24)))
    with pytest.warns(UserWarning):
        data = build_dataset(raw)
    assert counts(data)["val"] == 4 and counts(data)["test"] == 4
    assert counts(data)["train"] + counts(data)["held_out"] == 8


def test_the_location_does_not_matter(raw, root, tmp_path) -> None:
    for tree in (raw, root):
        shutil.copytree(tree, tmp_path / "other" / tree.name)
        assert (
            build_dataset(tmp_path / "other" / tree.name)._prepared_path
            == build_dataset(tree)._prepared_path
        )
        shutil.rmtree(tmp_path / "other")


ARRAYS = {
    "uint16": (np.full((3, 4), 65535, np.uint16), 1.0),
    "a last axis of 1": (np.full((3, 4, 1), 51, np.uint8), 0.2),
    "floats": (np.full((3, 4), 0.25, np.float64), 0.25),
    "big-endian": (np.full((3, 4), 0.5, ">f4"), 0.5),
}


def saved(tmp_path: Path, array: np.ndarray, **how) -> bytes:
    np.save(tmp_path / "x.npy", array, **how)
    return (tmp_path / "x.npy").read_bytes()


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_scaled_by_their_type(tmp_path, kind) -> None:
    array, value = ARRAYS[kind]
    assert torch.allclose(read_npy(saved(tmp_path, array), "x"), torch.full((1, 3, 4), value))


REFUSED = {
    "objects": (np.array([[{"a": 1}]], object), "a pickle.*never loads"),
    "channels": (np.zeros((3, 4, 3), np.uint8), r"has the shape \(3, 4, 3\)"),
    "whole numbers": (np.zeros((3, 4), np.int64), "holds int64"),
    "nan": (np.full((3, 4), np.nan, np.float32), "outside 0..1, or NaN"),
    "floats to 255": (np.full((3, 4), 255.0, np.float32), "outside 0..1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_arrays_without_a_known_range_are_refused(tmp_path, kind) -> None:
    array, why = REFUSED[kind]
    raw = saved(tmp_path, array, allow_pickle=kind == "objects")
    with pytest.raises(DataError, match=why):
        read_npy(raw, "x.npy")


def test_what_is_wrong_is_reported(root) -> None:
    healthy = root / "training/healthy"
    whole = sorted(healthy.iterdir())[0]
    whole.write_bytes(whole.read_bytes()[:200])
    (healthy / "patient00009_study1.npy").write_text("version https://git-lfs.github.com/spec/v1")
    np.save(healthy / "unnamed.npy", texture(1))
    np.save(root / "training/patient00008_study1.npy", texture(2))
    np.save(root / "testing/healthy/patient00007_study1.npy", np.array([{}], object))
    text = refused(root)
    for line in (
        f"training/healthy/{whole.name} is truncated or corrupt",
        "patient00009_study1.npy is no .npy file: it looks like a git-lfs pointer",
        "training/healthy/unnamed.npy has no patient in its name (patient00128_study3.npy)",
        "training/patient00008_study1.npy lies in no {training,testing}/{healthy,diseased} folder",
        "testing/healthy/patient00007_study1.npy holds Python objects (a pickle)",
    ):
        assert line in text


def test_what_is_wrong_with_the_tables_is_reported(raw) -> None:
    gone = sorted((raw / "train").rglob("*frontal.jpg"))[0]
    gone.unlink()
    (raw / "valid.csv").unlink()
    text = refused(raw)
    name = gone.relative_to(raw).as_posix()
    assert f"train.csv line 2: {name} is not there" in text
    assert "valid.csv is missing beside train.csv" in text
    (raw / "train.csv").write_text("Path,Sex\n1,2\n")
    assert "train.csv lacks the column Frontal/Lateral, No Finding, Pleural Effusion" in refused(
        raw
    )


@pytest.mark.parametrize("what", ["same", "contradicting", "lateral", "in valid.csv"])
def test_a_repeated_row_is_named_with_its_line(raw, what) -> None:
    lines = (raw / "train.csv").read_text().splitlines()
    columns = lines[0].split(",")
    frontal = [n for n, line in enumerate(lines, 1) if "frontal" in line and ",1.0," in line]
    first = frontal[0]
    fields = lines[first - 1].split(",")
    name = "/".join(fields[0].split("/")[-4:])
    if what == "contradicting":
        finding, healthy = columns.index("Pleural Effusion"), columns.index("No Finding")
        fields[finding], fields[healthy] = fields[healthy], fields[finding]
    if what == "lateral":
        fields[columns.index("Frontal/Lateral")] = "Lateral"
    table = "valid.csv" if what == "in valid.csv" else "train.csv"
    text = (raw / table).read_text().rstrip("\n")
    (raw / table).write_text(f"{text}\n\n{','.join(fields)}\n")
    line = len(text.splitlines()) + 2  # a blank line counts
    after = f"train.csv line {first}" if table == "valid.csv" else f"line {first}"
    expected = f"{table} line {line} names {name} again, after {after}"
    assert expected in CheXpert(root=str(raw)).verify().problems
    assert expected in refused(raw)


def test_arrays_of_floats_take_a_range(root) -> None:
    for path in root.rglob("*.npy"):
        np.save(path, np.load(path).astype(np.float32) * 16)
    assert "float32 outside 0..1, or NaN (range=LOW,HIGH or range=train" in refused(root)
    sample = samples(build_dataset(root, range="0,4080"), "test")[0]
    stored = np.load(root / sample.key, allow_pickle=False)
    assert np.allclose(sample.x[0].numpy() * 4080, stored[..., 0], atol=1e-3)
    train = samples(build_dataset(root, range="train"), "train")
    assert min(float(s.x.min()) for s in train) == 0 and max(float(s.x.max()) for s in train) == 1
