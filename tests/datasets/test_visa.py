"""VisA as it is published, and as others prepare it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adbench.datasets.base import DataError, Spec
from adbench.datasets.visa import VisA
from trees_images import counts, everything, put, samples, shared, square, texture, visa

pytestmark = pytest.mark.usefixtures("cache")
TABLE = "split_csv/1cls.csv"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return visa(tmp_path / "data")


def build_dataset(root: Path, **how) -> VisA:
    data = VisA(**{"root": str(root), "size": None, **how})
    data.prepare()
    return data


def test_the_split_is_that_of_the_table(root) -> None:
    data = build_dataset(root)
    assert counts(data) == {"train": 7, "held_out": 1, "val": 0, "test": 5}
    assert data.spec == Spec(3, (24, 24), labels=False, masks=True)
    assert shared(data) == set()
    trained = {s.key for part in ("train", "held_out") for s in samples(data, part)}
    assert trained == {f"candle/Data/Images/Normal/{i:04d}" for i in range(8)}


def test_masks_of_class_numbers_are_true_where_they_are_not_0(root) -> None:
    for sample in samples(build_dataset(root), "test"):
        assert sample.mask is not None and bool(sample.mask.any()) == sample.label
        if sample.label:
            assert int(sample.mask.sum()) == 64 + 9  # two kinds of defect


def test_categories_alone_and_together(root) -> None:
    visa(root, "pcb1", first=300)
    assert counts(build_dataset(root))["test"] == 10
    assert {s.tags["category"] for s in everything(build_dataset(root))} == {"candle", "pcb1"}
    assert {s.tags["category"] for s in everything(build_dataset(root, category="pcb1"))} == {
        "pcb1"
    }
    with pytest.raises(DataError, match="no category 'pcb9'"):
        build_dataset(root, category="pcb9")


def test_the_location_does_not_matter(root, tmp_path) -> None:
    first = build_dataset(root)._prepared_path
    shutil.copytree(root, tmp_path / "other")
    assert build_dataset(tmp_path / "other")._prepared_path == first
    # another argument
    assert build_dataset(tmp_path / "other/..", category="candle")._prepared_path != first
    shutil.rmtree(root)
    assert build_dataset(tmp_path)._prepared_path == first  # one above


def test_other_suffixes_and_turned_photographs_are_read(root) -> None:
    folder = root / "candle/Data/Images"
    (folder / "Normal/0000.JPG").rename(folder / "Normal/0000.jpg")
    image = Image.open(folder / "Anomaly/0000.JPG")
    image.save(folder / "Anomaly/0000.png")
    (folder / "Anomaly/0000.JPG").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = texture(9, (24, 24), colour=True)
    Image.fromarray(stored).save(folder / "Normal/0009.JPG", exif=exif, quality=95)
    data = build_dataset(root)
    assert counts(data)["test"] == 5
    results = {s.key: s for s in samples(data, "test")}["candle/Data/Images/Normal/0009"]
    upright = np.asarray(Image.open(folder / "Normal/0009.JPG")).swapaxes(0, 1)[:, ::-1]
    assert np.abs(results.x.permute(1, 2, 0).numpy() - upright / 255).max() < 1e-5


def test_the_prepared_form_is_read_too(tmp_path) -> None:
    for i in range(10):
        put(tmp_path / f"candle/train/good/{i:04d}.png", texture(i, colour=True))
    for i in range(2):
        put(tmp_path / f"candle/test/good/{i:04d}.png", texture(20 + i, colour=True))
        put(tmp_path / f"candle/test/bad/{i:04d}.png", texture(30 + i, colour=True))
        put(tmp_path / f"candle/ground_truth/bad/{i:04d}.png", square(value=3))
    assert counts(build_dataset(tmp_path)) == {"train": 9, "held_out": 1, "val": 0, "test": 4}


def without_table(root):
    (root / TABLE).unlink()


def table_is_a_page(root):
    (root / TABLE).write_text("<!DOCTYPE html>\n<html><body>no, not, today</body></html>")


def without_column(root):
    (root / TABLE).write_text((root / TABLE).read_text().replace("mask", "truth", 1))


def missing_image(root):
    (root / "candle/Data/Images/Normal/0003.JPG").unlink()


def missing_mask(root):
    (root / "candle/Data/Masks/Anomaly/0001.png").unlink()


def blank_mask(root):
    text = (root / TABLE).read_text().replace("candle/Data/Masks/Anomaly/0001.png", "")
    (root / TABLE).write_text(text)


def orphan(root):
    put(root / "candle/Data/Masks/Anomaly/0009.png", square())


def twice(root):
    with (root / TABLE).open("a") as file:
        file.write("candle,train,normal,candle/Data/Images/Normal/0001.JPG,\r\n")


def strange(root):
    with (root / TABLE).open("a") as file:
        file.write("candle,dev,normal,candle/Data/Images/Normal/0001.JPG,\r\n")


def double(root):
    shutil.copy(
        root / "candle/Data/Images/Normal/0001.JPG", root / "candle/Data/Images/Normal/0001.png"
    )


CATALOGUE = {
    without_table: "1cls.csv is missing; it says which images are trained on",
    table_is_a_page: "split_csv/1cls.csv is no table of comma-separated values",
    without_column: "split_csv/1cls.csv lacks the column mask (it has object, split, label, image",
    missing_image: "line 5: there is no file for the image 'candle/Data/Images/Normal/0003.JPG'",
    missing_mask: "line 13: there is no file for the mask 'candle/Data/Masks/Anomaly/0001.png'",
    blank_mask: "line 13: there is no file for the mask '(blank)'",
    orphan: "candle/Data/Masks/Anomaly/0009.png is the mask of no image in split_csv/1cls.csv",
    twice: "line 15 names candle/Data/Images/Normal/0001.JPG again, after line 3",
    strange: "line 15 says split 'dev', label 'normal'; it takes train or test, normal or anomaly",
    double: "line 3: there is 2 files for the image 'candle/Data/Images/Normal/0001.JPG'",
}


@pytest.mark.parametrize("spoil", CATALOGUE, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_reported(root, cache, spoil) -> None:
    spoil(root)
    with pytest.raises(DataError) as caught:
        build_dataset(root)
    assert CATALOGUE[spoil] in str(caught.value)
    assert not list(cache.glob("*.h5"))


def test_images_that_the_table_does_not_name_are_reported(root) -> None:
    put(root / "candle/Data/Images/Normal/0099.JPG", texture(1, colour=True))
    with pytest.warns(UserWarning, match=r"1 images are not in split_csv/1cls\.csv"):
        assert counts(build_dataset(root))["train"] == 7
