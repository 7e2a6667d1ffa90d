"""Maps that are exported from a run and evaluated again give the run's own row; what does not fit
is listed by name, and nothing is written."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import h5py
import nibabel as nib
import numpy as np
import pytest

import adbench
from adbench.benchmark.evaluation.protocol_values import ProtocolError
from adbench.benchmark.experiments.run_config import OptionError
from adbench.benchmark.external.export_maps import ExportError
from adbench.datasets.base import DataError

SHAPES = {1: [16], 2: [16, 16], 3: [8, 8, 8]}
EVALUATED = (
    "threshold",
    "metrics",
    "strata",
    "metadata",
    "lesions",
    "samples",
    "dataset",
    "protocol",
    "counts",
)
BY_LEVEL = ("level", "at_published", "at_oracle", "sweep")


def settings(axes: int) -> dict[str, Any]:
    return {
        "phantom.shape": SHAPES[axes], "phantom.train": 8, "phantom.held_out": 5,
        "phantom.val": 4, "phantom.test": 5, "phantom.abnormal": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("external")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[int, Path]:
    """Records of runs on signals, slices and volumes; that on signals sweeps levels."""
    paths = {}
    for axes, method in {1: "anoddpm", 2: "intensity", 3: "intensity"}.items():
        steps = {"anoddpm.steps": 2} if axes == 1 else {}
        results = adbench.run(
            method, "phantom", profile="check", settings=settings(axes) | steps, levels=[50, 250],
            out=folder / f"run{axes}", store=folder / "store", executor="inline",
            baselines=False, progress=False, device="cpu",
        )  # fmt: skip
        (paths[axes],) = results.paths()
    return paths


def evaluated(maps: Path, axes: int, out: Path, **options: Any) -> dict[str, Any]:
    results = adbench.evaluate_maps(
        maps, "phantom", profile="check", settings=settings(axes), out=out, **options
    )
    return dict(results.records[0])


@pytest.mark.parametrize(
    ("axes", "format"),
    [(1, "npy"), (1, "hdf5"), (2, "npy"), (2, "tiff"), (2, "hdf5"), (3, "nifti"), (3, "npy")],
)
def test_exported_maps_give_the_run_its_own_row_to_the_bit(
    axes: int, format: str, runs: dict[int, Path], folder: Path, tmp_path: Path
) -> None:
    run = json.loads(runs[axes].read_text())
    paths = adbench.export_maps(
        runs[axes], tmp_path / "maps", format=format, store=folder / "store"
    )
    maps = paths[1] if format == "hdf5" else tmp_path / "maps"
    record = evaluated(maps, axes, tmp_path / "out", name="copy")
    assert {part: record[part] for part in EVALUATED} == {part: run[part] for part in EVALUATED}
    assert record["external"]["splits"] == ["calibration", "val", "test"]
    for name in record["files"]:
        assert (tmp_path / "out" / name).is_file()


def test_all_levels_give_the_whole_record(
    runs: dict[int, Path], folder: Path, tmp_path: Path
) -> None:
    run = json.loads(runs[1].read_text())
    store = folder / "store"
    adbench.export_maps(runs[1], tmp_path / "maps", all_levels=True, store=store)
    with pytest.raises(ProtocolError, match="--published-level"):
        evaluated(tmp_path / "maps", 1, tmp_path / "out")
    record = evaluated(tmp_path / "maps", 1, tmp_path / "out", name="copy", published_level=250)
    assert {part: record[part] for part in BY_LEVEL} == {part: run[part] for part in BY_LEVEL}


def test_maps_of_16_bits_rank_as_the_run_up_to_rounding(
    runs: dict[int, Path], folder: Path, tmp_path: Path
) -> None:
    run = json.loads(runs[2].read_text())
    adbench.export_maps(runs[2], tmp_path / "maps", format="png", store=folder / "store")
    record = evaluated(tmp_path / "maps", 2, tmp_path / "out", name="copy")
    for name, metric in record["metrics"].items():  # one in 65535 of the highest map value
        assert metric["value"] == pytest.approx(run["metrics"][name]["value"], abs=2e-3), name


def test_the_method_s_own_scores_are_evaluated_where_the_protocol_takes_them(
    runs: dict[int, Path], folder: Path, tmp_path: Path
) -> None:
    adbench.export_maps(runs[2], tmp_path / "maps", store=folder / "store")
    scores = tmp_path / "maps" / "scores.csv"
    alone = evaluated(scores, 2, tmp_path / "out", name="alone")
    own = evaluated(tmp_path / "maps", 2, tmp_path / "out", name="own", reducer="method")
    assert alone["samples"]["score"] == own["samples"]["score"]
    assert alone["metrics"]["image_auroc"] == own["metrics"]["image_auroc"]
    assert alone["metrics"]["pixel_ap"]["value"] is None
    assert (alone["external"]["maps"], alone["external"]["scores"]) == (False, True)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A folder of perfect maps of the test samples alone."""
    for sample in adbench.load_dataset("phantom", profile="check", settings=settings(2)).test():
        path = tmp_path / "masks" / f"{sample.key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert sample.mask is not None
        np.save(path, sample.mask.numpy())
    return tmp_path / "masks"


