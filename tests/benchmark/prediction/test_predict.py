"""A detector on new files: their maps, decisions, mistakes, and going on after a kill."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

import adbench
from adbench.benchmark.cli.main import app
from adbench.benchmark.evaluation.hdf5_arrays import read_array
from adbench.benchmark.leaderboard.records import record_seal
from adbench.benchmark.prediction import predict as module
from adbench.benchmark.store.artifact_store import Store
from dicom_series import COLUMNS, ROWS, SLICES, write_series
from scans import SHAPE, affine_of, brain, read_nifti, write_scan, write_tree


def trained(
    folder: Path,
    method: str,
    dataset: str,
    profile: str = "tiny",
    levels: Sequence[int] | None = None,
    **settings: Any,
) -> Path:
    """The record of a method trained on folder/data."""
    settings = {name if "." in name else f"{dataset}.{name}": v for name, v in settings.items()}
    results = adbench.run(
        method, dataset, data=folder / "data", out=folder / "results", store=folder / "store",
        profile=profile, levels=levels, baselines=False, progress=False, settings=settings,
    )  # fmt: skip
    return results.paths()[0]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_tree(folder / "data")
    return folder


@pytest.fixture(scope="module")
def scan_record(scans: Path) -> Path:
    return trained(scans, "intensity", "volumes", size=12, every=1)


@pytest.fixture(scope="module")
def picture_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on pictures of several sizes, as photographs of a product are."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        part = "train/good" if i < 22 else "test/good"
        write_picture(folder / f"data/{part}/{i}.png", i)
    write_picture(folder / "data/test/spot/0.png", 50, spot=(20, 30))
    fractions = [0.1, 0.9, 0.0, 0.0]
    return trained(
        folder, "intensity", "folder", size=16, channels=None, range="train", fractions=fractions
    )


def write_picture(
    path: Path, seed: int, *, size: tuple[int, int] = (40, 56), spot: tuple[int, int] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.indices(size)
    pixels = np.random.default_rng(seed).normal(90 + 10 * rows / size[0], 3)
    if spot is not None:
        pixels[(rows - spot[0]) ** 2 + (columns - spot[1]) ** 2 < (min(size) / 8) ** 2] = 230
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def stored_maps(record: Path, folder: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Maps and scores of the test split in the store at the chosen level, by the samples' keys."""
    detector = adbench.load(record, store=folder / "store", data=folder / "data")
    key = detector.record["keys"]["maps/test"]
    test = detector.dataset.test()
    with h5py.File(Store(folder / "store").folder("maps", key) / "maps.h5") as file:
        level = read_array(file, "levels").tolist().index(detector.level)
        maps, scores = read_array(file, "map")[level], read_array(file, "score")[level]
        values = zip(maps, scores.tolist(), strict=True)
        return {test[i].key: value for i, value in enumerate(values)}


