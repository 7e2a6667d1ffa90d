"""Listing folders that hold links, and what is said of files that were not looked at."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from adbench.datasets.folder import Folder
from adbench.datasets.io.directories import find_files, list_directory
from adbench.datasets.preparation.left_out import UNREAD


def image_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for place in ("train/good", "test/good", "test/bad"):
        (root / place).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / place / f"{number}.png")
    return root


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    (root / "train/good/loop").symlink_to("..")
    (root / "train/circle").symlink_to("circle")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/9.png").touch()
    (root / "test/beside").symlink_to(tmp_path / "elsewhere")
    assert "loop" not in [path.name for path in list_directory(root / "train/good")]
    names = [os.path.relpath(path, root) for path in find_files(root, [".png"])]
    assert len(names) == len(set(names)) == 10 and "test/beside/9.png" in names


def test_sound_files_beside_one_that_ends_the_search_are_not_of_an_unread_kind(
    tmp_path: Path,
) -> None:
    root = image_folder(tmp_path)
    (root / "train/good" / os.fsdecode(b"caf\xe9.png")).touch()
    report = Folder(root=str(root), size=8, channels=1).verify()
    assert list(report.problems) == ["'train/good/caf\\udce9.png' is no UTF-8 name: rename it"]
    assert [files.count for files in report.left_out if files.reason == UNREAD] == [9]


def test_a_test_split_of_one_kind_alone_is_noted(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    note = "test holds normal samples alone: no detector can be judged on them"
    dataset = Folder(root=str(root), size=8, channels=1)
    assert note not in dataset.verify().notes
    shutil.rmtree(root / "test/bad")
    assert note in dataset.verify().notes
