"""MVTec AD's layout, and what all layouts of images share."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adbench.datasets.base import DataError, Spec
from adbench.datasets.mvtec import MVTec
from trees_images import counts, everything, mvtec, put, samples, shared, square, texture

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    mvtec(tmp_path / "data")
    return tmp_path / "data"


def build_dataset(root: Path, **how) -> MVTec:
    data = MVTec(**{"root": str(root), "category": "hazelnut", "size": None, **how})
    data.prepare()
    return data


def refused(root: Path, **how) -> str:
    with pytest.raises(DataError) as caught:
        build_dataset(root, **how)
    return str(caught.value)


def test_the_published_split_stays(root) -> None:
    data = build_dataset(root)
    assert counts(data) == {"train": 9, "held_out": 1, "val": 0, "test": 6}
    assert data.spec == Spec(3, (24, 24), labels=False, masks=True)
    assert shared(data) == set()
    assert sum(sample.label for sample in samples(data, "test")) == 4
    assert not any(sample.label for part in ("train", "held_out") for sample in samples(data, part))


def test_pixels_masks_and_tags_are_those_of_the_files(root) -> None:
    results = {sample.key: sample for sample in samples(build_dataset(root), "test")}
    hole = results["hazelnut/test/hole/001.png"]
    stored = np.asarray(Image.open(root / "hazelnut/test/hole/001.png"))
    assert np.allclose(hole.x.permute(1, 2, 0).numpy() * 255, stored, atol=1e-4)
    assert hole.mask is not None
    assert (hole.mask.numpy() == (square(at=5) > 0)).all()
    assert hole.tags == {"category": "hazelnut", "defect": "hole"}
    good = results["hazelnut/test/good/000.png"]
    assert good.mask is not None and not good.mask.any() and not good.label
    assert good.tags == {"category": "hazelnut"}
    assert all(sample.mask is None for sample in samples(build_dataset(root), "train"))


def test_several_categories_are_one_set_in_colour(root) -> None:
    mvtec(root, "grid", colour=False, first=500)
    data = build_dataset(root, category=None)
    assert data.spec.channels == 3 and counts(data)["test"] == 12
    assert {s.tags["category"] for s in everything(data)} == {"grid", "hazelnut"}
    assert build_dataset(root, category="grid").spec.channels == 1
    assert build_dataset(root, category=None, channels=1).spec.channels == 1


@pytest.mark.parametrize("where", ["", "hazelnut", ".."])
def test_root_may_be_the_category_or_above(root, where) -> None:
    assert counts(build_dataset(root / where))["test"] == 6
    assert counts(build_dataset(root / where, category=None))["test"] == 6


def test_the_location_does_not_matter_and_the_content_does(root, tmp_path, monkeypatch) -> None:
    first = build_dataset(root)._prepared_path
    shutil.copytree(root, tmp_path / "other place")
    assert build_dataset(tmp_path / "other place")._prepared_path == first
    monkeypatch.chdir(root)
    assert build_dataset(Path("."))._prepared_path == first
    assert build_dataset(root / "hazelnut")._prepared_path == first
    monkeypatch.chdir(root / "hazelnut")
    alone = {sample.key for sample in everything(build_dataset(Path("."), category=None))}
    assert alone == {sample.key for sample in everything(build_dataset(root))}
    put(root / "hazelnut/train/good/000.png", texture(99, colour=True))
    assert build_dataset(root)._prepared_path != first


def test_other_forms_of_the_layout_are_read(tmp_path) -> None:
    """As DDAD prepares VisA (no _mask), and MTD, where a mask has its image's name."""
    home = mvtec(tmp_path, "candle")
    shutil.rmtree(home / "test/crack")
    shutil.rmtree(home / "ground_truth")
    (home / "test/hole").rename(home / "test/bad")
    for i in range(2):
        put(home / f"ground_truth/bad/{i:03d}.png", square())
    assert counts(build_dataset(tmp_path, category="candle"))["test"] == 4


def test_a_resized_mask_stays_true_or_false_and_is_never_lost(root) -> None:
    put(root / "hazelnut/ground_truth/hole/000_mask.png", square() * (np.arange(24) == 5))
    for sample in samples(build_dataset(root, size=7), "test"):
        assert sample.mask is not None and sample.mask.dtype == torch.bool
        assert bool(sample.mask.any()) == sample.label
        assert sample.x.shape == (3, 7, 7) and 0 <= sample.x.min() <= sample.x.max() <= 1


def test_large_images_are_cut_into_tiles(root) -> None:
    data = build_dataset(root, tile=8, overlap=2)
    assert data.spec.shape == (8, 8) and counts(data)["test"] == 6 * 16
    whole = {s.key: s for s in samples(build_dataset(root), "test")}
    for part in samples(data, "test"):
        assert part.tile is not None and part.tile.extent == (24, 24)
        top, left = part.tile.start
        one = whole[part.tile.image_key]
        assert torch.equal(part.x, one.x[:, top : top + 8, left : left + 8])
        assert part.label == one.label and part.group == one.group


