"""Every file below the root of a dataset is used, or named by verify with the reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from adbench.datasets.base import DataError, SampleStatistics, merge_equal
from adbench.datasets.folder import Folder
from adbench.datasets.io.images import read_image, read_mask
from adbench.datasets.preparation.left_out import find_left_out, may_be_data
from adbench.datasets.volumes import Volumes
from trees_images import loose


def test_what_is_many_is_counted_by_folder(tmp_path) -> None:
    for number in range(30):
        (tmp_path / f"{number % 3}").mkdir(exist_ok=True)
        (tmp_path / f"{number % 3}/{number}.mha").touch()
    (files,) = find_left_out(tmp_path, ())
    assert files.count == 30 and list(files.names) == ["0/ (10)", "1/ (10)", "2/ (10)"]


def test_links_and_odd_names_end_nothing(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/again").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a\x1b[31m.xyz").touch()
    reasons = {files.reason: list(files.names) for files in find_left_out(tmp_path, ())}
    assert reasons == {
        "link to a folder above it": ["in/again/"],
        "link to nothing": ["gone"],
        "of a kind that is not read": ["a\\x1b[31m.xyz"],
    }


def test_equal_problems_are_one_line_with_a_count_and_an_example() -> None:
    lines = [f"mine/{n:06d} holds values from -{n}.5 to {n}.5" for n in range(240)]
    (line,) = merge_equal(lines)
    assert line.startswith("mine/000000 holds values from -0.5 to 0.5 (240 times: also mine/000001")
    assert merge_equal(["a is bad", "b is bad"]) == ["a is bad", "b is bad"]


def test_statistics_join() -> None:
    one = SampleStatistics((1, 4), "float32", 0.1, 0.5, ((1.0,), (1.0,)), {"4": 1})
    other = SampleStatistics((1, 4), "float32", 0.0, 0.7, ((2.0,), (2.0,)), {"4": 2})
    assert one.joined(other).as_text() == "1 x 4 float32, values 0 to 0.7, spacing 1-2 mm"
    assert one.joined(other).stored_shapes == {"4": 3}


@pytest.mark.parametrize(("suffix", "form"), [("webp", "WEBP"), ("gif", "GIF"), ("jfif", "JPEG")])
def test_further_kinds_of_images_are_read(suffix, form) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    x = read_image(buffer.getvalue(), f"a.{suffix}")
    assert tuple(x.shape) == (1, 16, 16)
    if form != "JPEG":
        assert np.allclose(x[0].numpy() * 255, pixels, atol=1e-3)
    lossy = io.BytesIO()
    Image.fromarray(pixels).save(lossy, "WEBP")
    with pytest.raises(ValueError, match="lossy WebP"):
        read_mask(lossy.getvalue(), "mask.webp")


def test_what_may_be_data_is_noted_at_every_preparation(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))
    root = loose(tmp_path / "data")
    for name in ("normal/a.nrrd", "stray.png", ".DS_Store", "notes.txt"):
        (root / name).write_bytes(b"junk")
    for _ in range(2):  # written, then found in the cache
        with pytest.warns(UserWarning) as caught:
            Folder(root=str(root), size=16).prepare()
        notes = [str(warning.message) for warning in caught]
        assert any("a.nrrd (NRRD volume, not read: convert to .nii.gz;" in note for note in notes)
        assert any("left out: stray.png (readable, but" in note for note in notes)
        assert any("24 x 24 gray -> 16 x 16 gray" in note for note in notes)
        assert not any("notes.txt" in note or ".DS_Store" in note for note in notes)


def test_a_folder_of_other_kinds_only_says_what_to_convert(tmp_path) -> None:
    for number in range(3):
        (tmp_path / "normal").mkdir(exist_ok=True)
        (tmp_path / f"normal/{number}.mgz").touch()
    with pytest.raises(DataError, match=r"3 files: FreeSurfer volume, not read: convert to"):
        Volumes(root=str(tmp_path)).prepare()


def test_folders_are_named_with_what_they_were_read_as(tmp_path) -> None:
    folders = Folder(root=str(loose(tmp_path / "mine"))).verify().folders
    assert folders == {"mine/normal as normal": 12, "mine/broken as abnormal": 6}


def test_too_many_files_end_the_search_with_a_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("adbench.datasets.preparation.left_out.MAX_FILES", 3)
    for number in range(9):
        (tmp_path / f"{number}.mha").touch()
    reasons = {files.reason: files.count for files in find_left_out(tmp_path, ())}
    assert reasons["MetaImage volume, not read: convert to .nii.gz"] == 3
    assert any(reason.startswith("more than 3 files: name the") for reason in reasons)


def test_a_readme_is_text(tmp_path) -> None:
    (tmp_path / "README").touch()
    (files,) = find_left_out(tmp_path, ())
    assert files.reason.startswith("text or table") and not may_be_data(files)
