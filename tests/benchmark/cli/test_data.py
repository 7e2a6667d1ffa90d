"""adbench data, as a user types it: on volumes that were damaged, and on splits that leak."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from adbench.benchmark.cli.main import app

MVTEC = ["mvtec", "--profile", "tiny", "--set", "size=16"]


def adbench(*argv: str) -> Result:
    return CliRunner().invoke(app, ["data", *argv])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ADBENCH_DATA", raising=False)
    return tmp_path / "cache/data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A category of photographs: 6 to train on, 2 good and 2 cut ones to test on."""
    built = tmp_path / "data"
    for number, kind in enumerate(["train/good"] * 6 + ["test/good"] * 2 + ["test/cut"] * 2):
        pixels = np.random.default_rng(number).integers(90, 160, (16, 16), np.uint8)
        if kind == "test/cut":
            pixels[4:9, 5:12] = 255
            mask = np.zeros((16, 16), np.uint8)
            mask[4:9, 5:12] = 255
            save(built / f"wood/ground_truth/cut/{number:03d}_mask.png", mask)
        save(built / f"wood/{kind}/{number:03d}.png", pixels)
    return built


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_prepare_says_what_came_of_it_and_writes_only_to_the_cache(root: Path, cache: Path) -> None:
    before = sorted(root.rglob("*"))
    built = adbench("prepare", *MVTEC, "--data", str(root))
    assert built.exit_code == 0, built.output
    assert "mvtec is prepared: train 5, calibration 1, val 0, test 4 samples of 1 x 16 x 16" in (
        built.output
    )
    assert sorted(root.rglob("*")) == before and len(list(cache.glob("mvtec-*.h5"))) == 1
    output = adbench("prepare", *MVTEC, "--data", str(root), "--json")
    start = output.output.index("{")
    assert json.loads(output.output[start:])["samples"]["test"] == 4


def test_verify_lists_every_bad_file_and_ends_with_5(root: Path, cache: Path) -> None:
    assert adbench("verify", *MVTEC, "--data", str(root)).exit_code == 0
    first = root / "wood/train/good/001.png"
    first.write_bytes(first.read_bytes()[:-40])
    (root / "wood/ground_truth/cut/009_mask.png").unlink()
    (root / "wood/test/good/007.png").write_text("<!DOCTYPE html><html>")
    built = adbench("verify", *MVTEC, "--data", str(root))
    assert built.exit_code == 5
    assert "      10  read, with a problem in 3 cases" in built.output.splitlines()
    (counts,) = [line for line in built.output.splitlines() if "readable samples" in line]
    assert counts.endswith("readable samples: train 4, held_out 1, test 2")
    for name in ("001.png", "009.png", "007.png"):
        assert any(name in line for line in built.output.splitlines() if line.startswith("bad: "))
    assert not list(cache.glob("mvtec-*.h5"))
    assert adbench("prepare", *MVTEC, "--data", str(root)).exit_code == 5


def test_audit_finds_a_planted_copy_and_passes_a_clean_set(root: Path) -> None:
    clean = adbench("audit", *MVTEC, "--data", str(root))
    assert clean.exit_code == 0, clean.output
    assert "no leaks found" in clean.output
    pixels = np.asarray(Image.open(root / "wood/train/good/000.png")).copy()
    pixels[0, 0] ^= 1  # one gray level of one pixel: no copy to the byte
    save(root / "wood/test/good/099.png", pixels)
    results = adbench("audit", *MVTEC, "--data", str(root))
    assert results.exit_code == 4, results.output
    assert "leak: " in results.output and "099" in results.output


def test_a_category_can_be_named_in_two_ways(root: Path) -> None:
    shutil.copytree(root / "wood", root / "steel")
    for argv in (["mvtec/wood"], ["mvtec", "--set", "category=wood"]):
        more = ["--profile", "tiny", "--set", "size=16", "--data", str(root), "--json"]
        built = adbench("prepare", *argv, *more)
        assert built.exit_code == 0, built.output
        assert json.loads(built.output[built.output.index("{") :])["samples"]["test"] == 4
    assert adbench("prepare", "mvtec/glass", "--data", str(root)).exit_code == 5
    wrong = adbench("prepare", "mvtec", "--set", "categry=wood", "--data", str(root))
    assert wrong.exit_code == 2 and "categry" in wrong.output


def test_what_is_missing_is_said_with_the_command_that_tells_more(tmp_path: Path) -> None:
    for verb in ("prepare", "audit"):
        built = adbench(verb, "mvtec", "--data", str(tmp_path / "none"))
        assert built.exit_code == 5 and "(adbench info mvtec)" in built.output
    unset = adbench("verify", "mvtec")
    assert unset.exit_code == 5 and "ADBENCH_DATA is not set" in unset.output
    unknown = adbench("verify", "mvtek")
    assert unknown.exit_code == 2 and "Did you mean 'mvtec'?" in unknown.output


def test_made_up_data_can_be_verified_too() -> None:
    built = adbench("verify", "phantom", "--set", "train=4", "--set", "test=2", "--set", "val=2")
    assert built.exit_code == 0, built.output
    assert "nothing wrong" in built.output and "test 4" in built.output
