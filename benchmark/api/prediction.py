"""Prediction of new files with a detector of a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..leaderboard.records import Record, read_records
from ..prediction.detector_parts import DetectorParts, PredictionError, calibration_of_record
from ..prediction.predict import FilePredictions, OnProgress, ignore_progress, predict_files
from .detector import Detector
from .load import load


def predict(
    detector: Detector | str | Path,
    data: str | Path | Sequence[str | Path],
    to: str | Path,
    *,
    dataset: str | None = None,
    results: str | Path = "results",
    seed: int | None = None,
    rate: float = 0.05,
    maps: bool = True,
    dicom: bool = False,
    store: str | Path | None = None,
    root: str | Path | None = None,
    registry: Sequence[str | Path] = (),
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
) -> FilePredictions:
    """Predict new files with a detector, and write maps, masks, p-values and scores.csv.

    Files are read as the dataset read those that the detector was trained on. Maps of volumes are
    NIfTI on the grid of their file, those of pictures TIFF of their size with PNG overlays, those
    of arrays HDF5. Files that are done are not done again; problems of single files are in the
    result, and the others are done.

    detector: of `load`; or the file of a record; or a method's name, whose record is in `results`
    data: files, and folders that are searched for files        to: the folder to write to
    dataset, seed: which record of the method, where there are several
    rate: p-value up to which a file is called abnormal, the rate of false alarms
    maps: false writes scores alone
    dicom: folders hold DICOM series, which are volumes (needs pydicom)
    store, registry, device: as for `load`; root: its `data`
    on_progress: (name, parts done, parts in all), called as work goes on
    Raises DetectorError, PredictionError, StoreError; DataError where the detector reads no files.

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from PIL import Image
    >>> import adbench
    >>> names = [f"data/train/good/{k}.png" for k in range(6)]
    >>> names += ["data/test/good/6.png", "data/test/spot/7.png", "new.png"]
    >>> sizes = {"size": 8, "channels": 1, "fractions": [0.1, 0.9, 0, 0]}
    >>> options = {"settings": {"folder": sizes}, "profile": "check", "baselines": False,
    ...            "executor": "inline", "progress": False}
    >>> rng = np.random.default_rng(0)
    >>> with TemporaryDirectory() as folder:
    ...     for name in names:
    ...         pixels = rng.integers(0, 100, (8, 8), np.uint8)
    ...         if name in names[-2:]:
    ...             pixels[2:4, 2:4] = 255  # a spot that the method `intensity` calls abnormal
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.fromarray(pixels).save(path)
    ...     results = adbench.run("intensity", "folder", data=f"{folder}/data", out=folder,
    ...                           store=f"{folder}/store", **options)
    ...     predictions = adbench.predict(results.paths()[0], f"{folder}/new.png", f"{folder}/to",
    ...                                   store=f"{folder}/store", rate=0.2)
    ...     mask = np.asarray(Image.open(f"{folder}/to/masks/new.png"))
    >>> predictions.to_frame()[["file", "score", "decision"]].values.tolist(), mask[2, 2].item()
    ([['new.png', 1.0, 'abnormal']], 255)
    """
    if not isinstance(detector, Detector):
        record = find_record(detector, results=results, dataset=dataset, seed=seed)
        detector = load(record, store=store, data=root, registry=registry, device=device)
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    if not 0 < rate < 1:
        raise PredictionError(f"the rate of false alarms lies between 0 and 1, not {rate:g}")
    return predict_files(
        detector_parts(detector), [Path(path) for path in paths], Path(to),
        rate=rate, maps=maps, dicom=dicom, on_progress=on_progress,
    )  # fmt: skip


def detector_parts(detector: Detector) -> DetectorParts:
    """What prediction takes from a detector.

    >>> from tempfile import TemporaryDirectory
    >>> import adbench
    >>> sizes = {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}
    >>> with TemporaryDirectory() as folder:
    ...     results = adbench.run("pca", "phantom", settings={"phantom": sizes}, profile="check",
    ...                           out=folder, store=f"{folder}/store", executor="inline",
    ...                           baselines=False, progress=False)
    ...     detector = adbench.load(results.paths()[0], store=f"{folder}/store")
    >>> parts = detector_parts(detector)
    >>> parts.name, parts.images.groups, parts.identity["dataset"]  # two calibration samples
    ('pca', 2, 'phantom')
    """
    record = detector.record
    images, pixels = calibration_of_record(record)
    return DetectorParts(
        name=detector.name,
        method=detector.method,
        dataset=detector.dataset,
        level=detector.level,
        threshold=detector.threshold,
        protocol=detector.protocol,
        context=detector.context,
        images=images,
        pixels=pixels,
        identity={
            "method": record["method"]["name"],
            "dataset": record["dataset"]["name"],
            "checkpoint": record["keys"]["checkpoint"],
            "record": record["keys"]["record"],
            "seed": record["seed"],
            "level": detector.level,
            "threshold": detector.threshold,
            "protocol": record["protocol"]["id"],
            "numerics": detector.context.numerics,
        },
    )


def find_record(
    detector: str | Path,
    *,
    results: str | Path = "results",
    dataset: str | None = None,
    seed: int | None = None,
) -> Path:
    """The file of a record: the one named, or that of a method in a folder of results.

    Raises PredictionError where none or several fit, with the names to choose from.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "records").mkdir()
    ...     for seed in (0, 1):
    ...         record = example_record("AnoDDPM", seed=seed)
    ...         path = Path(folder, "records", record.pop("file"))
    ...         _ = path.write_text(json.dumps(record))
    ...     find_record("anoddpm", results=folder, seed=1).name
    'anoddpm-brats-1.json'
    """
    path = Path(detector)
    if path.is_file():
        return path
    if path.suffix == ".json" or path.parent != Path():
        raise PredictionError(f"{path} is no file of a record, such as results/records/X.json")
    folder = Path(results) / "records"
    records = read_records(folder) if folder.is_dir() else []
    usable = [record for record in records if record["status"] == "ok"]
    matching = [
        record
        for record in usable
        if _fits(record, str(detector), dataset) and seed in (None, record["seed"])
    ]
    if len(matching) == 1:
        return folder / str(matching[0]["file"])
    what = f"{detector}" + (f" on {dataset}" if dataset else "")
    if matching:
        files = ", ".join(sorted(str(folder / str(record["file"])) for record in matching))
        raise PredictionError(f"{len(matching)} records are of {what}: name one of {files}")
    names = sorted({f"{_names(record)[0]} on {_names(record)[1]}" for record in usable})
    raise PredictionError(
        f"no record in {folder} is of {what}; there are {', '.join(names) or 'none'} (--results)"
    )


def _names(record: Record) -> tuple[Any, Any]:
    return record["method"]["name"], record["dataset"]["name"]


def _fits(record: Record, method: str, dataset: str | None) -> bool:
    name, data = _names(record)
    return name == method and dataset in (None, data, str(data).partition("/")[0])
