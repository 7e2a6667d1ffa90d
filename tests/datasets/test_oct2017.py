"""OCT2017 in its three layouts, and the patients its published sets share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from adbench.datasets.base import DataError, Spec
from adbench.datasets.oct2017 import OCT2017
from trees_images import CLASSES, counts, eye, labels, oct2017, oct_bmad, oct_flat, samples, shared

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return oct2017(tmp_path / "data")


def build_dataset(root: Path, **how) -> OCT2017:
    data = OCT2017(**{"root": str(root), "size": (16, 24), **how})
    data.prepare()
    return data


def test_the_published_sets_stay_and_patients_stay_together(root) -> None:
    data = build_dataset(root)
    results = counts(data)
    assert (
        results["train"] + results["held_out"] == 12
        and results["val"] == 4
        and results["test"] == 8
    )
    assert results["held_out"] == 2  # one patient's two images
    assert len(data.train(labelled=True)) == results["train"] + 36
    assert data.spec == Spec(1, (16, 24), labels=True, masks=False)
    assert shared(data) == set()
    assert sum(labels(samples(data, "val"))) == 3 and sum(labels(samples(data, "test"))) == 6
    assert not any(labels(samples(data, "train")) + labels(samples(data, "held_out")))
    assert all(sample.mask is None for sample in samples(data, "test"))
    assert {s.tags.get("disease", "NORMAL") for s in samples(data, "test")} == {*CLASSES}


def test_only_the_diseases_asked_for_count(root) -> None:
    data = build_dataset(root, classes=("CNV",))
    assert counts(data)["val"] == 2 and counts(data)["test"] == 4
    assert {s.tags["disease"] for s in samples(data, "test") if s.label} == {"CNV"}
    with pytest.raises(ValueError, match="classes are some of CNV, DME, DRUSEN"):
        OCT2017(classes=("NORMAL",))  # pyright: ignore[reportArgumentType]


def test_images_are_not_stretched_to_their_own_range(root) -> None:
    x = torch.stack([sample.x for sample in samples(build_dataset(root), "test")])
    assert float(x.min()) > 0.05 and float(x.max()) < 0.95  # as they were saved
    assert build_dataset(root, size=None).spec.shape == (16, 24)
    assert build_dataset(root, size=8).spec.shape == (8, 8)


def planted(root: Path) -> None:
    """Two patients of the training set stand in the test set, one in the validation set."""
    train = root / "train/NORMAL"
    names = sorted(path.name for path in train.iterdir())
    for number, name in enumerate((names[0], names[2])):
        eye(root / "test/NORMAL" / name.replace("-1.jpeg", "-7.jpeg"), 7000 + number)
    eye(root / "val/CNV" / f"CNV-{names[4].split('-')[1]}-1.jpeg", 7002)


def test_patients_of_the_test_set_are_not_trained_on(root) -> None:
    planted(root)
    with pytest.warns(UserWarning) as output:
        data = build_dataset(root)
    text = "\n".join(str(w.message) for w in output)
    assert "2 subjects removed from train, because also in test" in text
    assert "1 subject removed from train, because also in val" in text
    assert shared(data) == set()
    results = counts(data)
    assert (
        results["train"] + results["held_out"] == 6
        and results["test"] == 10
        and results["val"] == 5
    )


def test_the_published_split_is_to_be_had_with_a_warning(root) -> None:
    planted(root)
    with pytest.warns(UserWarning, match="LEAKY as published: 2 subjects of train"):
        data = build_dataset(root, split="published")
    results = counts(data)
    assert results["train"] + results["held_out"] == 12
    assert len(shared(data)) == 3
    with pytest.raises(ValueError, match="split is 'corrected' or 'published'"):
        build_dataset(root, split="mine")


def test_copies_of_test_images_are_not_trained_on(root) -> None:
    first = sorted((root / "test/NORMAL").iterdir())[0]
    shutil.copy(first, root / "train/NORMAL/NORMAL-999999-1.jpeg")
    with pytest.warns(
        UserWarning, match=r"1 images \(train/NORMAL/NORMAL-999999-1\.jpeg\) are cop"
    ):
        data = build_dataset(root)
    assert not any("999999" in s.key for p in ("train", "held_out") for s in samples(data, p))
    with pytest.warns(UserWarning, match="is a copy of"):
        assert len(build_dataset(root, split="published").train()) > len(data.train())


def test_the_flat_form_has_its_class_from_the_name(tmp_path) -> None:
    oct_flat(tmp_path)
    data = build_dataset(tmp_path)
    assert counts(data) == {"train": 3, "held_out": 1, "val": 0, "test": 4}
    assert sum(labels(samples(data, "test"))) == 2 and not data.spec.labels


def test_folders_of_classes_alone_are_assigned_by_patient(tmp_path) -> None:
    for i in range(10):
        for n in range(2):
            eye(tmp_path / f"OCT/NORMAL/NORMAL-{100 + i}-{n}.jpeg", 10 * i + n)
            eye(tmp_path / f"OCT/DRUSEN/DRUSEN-{300 + i}-{n}.jpeg", 500 + 10 * i + n)
    data = build_dataset(tmp_path)
    for part in ("val", "test"):
        assert {*labels(samples(data, part))} == {True, False}
    assert shared(data) == set() and counts(data)["train"] == 12 and data.spec.labels


def test_the_relaid_form_is_read_and_nameless_patients_are_noted(tmp_path) -> None:
    oct_bmad(tmp_path / "OCT2017")
    with pytest.warns(UserWarning, match="4 images, such as test/Ungood/0.png, have no patient"):
        data = build_dataset(tmp_path)
    assert counts(data) == {"train": 4, "held_out": 1, "val": 10, "test": 4}
    assert sum(labels(samples(data, "val"))) == 5 and sum(labels(samples(data, "test"))) == 2


@pytest.mark.parametrize("where", [".", ".."])
def test_the_location_does_not_matter(root, tmp_path, monkeypatch, where) -> None:
    first = build_dataset(root)._prepared_path
    assert build_dataset(root / where)._prepared_path == first
    monkeypatch.chdir(root)
    assert build_dataset(Path(where))._prepared_path == first
    shutil.copytree(root, tmp_path / "elsewhere/OCT2017")
    assert build_dataset(tmp_path / "elsewhere")._prepared_path == first


def wrong_folder(root):
    eye(root / "train/NORMAL/CNV-5-1.jpeg", 1)


def nobody_knows(root):
    eye(root / "train/later/image.jpeg", 1)


def page(root):
    (root / "test/CNV/CNV-77-1.jpeg").write_text("<html>")


def cut_off(root):
    path = sorted((root / "test/CNV").iterdir())[0]
    path.write_bytes(path.read_bytes()[:300])


CATALOGUE = {
    wrong_folder: "train/NORMAL/CNV-5-1.jpeg is called CNV and lies in NORMAL: which is it?",
    nobody_knows: "train/later/image.jpeg: neither its name nor its folder tells the class",
    page: "test/CNV/CNV-77-1.jpeg is no image: it looks like an HTML page",
    cut_off: "is truncated or corrupt",
}


@pytest.mark.parametrize("spoil", CATALOGUE, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_reported(root, spoil) -> None:
    spoil(root)
    with pytest.raises(DataError) as caught:
        build_dataset(root)
    assert CATALOGUE[spoil] in str(caught.value)


def test_one_patient_is_too_few(tmp_path) -> None:
    eye(tmp_path / "train/NORMAL/NORMAL-1-1.jpeg", 1)
    eye(tmp_path / "test/NORMAL/NORMAL-2-1.jpeg", 2)
    eye(tmp_path / "test/CNV/CNV-3-1.jpeg", 3)
    with pytest.raises(DataError, match="no sample is left for held_out: there are too few normal"):
        build_dataset(tmp_path)
