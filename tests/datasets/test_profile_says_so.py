"""A profile that changes the data says so, and masks that change much are warned of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.datasets.folder import Folder
from adbench.datasets.volumes import Volumes
from trees_images import mvtec, put, square, texture

pytestmark = pytest.mark.usefixtures("cache")


def adbench(*argv: object) -> str:
    result = CliRunner().invoke(app, list(map(str, argv)))
    assert result.exit_code == 0, result.output
    return result.output


def test_verify_and_prepare_say_what_the_profile_makes_of_the_data(tmp_path, trees) -> None:
    mvtec(tmp_path / "m")
    line = (
        "data: mvtec, 24 x 24 RGB -> 32 x 32 gray (profile tiny); --set mvtec.size=256 keeps more"
    )
    assert line in adbench("data", "verify", "mvtec", "--data", tmp_path / "m", "--profile", "tiny")
    assert "data: mvtec, size 256 -> 32, gray (profile tiny)" in adbench(
        "data", "prepare", "mvtec", "--data", tmp_path / "m", "--profile", "tiny"
    )
    trees.own(tmp_path / "v")
    verified = adbench("data", "verify", "volumes", "--data", tmp_path / "v", "--profile", "tiny")
    assert "20 x 24 x 18 voxels -> 32 x 32, every 4th slice (profile tiny)" in verified
    assert "--set volumes.size=128 keeps more" in verified
    everything = ("--set", "volumes.size=128", "--set", "volumes.every=1")
    plain = ("data", "verify", "volumes", "--data", tmp_path / "v", "--profile", "tiny")
    assert "data: " not in adbench(*plain, *everything)
    assert "data: " not in adbench(*plain[:-1], "paper")


def test_a_run_says_it_before_it_begins(tmp_path, trees) -> None:
    trees.own(tmp_path / "v")
    output = adbench(
        *("run", "-d", "volumes", "--data", tmp_path / "v", "-m", "healthy-mean"),
        *("--no-baselines", "--profile", "tiny", "--executor", "inline"),
        *("--out", tmp_path / "out", "--store", tmp_path / "store"),
    )
    assert "data: volumes, size 128 -> 32, every 4th slice (profile tiny)" in output


def thin(root: Path, size: int = 96) -> Path:
    """Scratches of two pixels width, and a normal set."""
    for i in range(8):
        put(root / f"train/good/{i}.png", texture(i, (size, size)))
    for i in range(3):
        put(root / f"test/good/{i}.png", texture(50 + i, (size, size)))
        put(root / f"test/scratch/{i}.png", texture(70 + i, (size, size)))
        mask = np.zeros((size, size), np.uint8)
        mask[40 + i : 42 + i, 10:80] = 255
        put(root / f"ground_truth/scratch/{i}_mask.png", mask)
    return root


def test_masks_that_change_their_area_are_warned_of(tmp_path) -> None:
    notes = Folder(root=str(thin(tmp_path)), size=16).verify().notes
    (note,) = (note for note in notes if "change their area" in note)
    assert "by more than 30 % in 3 of 3 abnormal samples" in note
    assert "--set folder.size=" in note
    assert not Folder(root=str(tmp_path), size=96).verify().notes
    with pytest.warns(UserWarning, match="change their area"):
        Folder(root=str(tmp_path), size=16).prepare()


def test_masks_that_mark_most_of_their_images_are_warned_of(tmp_path) -> None:
    assert not Folder(root=str(thin(tmp_path)), size=96).verify().notes
    for path in (tmp_path / "ground_truth/scratch").iterdir():
        put(path, 255 - np.asarray(Image.open(path)))
    (note,) = Folder(root=str(tmp_path), size=96).verify().notes
    assert note.startswith(
        "masks mark more than half of the pixels in 3 of 3 abnormal samples (98 %"
    )
    assert "invert them" in note


def test_masks_of_volumes_are_compared_too(tmp_path, trees) -> None:
    trees.own(tmp_path)
    assert not any("area" in note for note in Volumes(root=str(tmp_path), size=24).verify().notes)
    for slices in (True, False):
        notes = Volumes(root=str(tmp_path), size=7, slices=slices).verify().notes
        assert any("change their area" in note for note in notes)


def test_the_audit_names_every_cue_and_what_it_reached(tmp_path) -> None:
    for i in range(12):
        put(tmp_path / f"train/good/{i}.png", texture(i))
        put(tmp_path / f"test/good/{i}.png", texture(50 + i))
        bright = texture(70 + i)
        bright[4:12, 4:12] = 255
        put(tmp_path / f"test/spot/{i}.png", bright)
    output = adbench("data", "audit", "folder", "--data", tmp_path, "--set", "folder.size=24")
    for cue in ("mean intensity", "brightest 2 %", "contrast", "foreground area", "noise level"):
        assert any(line.endswith(f"test   {cue}") for line in output.splitlines()), output
    assert "1.000  1.000 to 1.000  " in output
    assert "confound: brightest 2 % alone tells normal from abnormal in test" in output
    shutil.rmtree(tmp_path / "test/spot")
    put(tmp_path / "test/spot/1.png", square())