def files_below(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("below", ["", "test", "test/lesion"])
def test_maps_of_the_test_split_are_those_of_the_store_bit_for_bit(
    scans: Path, tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a method that adds noise, by the key of a sample, at one level of the two of the run."""
    settings: dict[str, Any] = {
        "anoddpm.noise": "gaussian",
        "anoddpm.sampling_steps": 3,
        "size": 8,
        "every": 4,
    }
    record = trained(scans, "anoddpm", "volumes", "check", [100], **settings)
    raw: dict[str, tuple[np.ndarray, float]] = {}
    original = module.postprocess

    def spy(samples: Sequence[adbench.Sample], score: Any, maps: Any, *rest: Any) -> Any:
        keys = [sample.key for sample in samples]
        raw.update(zip(keys, zip(maps, score.tolist(), strict=True), strict=True))
        return original(samples, score, maps, *rest)

    monkeypatch.setattr(module, "postprocess", spy)
    store = scans / "store"
    adbench.predict(record, scans / "data" / below, tmp_path / "to", store=store)
    stored = {k: v for k, v in stored_maps(record, scans).items() if k.startswith(below)}
    assert len(stored) >= 2 and stored.keys() <= raw.keys()
    for key, (map_, score) in stored.items():
        assert np.array_equal(map_, raw[key][0]) and score == raw[key][1]


def test_maps_of_volumes_lie_on_the_grid_of_their_file(
    scans: Path, scan_record: Path, tmp_path: Path
) -> None:
    for seed in range(8):
        write_scan(tmp_path / f"new/ward-{seed % 2}/p{seed}.nii.gz", seed, lesion=True)
    outcome = adbench.predict(scan_record, tmp_path / "new", tmp_path / "to", store=scans / "store")
    assert not outcome.problems and len(outcome.rows) == 8
    for seed in range(8):
        name = f"ward-{seed % 2}/p{seed}.nii.gz"
        source = read_nifti(tmp_path / "new" / name)
        maps, masks, p = (
            read_nifti(tmp_path / "to" / kind / name) for kind in ("maps", "masks", "p_values")
        )
        for image in (maps, masks, p):
            assert image.shape == SHAPE and np.array_equal(affine_of(image), affine_of(source))
        values = maps.get_fdata()
        centre = np.argwhere(brain(seed, lesion=True)[1]).mean(0)
        bright = np.where(values > 0.7 * values.max(), values, 0)
        middle = [(i * bright).sum() / bright.sum() for i in np.indices(SHAPE)]
        assert np.abs(centre - middle).max() < 1, "the lesion's centre, within a voxel"
        assert 0 < p.get_fdata().min() <= p.get_fdata().max() == 1
        assert 0 < masks.get_fdata().mean() < 0.5


def test_maps_of_pictures_have_the_size_of_their_picture(
    picture_record: Path, tmp_path: Path
) -> None:
    sizes = {"a.png": (40, 56), "b.png": (73, 31), "c.bmp": (16, 16), "d.tif": (200, 90)}
    for name, size in sizes.items():
        write_picture(tmp_path / "new" / name, 3, size=size)
    spot = (30, 60)
    write_picture(tmp_path / "new/e.png", 3, size=(100, 90), spot=spot)
    store = picture_record.parents[2] / "store"
    outcome = adbench.predict(picture_record, tmp_path / "new", tmp_path / "to", store=store)
    assert not outcome.problems, outcome.problems
    for name, size in sizes.items():
        stem = name.partition(".")[0]
        values = np.asarray(Image.open(tmp_path / f"to/maps/{stem}.tiff"))
        assert values.shape == size and values.dtype == np.float32
        assert np.asarray(Image.open(tmp_path / f"to/masks/{stem}.png")).shape == size
        overlay = Image.open(tmp_path / f"to/overlays/{stem}.png")
        assert overlay.height == size[0] and overlay.width > size[1], "and a colour bar"
    values = np.asarray(Image.open(tmp_path / "to/maps/e.tiff"))
    peak = np.unravel_index(values.argmax(), values.shape)
    assert np.abs(np.subtract(peak, spot)).max() <= 100 / 16 + 1, "within a pixel of the detector"
    frame = outcome.to_frame().set_index("file")
    assert frame.loc["e.png", "decision"] == "abnormal"
    assert frame.loc["e.png", "p_value"] == pytest.approx(1 / 21, abs=1e-3)
    assert frame.loc["a.png", "decision"] == "normal"


def test_complex_recordings_give_one_map_per_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    x = (rng.normal(size=(40, 32)) + 1j * rng.normal(size=(40, 32))).astype(np.complex64)
    split = ["train"] * 24 + ["held_out"] * 8 + ["test"] * 8
    with h5py.File(tmp_path / "data/frames.h5", "w") as file:
        file["x"], file["label"], file["split"] = x, [0] * 36 + [1] * 4, split
        file["group"] = [f"g{i}" for i in range(40)]
    record = trained(tmp_path, "pca", "hdf5", range="train")
    loud = x[:5].copy()
    loud[2, 4:28] *= 9
    (tmp_path / "new").mkdir()
    with h5py.File(tmp_path / "new/one.h5", "w") as file:
        file["x"] = loud
    with h5py.File(tmp_path / "new/short.h5", "w") as file:
        file["x"] = x[:5, :31]
    outcome = adbench.predict(
        record, tmp_path / "new", tmp_path / "to", store=tmp_path / "store", rate=0.2
    )
    assert [str(problem) for problem in outcome.problems] == [
        "short.h5 has samples of (2, 31), the detector takes (2, 32)"
    ]
    with h5py.File(tmp_path / "to/maps/one.h5") as file:
        for field in ("map", "mask", "p_value"):
            assert read_array(file, field).shape == (5, 32)
        keys = [key.decode() for key in read_array(file, "key")]
        assert keys == [f"one/{i:06d}" for i in range(5)]
        scores = read_array(file, "score")
    rows = [row for row in outcome.rows if row["file"] == "one.h5"]
    assert [row["score"] for row in rows] == scores.tolist() and scores.argmax() == 2
    assert rows[2]["decision"] == "abnormal" and rows[2]["p_value"] == pytest.approx(1 / 9)
    again = adbench.load(record, store=tmp_path / "store", data=tmp_path / "data")
    stored = stored_maps(record, tmp_path)
    adbench.predict(again, tmp_path / "data/frames.h5", tmp_path / "same")
    with h5py.File(tmp_path / "same/maps/frames.h5") as file:
        maps = read_array(file, "map")
    for key, (map_, _) in stored.items():
        assert np.array_equal(maps[int(key.partition("/")[2])], map_)


def test_an_interrupted_file_of_many_samples_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adbench.datasets.hdf5_file.MAX_SAMPLES", 4)
    x = np.random.default_rng(0).random((30, 1, 16)).astype(np.float32)
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data/signals.h5", "w") as file:
        file["x"], file["label"] = x, [0] * 25 + [1] * 5
    record = trained(tmp_path, "intensity", "hdf5")
    original, calls = module.predict, list[int]()

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        calls.append(len(arguments[1]))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(path, *arguments, **options)

    monkeypatch.setattr(module, "predict", counted)

    def command(to: str) -> adbench.FilePredictions:
        return adbench.predict(record, tmp_path / "data", tmp_path / to, store=tmp_path / "store")

    with pytest.raises(KeyboardInterrupt):
        command("cut")
    assert not list((tmp_path / "cut/maps").glob("*.h5")), "nothing half-written"
    done: list[tuple[int, int]] = []
    adbench.predict(
        record, tmp_path / "data", tmp_path / "cut", store=tmp_path / "store",
        on_progress=lambda name, count, total: done.append((count, total)),
    )  # fmt: skip
    assert calls == [4] * 8 + [2], "eight parts, of which the sixth was begun twice"
    assert done[0] == (0, 8) and done[-1] == (8, 8)
    monkeypatch.setattr(module, "predict", original)
    command("whole")
    assert files_below(tmp_path / "cut") == files_below(tmp_path / "whole")


def test_two_predictions_into_one_folder_do_not_mix(
    scans: Path, scan_record: Path, tmp_path: Path
) -> None:
    write_scan(tmp_path / "p.nii.gz", 1)
    (tmp_path / "to").mkdir()
    with (
        FileLock(tmp_path / "to/.lock"),
        pytest.raises(ValueError, match="another adbench predict writes to"),
    ):
        adbench.predict(scan_record, tmp_path / "p.nii.gz", tmp_path / "to", store=scans / "store")


def test_a_killed_prediction_goes_on_and_leaves_the_same_files(
    scans: Path, scan_record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 as a mask is written; what was done is not done again."""
    for seed in range(12):
        write_scan(tmp_path / f"new/p{seed:02}.nii.gz", seed)

    def command(to: str) -> adbench.FilePredictions:
        return adbench.predict(
            scan_record, tmp_path / "new", tmp_path / to, store=scans / "store", device="cpu"
        )

    whole = command("whole")
    assert whole.computed == 12
    child = os.fork()
    if child == 0:
        from adbench.benchmark.prediction import outputs

        atomic = outputs.atomic_path

        def fatal(path: Path) -> Any:
            if path.name == "p09.nii.gz" and path.parent.name == "masks":
                os.kill(os.getpid(), signal.SIGKILL)
            return atomic(path)

        outputs.atomic_path = fatal
        command("cut")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "cut/maps/p09.nii.gz").exists()
    assert not (tmp_path / "cut/scores.csv").exists()
    with (tmp_path / "cut/files.jsonl").open("ab") as journal:
        journal.write(b'{"name": "p09.nii.gz", "stamp": "half a li')
    resumed = command("cut")
    assert 3 <= resumed.computed < 12
    assert files_below(tmp_path / "cut") == files_below(tmp_path / "whole")
    assert command("cut").computed == 0
    (tmp_path / "cut/maps/p03.nii.gz").unlink()
    assert command("cut").computed == 1, "one whose map is gone is done again"
    assert files_below(tmp_path / "cut") == files_below(tmp_path / "whole")


def bad_files(folder: Path) -> None:
    write_scan(folder / "good.nii.gz", 3)
    write_scan(folder / "cut.nii.gz", 4)
    whole = (folder / "cut.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.nii.gz").write_text("no volume")
    voxels = np.ones((8, 8, 8), np.float32)
    voxels[2, 2, 2] = np.nan
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(folder / "nan.nii.gz")
    nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)).to_filename(folder / "air.nii.gz")
    nib.Nifti1Image(np.ones((8, 8, 8, 2), np.float32), np.eye(4)).to_filename(folder / "two.nii.gz")