def test_without_calibration_there_is_no_threshold_and_that_is_said(
    masks: Path, tmp_path: Path
) -> None:
    from adbench.benchmark.external.evaluate_results import describe_evaluation

    record = evaluated(masks, 2, tmp_path / "out", name="perfect")
    assert record["threshold"] == {"rule": "healthy@5%", "value": None}
    assert record["metrics"]["pixel_ap"]["value"] == 1
    assert record["metrics"]["pixel_dice"]["value"] is None
    assert record["counts"] == {"test": 10, "test_abnormal": 5, "test_groups": 10, "val": 0,
                                "calibration": 0}  # fmt: skip
    text = "\n".join(describe_evaluation(record))
    assert "threshold: none, for healthy@5% takes results of calibration samples" in text


def test_a_fixed_threshold_needs_no_calibration(masks: Path, tmp_path: Path) -> None:
    record = evaluated(masks, 2, tmp_path / "out", name="perfect", threshold="fixed:0.5")
    assert record["metrics"]["pixel_dice"]["value"] == 1


def test_the_board_shows_it_beside_a_run_and_marks_it(
    runs: dict[int, Path], masks: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "run2", out)
    evaluated(masks, 2, out, name="perfect")
    (board,) = adbench.load_results(out).leaderboards()
    assert [(entry.name, bool(entry.record.get("external"))) for entry in board.entries] == [
        ("perfect (external)", True), ("Intensity (baseline)", False)
    ]  # fmt: skip
    assert any(note.startswith("(external):") for note in board.notes)
    frame = board.to_frame().set_index("method")
    assert frame["external"].to_dict() == {"perfect": True, "intensity": False}
    paths = adbench.load_results(out).write()
    assert "perfect (external)" in paths[0].read_text()
    with pytest.raises(ValueError, match="maps that another program made"):
        adbench.load(out / "records" / board.entries[0].record["file"], store=folder / "store")


def lose(maps: Path) -> None:
    (maps / "test" / "00001.npy").unlink()


def add(maps: Path) -> None:
    shutil.copy(maps / "test" / "00001.npy", maps / "test" / "0001.npy")


def crop(maps: Path) -> None:
    np.save(maps / "test" / "00001.npy", np.zeros((16, 15)))


def spoil(maps: Path) -> None:
    np.save(maps / "test" / "00001.npy", np.full((16, 16), np.nan))


def pickle(maps: Path) -> None:
    np.save(maps / "test" / "00001.npy", np.array([{}]), allow_pickle=True)


def truncate(maps: Path) -> None:
    path = maps / "test" / "00001.npy"
    path.write_bytes(path.read_bytes()[:-7])


def double(maps: Path) -> None:
    assert cv2.imwrite(str(maps / "test" / "00001.png"), np.zeros((16, 16), np.uint16))


def colour(maps: Path) -> None:
    lose(maps)
    assert cv2.imwrite(str(maps / "test" / "00001.png"), np.eye(16)[..., None] * [1, 2, 3])


def partly_calibrated(maps: Path) -> None:
    (maps / "held_out").mkdir()
    shutil.copy(maps / "test" / "00001.npy", maps / "held_out" / "00001.npy")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose, "test/00001 of test has no map"),
        (add, "test/0001.npy is of no sample .* Did you mean 'test/00001'"),
        (crop, "test/00001.npy has the shape 16 x 15; the samples have 16 x 16"),
        (spoil, "test/00001.npy holds 256 values that are NaN or infinite"),
        (pickle, "test/00001.npy holds Python objects"),
        (truncate, "test/00001.npy is truncated or corrupt"),
        (double, "test/00001.png and test/00001.npy are maps of the same sample"),
        (colour, "test/00001.png has 3 colours"),
        (partly_calibrated, "held_out/00000 of calibration has no map"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    damage: Any, words: str, masks: Path, tmp_path: Path
) -> None:
    damage(masks)
    with pytest.raises(DataError) as error:
        evaluated(masks, 2, tmp_path / "out", name="bad")
    assert error.value.exit_code == 5
    import re

    assert re.search(
        words.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?"), str(error.value)
    )
    assert not (tmp_path / "out").exists()


