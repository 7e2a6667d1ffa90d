"""IXI, fastMRI and ATLAS slices, with the authors' lists and without."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from adbench.datasets.base import DataError, Spec
from adbench.datasets.ixi_atlas import IXIAtlas
from trees_images import (
    atlas,
    counts,
    fastmri,
    head,
    ixi,
    ixi_atlas,
    labels,
    listed,
    put,
    samples,
    shared,
    square,
)

pytestmark = pytest.mark.usefixtures("cache")
LISTS = "data/CAPS_IXI/splits"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return ixi_atlas(tmp_path / "authors")


def build_dataset(root: Path, **how) -> IXIAtlas:
    data = IXIAtlas(**{"root": str(root), "size": 24, **how})
    data.prepare()
    return data


def test_listed_subjects_stay_where_they_are_listed(root) -> None:
    data = build_dataset(root)
    assert counts(data) == {"train": 7, "held_out": 1, "val": 2 + 2, "test": 2 + 4}
    assert data.spec == Spec(1, (24, 24), labels=False, masks=True) and shared(data) == set()
    assert sum(labels(samples(data, "val"))) == 2 and sum(labels(samples(data, "test"))) == 4
    sources = {s.tags["source"] for s in samples(data, "train") + samples(data, "held_out")}
    assert sources == {"IXI", "fastMRI"}
    assert {s.group for s in samples(data, "test") if not s.label} == {
        "IXI030",
        "file_brain_AXT1_202_2020030",
    }


def test_masks_are_found_by_name_not_by_row(root) -> None:
    """The list of masks is in another order than that of the slices."""
    put(root / atlas(3, mask=True), square(at=11))
    results = {s.group: s for part in ("val", "test") for s in samples(build_dataset(root), part)}
    mask = results["Atlas_train_3"].mask
    assert mask is not None and (mask.numpy() == (square(at=11) > 0)).all()


def test_the_brain_is_the_roi_and_255_is_1(root) -> None:
    put(root / ixi(2), (head(1) > 0).astype(np.uint8))  # dark: its maximum is 1
    for part in ("train", "held_out", "test"):
        for sample in samples(build_dataset(root), part):
            assert sample.roi is not None
            inside = sample.roi.numpy()
            stored = (head(0) > 0) | (sample.mask.numpy() if sample.mask is not None else False)
            assert (inside == stored).all()
            if sample.group == "IXI002":
                assert float(sample.x.max()) == pytest.approx(1 / 255)


def test_holes_in_a_brain_belong_to_it(root) -> None:
    hollow = head(1)
    hollow[10:13, 10:13] = 0
    put(root / ixi(2), hollow)
    results = [s for part in ("train", "held_out") for s in samples(build_dataset(root), part)]
    sample = next(s for s in results if s.group == "IXI002")
    assert sample.roi is not None and (sample.roi.numpy() == (hollow > 0) | (head(0) > 0)).all()


def test_slices_with_too_little_or_too_much_lesion_are_left_out(root) -> None:
    put(root / atlas(0, mask=True), square(value=0))
    one = square(value=0)
    one[12, 12] = 255
    put(root / atlas(1, mask=True), one)
    with pytest.warns(UserWarning, match="ATLAS slices left out .* 1 pixels or over 10000: 2"):
        data = build_dataset(root)
    assert sum(labels(samples(data, "val") + samples(data, "test"))) == 4
    with pytest.warns(UserWarning, match="or over 63: 4"):
        put(root / atlas(5, mask=True), square(at=20))  # 16 pixels
        data = build_dataset(root, lesion=(0, 63))
    assert sum(labels(samples(data, "val") + samples(data, "test"))) == 2
    with pytest.raises(ValueError, match="lesion is two numbers"):
        IXIAtlas(lesion=(5, 5))


def test_the_authors_blacklist_is_used_only_if_asked_for(root) -> None:
    put(root / atlas(112), head(3200))
    put(root / atlas(112, mask=True), square(at=9))
    names = [atlas(n) for n in (*range(6), 112)]
    listed(root / "data/ATLAS/splits/atlas_train_png.csv", names)
    assert (
        sum(labels(samples(build_dataset(root), "val") + samples(build_dataset(root), "test"))) == 7
    )
    fewer = build_dataset(root, blacklist=True)
    assert sum(labels(samples(fewer, "val") + samples(fewer, "test"))) == 6


def test_subjects_of_the_test_list_are_not_trained_on(root) -> None:
    names = [*map(ixi, range(2, 8)), ixi(30), ixi(20), ixi(2)]
    listed(root / LISTS / "ixi_normal_train.csv", names)
    with pytest.warns(UserWarning) as output:
        data = build_dataset(root)
    text = "\n".join(str(w.message) for w in output)
    assert "1 subject removed from train, because also in test: IXI030" in text
    assert "1 subject removed from train, because also in val: IXI020" in text
    assert "sub-IXI002" in text and "is listed twice in one list: it counts once" in text
    assert counts(data)["train"] + counts(data)["held_out"] == 6 and shared(data) == set()
    with pytest.warns(UserWarning, match="LEAKY as published"):
        leaky = build_dataset(root, split="published")
    assert counts(leaky)["train"] + counts(leaky)["held_out"] == 8
    assert shared(leaky) == {"IXI020", "IXI030"}


def test_atlas_slices_in_a_training_list_are_not_trained_on(root) -> None:
    """As THOR's list has them."""
    names = [*map(ixi, range(2, 8)), atlas(0), atlas(1)]
    (root / LISTS / "ixi_normal_train.csv").unlink()
    listed(root / LISTS / "ixi-t1_atlas_train_2D.csv", names)
    with pytest.warns(UserWarning, match="2 ATLAS slices are listed for training"):
        data = build_dataset(root, split="published")
    assert not any("Atlas" in s.key for p in ("train", "held_out") for s in samples(data, p))
    assert sum(labels(samples(data, "val") + samples(data, "test"))) == 6