def test_every_bad_file_is_one_line_and_the_others_are_done(
    scans: Path, scan_record: Path, tmp_path: Path
) -> None:
    bad_files(tmp_path / "new")
    arguments = ["predict", str(scan_record), "--to", str(tmp_path / "to")]
    arguments += ["--data", str(tmp_path / "new"), "--data", str(tmp_path / "none.nii.gz")]
    result = CliRunner().invoke(app, [*arguments, "--store", str(scans / "store")])
    assert result.exit_code == 5, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    for name in ("cut", "text", "nan", "air", "two", "none"):
        assert sum(f"{name}.nii.gz" in line or f"/{name} " in line for line in lines) == 1, lines
    assert len(lines) == 6
    with (tmp_path / "to/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows if row["score"]] == ["new/good.nii.gz"]
    assert sum(bool(row["problem"]) for row in rows) == 6
    assert (tmp_path / "to/maps/new/good.nii.gz").exists()
    assert [p.name for p in (tmp_path / "to/maps/new").iterdir()] == ["good.nii.gz"]


def test_wrong_modalities_colours_and_endings_are_named(
    scans: Path, picture_record: Path, tmp_path: Path
) -> None:
    for i in range(8):
        for role in ("t1", "t2"):
            write_scan(tmp_path / f"data/train/normal/n{i}_{role}.nii.gz", i)
    for i in range(2):
        for role in ("t1", "t2"):
            write_scan(tmp_path / f"data/test/normal/t{i}_{role}.nii.gz", 30 + i)
            write_scan(tmp_path / f"data/test/bad/l{i}_{role}.nii.gz", 60 + i, lesion=True)
    record = trained(tmp_path, "intensity", "volumes", size=8, modalities=["t1", "t2"])
    write_scan(tmp_path / "new/a_t1.nii.gz", 1)
    write_scan(tmp_path / "new/a_t2.nii.gz", 1)
    write_scan(tmp_path / "new/b_t1.nii.gz", 2)
    write_scan(tmp_path / "new/c.nii.gz", 2)
    store = tmp_path / "store"
    outcome = adbench.predict(record, tmp_path / "new", tmp_path / "to", store=store)
    assert [row["file"] for row in outcome.rows if "score" in row] == ["a_t1.nii.gz"]
    assert sorted(map(str, outcome.problems)) == [
        "b: missing t2; found b_t1.nii.gz",
        "c.nii.gz ends in none of t1, t2",
    ]
    alone = adbench.predict(record, tmp_path / "new/a_t2.nii.gz", tmp_path / "2", store=store)
    assert not alone.problems, "its other modality lies beside it"
    Image.new("RGB", (20, 20), (200, 10, 10)).save(tmp_path / "red.png")
    Image.new("L", (20, 20), 90).save(tmp_path / "half.png")
    half = (tmp_path / "half.png").read_bytes()
    (tmp_path / "half.png").write_bytes(half[:40])
    outcome = adbench.predict(
        picture_record, [tmp_path / "red.png", tmp_path / "half.png"], tmp_path / "3",
        store=picture_record.parents[2] / "store",
    )  # fmt: skip
    texts = [str(problem) for problem in outcome.problems]
    assert len(texts) == 2 and "red.png has 3 channels, others 1" in texts[0]
    assert "half.png" in texts[1]


def test_a_dicom_series_is_a_volume(scans: Path, scan_record: Path, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(1, 400, (SLICES, ROWS, COLUMNS), np.uint16)
    write_series(tmp_path / "ward/p1", voxels)
    command = ["predict", str(scan_record), "--data", str(tmp_path / "ward"), "--dicom"]
    command += ["--to", str(tmp_path / "to"), "--store", str(scans / "store")]
    for already in ("", ", 1 before"):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0 and already in result.output, result.output
    source = read_nifti(tmp_path / "to/inputs/p1.nii.gz")
    maps = read_nifti(tmp_path / "to/maps/p1.nii.gz")
    assert maps.shape == (COLUMNS, ROWS, SLICES) and np.array_equal(
        affine_of(maps), affine_of(source)
    )


def test_a_detector_reads_new_volumes_into_memory(
    scans: Path, scan_record: Path, tmp_path: Path
) -> None:
    write_scan(tmp_path / "p.nii.gz", 1)
    detector = adbench.load(scan_record, store=scans / "store")
    prediction = detector.predict(tmp_path / "p.nii.gz")
    rows = adbench.predict(detector, tmp_path / "p.nii.gz", tmp_path / "to").rows
    assert rows[0]["score"] == prediction.scores.max() and prediction.keys[0].startswith("p/z")
    with pytest.raises(ValueError, match=r"none\.nii: is not there"):
        detector.predict(tmp_path / "none.nii")


def test_a_method_is_found_by_its_name(scans: Path, scan_record: Path, tmp_path: Path) -> None:
    results = scan_record.parents[1]
    write_scan(tmp_path / "p.nii.gz", 1)
    store = scans / "store"
    by_name = adbench.predict(
        "intensity", tmp_path / "p.nii.gz", tmp_path / "a", results=results, store=store
    )
    by_file = adbench.predict(scan_record, tmp_path / "p.nii.gz", tmp_path / "b", store=store)
    assert by_name.rows == by_file.rows
    with pytest.raises(ValueError, match=r"is of intensty; there are .*intensity on volumes"):
        adbench.predict("intensty", tmp_path, tmp_path / "c", results=results)
    with pytest.raises(ValueError, match=r"no record in .* there are none"):
        adbench.predict("intensity", tmp_path, tmp_path / "c", results=tmp_path)
    copy = scan_record.with_name("again.json")
    again = json.loads(scan_record.read_text()) | {"seed": 7}
    copy.write_text(json.dumps(again | {"seal": record_seal(again)}))
    try:
        with pytest.raises(ValueError, match=r"2 records are of intensity: name one of .*again"):
            adbench.predict("intensity", tmp_path, tmp_path / "c", results=results)
    finally:
        copy.unlink()


def test_a_folder_holds_the_predictions_of_one_detector(
    scans: Path, scan_record: Path, picture_record: Path, tmp_path: Path
) -> None:
    write_scan(tmp_path / "new/p.nii.gz", 1)
    adbench.predict(scan_record, tmp_path / "new", tmp_path / "to", store=scans / "store")
    before = files_below(tmp_path / "to")
    with pytest.raises(ValueError, match="holds predictions of another detector"):
        adbench.predict(
            picture_record, tmp_path / "new", tmp_path / "to",
            store=picture_record.parents[2] / "store",
        )  # fmt: skip
    assert files_below(tmp_path / "to") == before
    write_scan(tmp_path / "more/q.nii.gz", 2)
    outcome = adbench.predict(
        scan_record, tmp_path / "more", tmp_path / "to", store=scans / "store"
    )
    assert [row["file"] for row in outcome.rows] == ["p.nii.gz", "q.nii.gz"], "it is added to"


def test_a_detector_of_made_up_data_reads_no_files(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"train": 8, "held_out": 4, "val": 4, "test": 4}
    record = trained(tmp_path, "intensity", "phantom", shape=[8, 8], **sizes)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(adbench.DataError, match=r"trained on Phantom, which reads no files.*load"):
        adbench.predict(record, tmp_path / "a.png", tmp_path / "to", store=tmp_path / "store")


def test_the_range_of_the_training_images_is_stored_with_the_checkpoint(
    picture_record: Path, tmp_path: Path
) -> None:
    """`range=train` scales new pictures as those that the detector was trained on, without them."""
    folder = picture_record.parents[2]
    detector = adbench.load(picture_record, store=folder / "store")
    with_data = adbench.load(picture_record, store=folder / "store", data=folder / "data")
    assert detector.dataset.preprocessing_state() == with_data.dataset.preprocessing_state()
    low, high = detector.dataset.preprocessing_state()["limits"]
    pixels = [np.asarray(Image.open(folder / f"data/train/good/{i}.png")) for i in range(22)]
    assert min(map(np.min, pixels)) <= low < high <= max(map(np.max, pixels))


def test_nifti_files_are_compressed_without_the_time(
    scans: Path, scan_record: Path, tmp_path: Path
) -> None:
    write_scan(tmp_path / "p.nii.gz", 1)
    adbench.predict(scan_record, tmp_path / "p.nii.gz", tmp_path / "to", store=scans / "store")
    packed = (tmp_path / "to/maps/p.nii.gz").read_bytes()
    assert packed[4:8] == bytes(4) and gzip.decompress(packed)
