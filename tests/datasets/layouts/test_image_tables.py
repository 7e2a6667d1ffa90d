"""boxes.csv and metadata.csv beside a user's images, read, scaled, refused and evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adbench.benchmark.evaluation.load_predictions import assemble_predictions
from adbench.datasets.base import DataError, Sample, content_hash
from adbench.datasets.folder import Folder
from adbench.datasets.layouts.image_tables import read_image_tables
from trees_images import put, samples, square, texture

pytestmark = pytest.mark.usefixtures("cache")

BOXES = "file,x,y,width,height,label\n0.png,3,6,6,3,nodule\n0.png,12,0,12,24,mass\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of 24 x 24 pixels; two of the test are abnormal."""
    home = tmp_path / "xray"
    for i in range(8):
        put(home / f"train/{i + 10}.png", texture(i))
    for i in range(2):
        put(home / f"test/good/{i + 20}.png", texture(20 + i))
        put(home / f"test/ill/{i}.png", texture(30 + i))
    (home / "boxes.csv").write_text(BOXES + "test/ill/1.png,0,0,1,1,\n")
    return home


def prepared(root: Path, size: int | None = None, tile: int | None = None) -> Folder:
    data = Folder(root=str(root), size=size, tile=tile)
    data.prepare()
    return data


def refused(root: Path, tile: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        prepared(root, tile=tile)
    return str(caught.value)


def test_boxes_are_read_and_scaled(root: Path) -> None:
    for size, expected in (
        (None, ((6, 3, 9, 9), (0, 12, 24, 24))),
        (48, ((12, 6, 18, 18), (0, 24, 48, 48))),
        (16, ((4, 2, 6, 6), (0, 8, 16, 16))),
    ):
        data = prepared(root, size=size)
        by_key = {sample.key: sample for sample in samples(data, "test")}
        assert by_key["test/ill/0.png"].boxes == expected
        assert by_key["test/good/20.png"].boxes == () and not data.spec.masks
        assert len(by_key["test/ill/1.png"].boxes or ()) == 1
        assert all(sample.boxes is None for sample in samples(data, "train"))
        assert all(sample.mask is None for sample in by_key.values())


def test_boxes_are_part_of_the_identity(root: Path) -> None:
    before = prepared(root)._prepared_path
    (root / "boxes.csv").write_text(BOXES + "1.png,0,0,2,1,\n")
    assert prepared(root)._prepared_path != before
    sample = Sample(torch.zeros(1, 4, 4), "a", "a", True)
    hashes = {content_hash(replace(sample, boxes=boxes)) for boxes in (None, (), ((0, 0, 1, 1),))}
    assert len(hashes) == 3


def test_metadata_become_tags(root: Path) -> None:
    (root / "metadata.csv").write_text("file,age,sex\n0.png,61,F\n20.png,,M\n")
    by_key = {sample.key: dict(sample.tags) for sample in samples(prepared(root), "test")}
    assert by_key["test/ill/0.png"] == {"age": "61", "sex": "F", "kind": "ill"}
    assert by_key["test/good/20.png"] == {"sex": "M"} and by_key["test/good/21.png"] == {}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("9.png,1,1,2,2,\n", "boxes.csv line 4: '9.png' is the name of no image"),
        ("0.png,1,1,0,2,\n", "boxes.csv line 4: 1, 1, 0, 2 is no box with an area"),
        ("0.png,1,one,2,2,\n", "1, one, 2, 2 is no box"),
        ("0.png,20,1,8,2,\n", "rows 1 to 3 and columns 20 to 28 lies beyond 24 x 24"),
        ("20.png,1,1,2,2,\n", "test/good/20.png has a box in boxes.csv, and is called normal"),
        ("", "test/ill/1.png has no box in boxes.csv, and others have one"),
    ],
)
def test_what_is_wrong_is_named(root: Path, rows: str, words: str) -> None:
    last = "" if not rows else "1.png,0,0,1,1,\n"
    (root / "boxes.csv").write_text(BOXES + rows + last)
    assert words in refused(root)


def test_boxes_do_not_go_with_masks_or_tiles(root: Path) -> None:
    assert "boxes.csv does not go with tile=" in refused(root, tile=12)
    put(root / "masks/ill/0.png", square())
    assert "boxes.csv does not go with masks" in refused(root)


def test_a_table_of_other_columns_is_refused(root: Path) -> None:
    (root / "boxes.csv").write_text("name,x\n0.png,1\n")
    assert "boxes.csv lacks the column file, y, width, height" in refused(root)
    (root / "boxes.csv").write_text(BOXES + "1.png,0,0,1,1,\n")
    (root / "metadata.csv").write_text("file,kind\n0.png,a\n1.png,b\n")
    assert refused(root).count("the column 'kind' has another meaning") == 1
    (root / "metadata.csv").write_text("file,age\n0.png,1\ntest/ill/0.png,2\n")
    assert "metadata.csv line 3 names test/ill/0.png again, after line 2" in refused(root)


def test_names_that_two_images_share_need_a_folder(tmp_path: Path) -> None:
    images = [tmp_path / "a/0.png", tmp_path / "b/0.png"]
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\n0.png,0,0,1,1\na/0.png,0,0,1,1\n")
    tables = read_image_tables(tmp_path, images)
    assert tables.problems == ["boxes.csv line 2: '0.png' is the name of 2 images"]
    assert list(tables.boxes) == images[:1]


def test_boxes_reach_the_evaluation_but_not_of_tiles(root: Path) -> None:
    test = samples(prepared(root), "test")
    score = np.zeros((1, len(test)))
    boxes = assemble_predictions(test, score, None).boxes
    assert boxes is not None and [len(b) for b in boxes] == [len(s.boxes or ()) for s in test]
    plain = [replace(sample, boxes=None) for sample in test]
    assert assemble_predictions(plain, score, None).boxes is None