def test_without_lists_everything_is_assigned_by_subject(tmp_path) -> None:
    data = build_dataset(ixi_atlas(tmp_path, lists=False))
    # 12 normal subjects by 0.6 : 0.1 : 0.1 : 0.2, and 6 slices by 0.1 : 0.2
    assert counts(data) == {"train": 8, "held_out": 1, "val": 1 + 2, "test": 2 + 4}
    assert sum(labels(samples(data, "val") + samples(data, "test"))) == 6
    assert {*labels(samples(data, "test"))} == {True, False} and shared(data) == set()


def test_with_a_training_list_alone_the_rest_is_assigned_from_it(root) -> None:
    for pool in ("val", "test"):
        (root / LISTS / f"ixi_normal_{pool}.csv").unlink()
    data = build_dataset(root)
    results = {part: len([s for s in samples(data, part) if not s.label]) for part in counts(data)}
    assert sum(results.values()) == 8 and min(results.values()) >= 1 and results["train"] >= 4


@pytest.mark.parametrize("where", ["", "data"])
def test_the_location_does_not_matter(root, tmp_path, monkeypatch, where) -> None:
    first = build_dataset(root)._prepared_path
    assert build_dataset(root / where)._prepared_path == first
    shutil.copytree(root, tmp_path / "elsewhere")
    assert build_dataset(tmp_path / "elsewhere" / where)._prepared_path == first
    monkeypatch.chdir(root / where)
    assert build_dataset(Path("."))._prepared_path == first


def test_what_is_wrong_is_reported(root) -> None:
    (root / atlas(2, mask=True)).unlink()
    put(root / atlas(77, mask=True), square())
    (root / ixi(3)).unlink()
    put(root / "data/CAPS_IXI/png/somebody.png", head(5))
    with (root / LISTS / "ixi_normal_test.csv").open("a") as file:
        file.write("./data/CAPS_IXI/png/somebody.png\n")
    listed(root / "data/fastMRI/fastmri_val.csv", [fastmri(99)])
    put(root / atlas(4, mask=True), square((20, 20)))
    with pytest.raises(DataError) as caught:
        build_dataset(root)
    place = "ATLAS/png_128_sl_95/Atlas_train_"
    for line in (
        f"{place}/Atlas_train_2.png has no mask beside it (Atlas_train_2_mask.png)",
        f"{place}/Atlas_train_77_mask.png is the mask of no image beside it",
        f"{LISTS}/ixi_normal_train.csv line 3: ./{ixi(3)} is not there",
        "ixi_normal_test.csv line 4: no subject in ./data/CAPS_IXI/png/somebody.png",
        f"data/fastMRI/fastmri_val.csv line 2: ./{fastmri(99)} is not there",
        "(Atlas_train_/Atlas_train_4_mask.png) has 20 x 20 pixels, its image 24 x 24",
    ):
        assert line in str(caught.value)
    listed(root / LISTS / "ixi_normal_val.csv", []).write_text("file\nx\n")
    with pytest.raises(DataError, match=r"ixi_normal_val\.csv lacks the column filename"):
        build_dataset(root)