def test_rows_of_scores_are_checked_too(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    keys = [f"test/{i:05d}" for i in range(5)] + [f"test-abnormal/{i:05d}" for i in range(4)]
    table.write_text("key,score\n" + "".join(f"{key},0.5\n" for key in keys))
    with pytest.raises(DataError, match="test-abnormal/00004 of test has no score"):
        evaluated(table, 2, tmp_path, name="bad")
    table.write_text("key,score\ntest/00000,0.5\ntest/00000,0.5\ntest/00001,nan\n")
    with pytest.raises(
        DataError, match=r"(?s)line 3 names test/00000 again.*line 4: score is 'nan'"
    ):
        evaluated(table, 2, tmp_path, name="bad")


@pytest.mark.parametrize("name", ["", "a/b", "anoddpm", "../up"])
def test_a_name_is_one_of_a_file_and_of_no_method(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--name"):
        evaluated(tmp_path, 2, tmp_path, name=name)


def test_what_cannot_be_exported_is_said(
    runs: dict[int, Path], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="maps of 1 axes do not go into tiff: use npy, hdf5"):
        adbench.export_maps(runs[1], tmp_path, format="tiff", store=folder / "store")
    with pytest.raises(ExportError, match="name the store"):
        adbench.export_maps(runs[1], tmp_path, store=tmp_path / "other")
    with pytest.raises(ExportError, match="no format 'mat'"):
        adbench.export_maps(runs[1], tmp_path, format="mat", store=folder / "store")


OBLIQUE = np.array(
    [[-1.9, 0.2, 0.1, 30.0], [0.2, 2.4, -0.3, -20.0], [0.1, 0.4, 3.0, 10.0], [0, 0, 0, 1]]
)
"""An affine to the left, front and top, oblique, of 1.9 x 2.4 x 3.0 mm."""


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Scans with a bright box in the abnormal ones, and masks; stored to the patient's left."""
    rng = np.random.default_rng(0)
    pools = {
        "train/normal": 4,
        "val/normal": 1,
        "val/tumour": 1,
        "test/normal": 2,
        "test/tumour": 2,
    }
    for pool, count in pools.items():
        for i in range(count):
            data = rng.uniform(0.2, 0.5, (12, 10, 6)).astype(np.float32)
            mask = np.zeros(data.shape, np.uint8)
            if "tumour" in pool:
                mask[2 + 2 * i : 6 + 2 * i, 1:5, 2:4] = 1
                data[mask > 0] = 0.9
                _save(tmp_path / "scans" / pool / f"p{i}_mask.nii.gz", mask)
            _save(tmp_path / "scans" / pool / f"p{i}.nii.gz", data)
    return tmp_path / "scans"


def _save(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, OBLIQUE)
    path.write_bytes(gzip.compress(image.to_bytes()))


@pytest.mark.parametrize("slices", [True, False])
def test_maps_on_the_grid_of_the_input_land_on_the_samples(
    slices: bool, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    size = 12 if slices else [6, 10, 12]
    options = {
        "data": scans, "settings": {"volumes.slices": slices, "volumes.size": size},
        "profile": "check", "out": tmp_path / "out", "threshold": "fixed:0.5",
    }  # fmt: skip
    for path in scans.glob("test/*/p?.nii.gz"):
        name = path.relative_to(scans).as_posix()
        mask = path.with_name(path.name.replace(".nii", "_mask.nii"))
        data = (
            np.asarray(nib.Nifti1Image.from_filename(mask).dataobj)
            if mask.exists()
            else np.zeros((12, 10, 6))
        )
        _save(tmp_path / "maps" / name, data.astype(np.float32))
    results = adbench.evaluate_maps(tmp_path / "maps", "volumes", name="perfect", **options)
    metrics = results.records[0]["metrics"]
    assert (metrics["pixel_dice"]["value"], metrics["image_auroc"]["value"]) == (1, 1)
    _save(tmp_path / "maps/test/tumour/p0.nii.gz", np.zeros((12, 10, 5), np.float32))
    with pytest.raises(DataError, match="has the shape 12 x 10 x 5; the samples have"):
        adbench.evaluate_maps(tmp_path / "maps", "volumes", name="perfect", **options)


def test_slices_are_stacked_to_a_volume_and_found_in_it_again(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"data": scans, "settings": {"volumes.size": 16}, "profile": "check"}
    results = adbench.run(
        "intensity", "volumes", out=tmp_path / "out", store=tmp_path / "store", device="cpu",
        executor="inline", baselines=False, progress=False, **options,
    )  # fmt: skip
    (path,) = results.paths()
    paths = adbench.export_maps(
        path, tmp_path / "maps", format="nifti", store=tmp_path / "store", data=scans
    )
    image = nib.Nifti1Image.from_filename(tmp_path / "maps/test/tumour/p1.nii.gz")
    assert image.shape == (16, 16, 6)
    assert image.header.get_zooms() == pytest.approx((1.92, 2.44, 1), abs=0.05)
    assert len(paths) == 1 + len(list((tmp_path / "maps").rglob("*.nii.gz")))
    copy = adbench.evaluate_maps(
        tmp_path / "maps", "volumes", name="copy", out=tmp_path / "copy", **options
    ).records[0]
    run = results.records[0]
    assert {part: copy[part] for part in EVALUATED} == {part: run[part] for part in EVALUATED}


def test_hdf5_of_another_program_is_read_by_key(masks: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        for path in masks.rglob("*.npy"):
            name = path.relative_to(masks).as_posix()
            file[name.removesuffix(".npy")] = np.load(path).astype(np.float64)
    record = evaluated(tmp_path / "maps.h5", 2, tmp_path / "out")
    assert (record["method"]["name"], record["metrics"]["pixel_ap"]["value"]) == ("maps", 1)
