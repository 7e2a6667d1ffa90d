"""Benchmarks of photographs and medical images, as their authors lay them on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees_benchmarks as trees
from adbench.datasets.base import DataError, Spec
from adbench.datasets.bmad import BMAD
from adbench.datasets.btad import BTAD
from adbench.datasets.medianomaly import MedIAnomaly
from adbench.datasets.mvtec_3d import MVTec3D
from adbench.datasets.mvtec_ad2 import MVTecAD2
from adbench.datasets.mvtec_loco import MVTecLOCO
from adbench.datasets.preparation.image_dataset import ImageDataset
from adbench.datasets.real_iad import RealIAD
from trees_images import counts, put, samples, shared, square, texture

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.filterwarnings("ignore")]


def build(cls: type[ImageDataset], root: Path, **how) -> ImageDataset:
    data = cls(**{"root": str(root), "size": None, **how})
    data.prepare()
    return data


def problems(cls: type[ImageDataset], root: Path, **how) -> str:
    return "\n".join(cls(**{"root": str(root), "size": None, **how}).verify().problems)


def abnormal(data: ImageDataset, part: str = "test") -> int:
    return sum(sample.label for sample in samples(data, part))


def test_bmad_keeps_its_validation_set_and_its_masks(tmp_path) -> None:
    trees.bmad(tmp_path)
    data = build(BMAD, tmp_path, category="resc")
    assert counts(data) == {"train": 7, "held_out": 1, "val": 4, "test": 5}
    assert abnormal(data, "val") == 2 and abnormal(data) == 3
    assert data.spec == Spec(1, (24, 24), labels=False, masks=True) and shared(data) == set()
    for sample in samples(data, "test"):
        assert sample.mask is not None and bool(sample.mask.any()) == sample.label
    last = next(s for s in samples(data, "test") if s.key.endswith("Ungood_2.png"))
    assert last.mask is not None and (last.mask.numpy() == (square(at=5) > 0)).all()


def test_bmad_without_masks_is_labelled_by_whole_images(tmp_path) -> None:
    trees.bmad(tmp_path, "Chest-RSNA", masks=False)
    trees.bmad(tmp_path, "RESC", first=6000)
    data = build(BMAD, tmp_path, category="rsna")
    assert not data.spec.masks and abnormal(data) == 3 and counts(data)["val"] == 4
    assert all(sample.mask is None for sample in samples(data, "test"))
    with pytest.raises(DataError, match=r"several sets \(Chest-RSNA, RESC\): name one"):
        build(BMAD, tmp_path)


def test_bmad_says_which_mask_is_missing_or_marks_a_normal_image(tmp_path) -> None:
    home = trees.bmad(tmp_path)
    (home / "test/Ungood/label/Ungood_1.png").unlink()
    put(home / "valid/good/label/good_0.png", square())
    text = problems(BMAD, tmp_path)
    assert "test/Ungood/img/Ungood_1.png has no mask, and other abnormal images have one" in text
    assert "marks an anomaly, and its image is called normal" in text


def test_btad_pairs_masks_of_another_kind_of_file(tmp_path) -> None:
    trees.btad(tmp_path)
    data = build(BTAD, tmp_path, category="01")
    assert counts(data) == {"train": 7, "held_out": 1, "val": 0, "test": 4}
    assert data.spec.channels == 3 and abnormal(data) == 2


def test_loco_joins_the_masks_of_an_image_and_calibrates_on_validation(tmp_path) -> None:
    trees.loco(tmp_path)
    data = build(MVTecLOCO, tmp_path, category="pushpins")
    assert counts(data) == {"train": 6, "held_out": 3, "val": 0, "test": 6}
    first = next(
        s for s in samples(data, "test") if s.key.endswith("test/logical_anomalies/000.png")
    )
    expected = (square(at=2) > 0) | (square(at=12) > 0)
    assert first.mask is not None and (first.mask.numpy() == expected).all()
    assert first.tags["defect"] == "logical_anomalies"
    (tmp_path / "pushpins/ground_truth/logical_anomalies/001/000.png").unlink()
    assert "test/logical_anomalies/001.png has no mask" in problems(MVTecLOCO, tmp_path)


def test_new_images_of_loco_bring_no_masks_along(tmp_path) -> None:
    trees.loco(tmp_path)
    data = MVTecLOCO(root=str(tmp_path))
    case = next(c for c in data.build_index(tmp_path).cases if "mask 2" in c.files)
    assert {*data.without_masks(case).files} == {"image"}


def test_3d_reads_the_photographs_and_names_the_depth_it_leaves_out(tmp_path) -> None:
    home = trees.depth(tmp_path / "data")
    data = build(MVTec3D, home.parent, category="bagel")
    assert counts(data) == {"train": 6, "held_out": 3, "val": 0, "test": 4}
    assert abnormal(data) == 2 and data.spec.masks
    report = MVTec3D(root=str(home.parent), size=None).verify()
    reasons = {files.reason: files.count for files in report.left_out}
    assert reasons == {"places of the pixels in space, not read": 13}


def test_ad2_keeps_the_lights_of_one_thing_together_and_leaves_private_images(tmp_path) -> None:
    root = trees.ad2(tmp_path / "data").parent
    data = build(MVTecAD2, root, category="can")
    assert counts(data) == {"train": 6, "held_out": 3, "val": 0, "test": 8}
    assert abnormal(data) == 4
    groups = {sample.group for sample in samples(data, "test")}
    assert len(groups) == 4 and "can/test_public/bad/001" in groups
    report = MVTecAD2(root=str(root), size=None).verify()
    assert [files.count for files in report.left_out] == [4]
    put(root / "can/train/good/other.png", texture(1))
    assert "does not find in its name what it shows" in problems(MVTecAD2, root)


def test_real_iad_follows_its_lists_and_groups_views(tmp_path) -> None:
    trees.real_iad(tmp_path)
    data = build(RealIAD, tmp_path, category="usb")
    assert counts(data) == {"train": 10, "held_out": 2, "val": 0, "test": 8}
    assert abnormal(data) == 3 and shared(data) == set()
    assert len({sample.group for sample in samples(data, "test")}) == 4
    assert {s.tags.get("defect") for s in samples(data, "test")} == {None, "AK"}


def test_real_iad_says_what_its_list_lacks(tmp_path) -> None:
    trees.real_iad(tmp_path)
    table = tmp_path / "realiad_jsons/realiad_jsons/usb.json"
    lists = json.loads(table.read_text())
    lists["train"][0]["image_path"] = "OK/gone.jpg"
    lists["test"][-2]["mask_path"] = None
    del lists["test"][0]["anomaly_class"]
    table.write_text(json.dumps(lists))
    text = problems(RealIAD, tmp_path)
    assert "usb.json train 0: OK/gone.jpg is not in usb/" in text
    assert "is abnormal and has no mask" in text
    assert "usb.json test 0 lacks image_path or anomaly_class" in text
    table.write_text("[1]")
    assert "usb.json is no list of Real-IAD" in problems(RealIAD, tmp_path)
    with pytest.raises(DataError, match="no list of category 'tape'"):
        build(RealIAD, tmp_path, category="tape")


@pytest.mark.parametrize(
    ("category", "train", "test", "masks"),
    [("rsna", 8, (2, 3), False), ("isic2018", 6, (2, 2), False), ("camelyon16", 6, (2, 2), False),
     ("brats2021", 6, (2, 2), True)],
)  # fmt: skip
def test_medianomaly_is_read_in_its_three_forms(tmp_path, category, train, test, masks) -> None:
    trees.medianomaly(tmp_path / "MedIAnomaly-Data")
    data = build(MedIAnomaly, tmp_path, category=category)
    parts = counts(data)
    assert parts["train"] + parts["held_out"] == train and parts["val"] == 0
    assert (parts["test"] - abnormal(data), abnormal(data)) == test
    assert data.spec.masks == masks
    if masks:
        assert all(
            bool(s.mask.any()) == s.label for s in samples(data, "test") if s.mask is not None
        )


def test_medianomaly_names_what_is_missing(tmp_path) -> None:
    home = trees.medianomaly(tmp_path)
    (home / "RSNA/images/a0.png").unlink()
    assert "data.json test 1: there is no RSNA/images/a0.png" in problems(MedIAnomaly, home)
    (home / "BraTS2021/test/annotation/mor_0_seg.png").unlink()
    text = problems(MedIAnomaly, home, category="brats2021")
    assert "test/tumor/mor_0_flair.png has no mask (expected test/annotation/mor_0_seg.png)" in text
    with pytest.raises(ValueError, match="category is one of rsna"):
        MedIAnomaly(category="oct")  # pyright: ignore[reportArgumentType]


def test_pixels_are_those_of_the_files(tmp_path) -> None:
    home = trees.bmad(tmp_path)
    data = build(BMAD, tmp_path)
    sample = samples(data, "test")[0]
    stored = np.asarray(Image.open(home.parent / sample.key))
    assert np.allclose(sample.x[0].numpy() * 255, stored, atol=1e-4)
