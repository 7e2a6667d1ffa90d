"""Every layout that the registry names, from a tree on disk to entries of the leaderboard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import trees_benchmarks as benchmarks
import trees_images as images
from adbench.benchmark.api.catalogue import load_dataset
from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import manifest

Make = Callable[[Path, Any, Any, Any], object]

LAYOUTS: dict[str, tuple[Make, list[str]]] = {
    "brats": (lambda r, v, t, a: v.tree(r), ["axial=[3,12]", "min_brain=0.01"]),
    "brats-slices": (lambda r, v, t, a: t.slices(r), ["pad=24"]),
    "nfbs-edinburgh": (lambda r, v, t, a: t.heads(r), ["slices=[4,12]", "every=2"]),
    "ixi-brats": (lambda r, v, t, a: t.ixi(r), ["every=2", "pad=24"]),
    "ixi-mslub": (lambda r, v, t, a: t.ixi(r), ["every=2", "pad=24"]),
    "ixi-atlas": (lambda r, v, t, a: images.ixi_atlas(r), []),
    "oct2017": (lambda r, v, t, a: images.oct2017(r), []),
    "chexpert": (lambda r, v, t, a: images.chexpert_npy(r), []),
    "mvtec": (lambda r, v, t, a: images.mvtec(r), ["tile=8", "overlap=2"]),
    "visa": (lambda r, v, t, a: images.visa(r), []),
    "bmad": (lambda r, v, t, a: benchmarks.bmad(r), []),
    "medianomaly": (lambda r, v, t, a: benchmarks.medianomaly(r), []),
    "btad": (lambda r, v, t, a: benchmarks.btad(r), []),
    "mpdd": (lambda r, v, t, a: images.mvtec(r, "tubes"), []),
    "mvtec-loco": (lambda r, v, t, a: benchmarks.loco(r), []),
    "mvtec-3d": (lambda r, v, t, a: benchmarks.depth(r), []),
    "mvtec-ad2": (lambda r, v, t, a: benchmarks.ad2(r), []),
    "real-iad": (lambda r, v, t, a: benchmarks.real_iad(r), []),
    "tsb-ad": (lambda r, v, t, a: benchmarks.tsb_ad(r), ["window=32"]),
    "ucr-anomaly": (lambda r, v, t, a: benchmarks.ucr(r), ["window=32"]),
    "folder": (lambda r, v, t, a: images.loose(r), []),
    "volumes": (lambda r, v, t, a: t.own(r), ["every=4"]),
    "decathlon": (lambda r, v, t, a: t.tasks(r), []),
    "rf-challenge": (lambda r, v, t, a: a.radio(r), ["window=32"]),
    "idx": (lambda r, v, t, a: a.idx_set(r, "FashionMNIST", 0), ["normal_classes=[0,1]"]),
    "hdf5": (
        lambda r, v, t, a: a.h5(
            r / "mine.h5",
            x=a.drawings(0, 40, size=16)[0],
            label=a.drawings(0, 40, size=16)[1] > 2,
        ),
        [],
    ),
}
COHORTS = ("brats-t1", "brats-t2", "shifts-t1", "shifts-t2", "atlas-i-t1", "atlas-o-t1",
    "atlas-n-t1", "wmh-t1")  # fmt: skip
LAYOUTS |= {
    f"uad-imag-{cohort}": (
        lambda r, v, t, a: benchmarks.cohort(r, "T1w"),
        ["every=2", "modalities=[T1w]"],
    )
    for cohort in COHORTS
}
MADE_UP = {"synthbrain", "phantom"}
PIXELLESS = ("rf-challenge", "idx", "hdf5", "tsb-ad", "ucr-anomaly")
"""Datasets without an argument `size`."""

ALIKE = [name for name in LAYOUTS if name.startswith("uad-imag-")][1:]
"""Presets that differ from another one in their names and modality alone."""


def test_every_dataset_of_the_registry_is_here() -> None:
    assert {*LAYOUTS, *MADE_UP} == set(Registry.read().datasets)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ALIKE])
def test_it_reaches_the_leaderboard(name, tmp_path, cache, volumes, trees, arrays) -> None:
    make, sets = LAYOUTS[name]
    root = tmp_path / "data"
    root.mkdir()
    make(root, volumes, trees, arrays)
    small = ["steps=2", "width=8", "mults=[1,2]", "attention=[]", "sampling_steps=1", "repeats=1"]
    size = [] if name in PIXELLESS else ["size=16"]
    argv = ["run", "-d", name, "--data", str(root), "-m", "healthy-mean,anoddpm", "--no-baselines"]
    argv += ["--levels", "250", "--profile", "tiny", "--out", str(tmp_path / "out")]
    argv += ["--store", str(tmp_path / "store")]
    for text in [f"{name}.{s}" for s in sets + size] + [f"anoddpm.{s}" for s in small]:
        argv += ["--set", text]
    output = CliRunner().invoke(app, argv)
    assert output.exit_code == 0, output.output
    records = [json.loads(p.read_text()) for p in (tmp_path / "out/records").glob("*.json")]
    assert {r["method"]["name"] for r in records} == {"healthy-mean", "anoddpm"}
    assert all(r["status"] == "ok" for r in records)
    assert all(r["counts"]["test"] for r in records)
    board = CliRunner().invoke(app, ["report", "--out", str(tmp_path / "out")])
    assert board.exit_code == 0, board.output


JUNK = {
    ".Trash-1000/files/deleted.png": "hidden",
    ".thumbnails/small.png": "hidden",
    "@eaDir/SYNOPHOTO_THUMB_M.jpg": "hidden",
    "$RECYCLE.BIN/desktop.ini": "hidden",
    "__MACOSX/._a": "hidden",
    "lost+found/": "hidden",
    "Thumbs.db": "hidden",
    "scan.nrrd": "convert to .nii.gz",
    "volume.mgz": "convert to .nii.gz",
    "pair.HDR": "convert to .nii.gz",
    "photo.heic": "convert to .png",
    "notes.txt": "text or table",
    "backup.zip": "unpack",
    "model.pkl": "pickle",
    "unknown.xyz": "of a kind that is not read",
}


def plant(root: Path) -> None:
    for name in JUNK:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"junk")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ALIKE])
def test_junk_is_named_and_changes_no_sample(name, tmp_path, cache, volumes, trees, arrays) -> None:
    make, sets = LAYOUTS[name]
    root = tmp_path / "data"
    root.mkdir()
    make(root, volumes, trees, arrays)
    small = [] if name in PIXELLESS else ["size=16"]
    settings = [f"{name}.{text}" for text in sets + small]

    def samples() -> list:
        data = load_dataset(name, data=root, profile="tiny", settings=settings)
        data.prepare()
        parts = ("train", "held_out", "val", "test")
        return [manifest(data.get_split(part)) for part in parts]

    before = samples()
    deepest = next(path for path in sorted(root.rglob("*")) if path.is_file()).parent
    for folder in {root, deepest}:
        plant(folder)
    assert samples() == before
    options = [argument for text in settings for argument in ("--set", text)]
    result = CliRunner().invoke(
        app, ["data", "verify", name, "--data", str(root), "--profile", "tiny", *options]
    )
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if "left out: " in line]
    for junk, reason in JUNK.items():
        assert any(junk in row and reason in row for row in rows), (junk, result.output)
    counts = [int(row.split()[0]) for row in rows]
    (read,) = (line for line in result.output.splitlines() if line.endswith("  read"))
    on_disk = sum(len(files) for _, _, files in os.walk(root))
    assert int(read.split()[0]) + sum(counts) == on_disk
    assert "sample: " in result.output