def test_wrong_arguments_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="channels is 1, 3 or None, not 2"):
        MVTec(channels=2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size is a positive number of pixels"):
        MVTec(size=0)
    with pytest.raises(ValueError, match="fractions are 2 numbers that sum to 1"):
        MVTec(fractions=(0.5, 0.6))
    with pytest.raises(ValueError, match="tiles of 64 that overlap by 0 do not fit 32"):
        MVTec(size=32, channels=1, tile=64)


def test_a_category_that_is_not_there(root) -> None:
    text = refused(root, category="hazelnutt")
    assert "no category 'hazelnutt' lies under" in text and "there is hazelnut" in text


# The error catalogue: what is done to the tree, and the line that tells of it


def mask(root: Path, kind: str = "crack") -> Path:
    return root / f"hazelnut/ground_truth/{kind}/000_mask.png"


def no_mask(root):
    mask(root).unlink()


def orphan(root):
    put(mask(root).with_name("007_mask.png"), square())


def two_masks(root):
    put(mask(root).with_name("000.png"), square())


def beside(root):
    put(root / "hazelnut/train/bad/1.png", texture(1))


def unsorted(root):
    put(root / "hazelnut/test/1.png", texture(1))


def jpeg_mask(root):
    image = Image.fromarray(square())
    image.save(mask(root), "JPEG")


def soft_mask(root):
    put(mask(root), np.asarray(Image.fromarray(square()).resize((24, 24), 2, (1, 1, 20, 20))))


def empty_mask(root):
    put(mask(root), square(value=0))


def other_extent(root):
    put(mask(root), square((20, 24)))


def gray(root):
    put(root / "hazelnut/train/good/003.png", texture(1))


def clear(root):
    pixels = np.concatenate([texture(1, colour=True), np.full((24, 24, 1), 200, np.uint8)], -1)
    put(root / "hazelnut/train/good/003.png", pixels)


def larger(root):
    put(root / "hazelnut/train/good/003.png", texture(1, (30, 24), colour=True))


def page(root):
    (root / "hazelnut/train/good/003.png").write_text("<html>404</html>")


def cut_off(root):
    path = root / "hazelnut/train/good/003.png"
    path.write_bytes(path.read_bytes()[:-40])


def namesake(root):
    put(root / "hazelnut/train/good/A.png", texture(1, colour=True))
    put(root / "hazelnut/train/good/a.png", texture(2, colour=True))


def copied(root):
    shutil.copy(root / "hazelnut/test/good/000.png", root / "hazelnut/train/good/099.png")


CATALOGUE = {
    no_mask: "hazelnut/test/crack/000.png has no mask in hazelnut/ground_truth/crack (expected "
    "000_mask.png)",
    orphan: "hazelnut/ground_truth/crack/007_mask.png has no image in hazelnut/test/",
    two_masks: "hazelnut/test/crack/000.png has 2 masks in hazelnut/ground_truth/crack: 000.png, "
    "000_mask.png",
    beside: "hazelnut/train/bad/1.png lies beside train/good: only normal images are trained on",
    unsorted: "hazelnut/test/1.png lies in test/ itself, not in test/good/",
    jpeg_mask: "(crack/000_mask.png) is a JPEG; its compression changes a mask: store it as PNG",
    soft_mask: "was it resized with interpolation, or stored as JPEG once?",
    empty_mask: "(crack/000_mask.png) is empty, and its image is called abnormal",
    other_extent: "(crack/000_mask.png) has 20 x 24 pixels, its image 24 x 24",
    gray: "hazelnut/train/good/003.png has 1 channel, others 3 (channels=1 or channels=3",
    clear: "hazelnut/train/good/003.png is transparent in 576 pixels: flatten it",
    larger: "hazelnut/train/good/003.png has 30 x 24 pixels, others 24 x 24 (size=256",
    page: "hazelnut/train/good/003.png is no image: it looks like an HTML page",
    cut_off: "hazelnut/train/good/003.png is truncated or corrupt",
    namesake: "differ in upper and lower case only: rename one",
    copied: "is a copy of",
}


@pytest.mark.parametrize("spoil", CATALOGUE, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_reported_in_one_line_and_nothing_is_cached(root, cache, spoil) -> None:
    spoil(root)
    text = refused(root)
    assert CATALOGUE[spoil] in text and "Nothing was cached" in text
    assert sum(CATALOGUE[spoil] in line for line in text.splitlines()) == 1
    assert not list(cache.glob("*.h5"))


def test_all_that_is_wrong_is_reported_at_once(root) -> None:
    spoilt = (no_mask, orphan, page)
    for spoil in spoilt:
        spoil(root)
    put(mask(root, "hole"), square(value=0))
    cut = root / "hazelnut/test/hole/000.png"
    cut.write_bytes(cut.read_bytes()[:-9])
    results = MVTec(root=str(root), category="hazelnut").verify()
    output = "\n".join(results.problems)
    assert all(CATALOGUE[spoil] in output for spoil in spoilt)
    assert "(hole/000_mask.png) is empty" in output  # beside what is wrong with its image
    assert "hazelnut/test/hole/000.png is truncated" in output


def test_where_no_image_can_be_read_each_is_reported(root) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    text = refused(root, tile=16)
    assert "hazelnut/test/crack/000.png is empty (16 times: " in text
    assert "(crack/000_mask.png) is empty (4 times: " in text


def test_what_other_programs_leave_is_skipped(root) -> None:
    before = build_dataset(root)._prepared_path
    for name in ("train/good/._000.png", "test/good/Thumbs.db", "test/.ipynb_checkpoints/000.png"):
        path = root / "hazelnut" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0")
    assert build_dataset(root)._prepared_path == before


def test_an_image_of_one_value_is_not_trained_on(root) -> None:
    put(root / "hazelnut/train/good/003.png", np.full((24, 24, 3), 99, np.uint8))
    with pytest.warns(UserWarning, match=r"003\.png holds one value only"):
        data = build_dataset(root)
    assert counts(data)["train"] + counts(data)["held_out"] == 9


def test_nothing_is_written_beside_the_data(root) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    build_dataset(root).verify()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
