"""Maps of a run out of the store, as files by the keys of samples, which `evaluate` reads again.

Letters: L levels, N samples, S one to three spatial axes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import nibabel as nib
import numpy as np

from ...datasets.base import DataError, Dataset
from ...datasets.io.hdf5_output import write_hdf5
from ..evaluation.load_predictions import load_predictions
from ..evaluation.predictions import Predictions
from ..experiments.matrix import PREDICTED_SPLITS
from ..experiments.record import SPLIT_NAMES
from ..experiments.splits import Splits
from ..leaderboard.records import Record
from ..store.artifact_store import Store
from ..store.atomic_files import atomic_write, describe_write_errors
from .map_files import Array
from .sample_grid import split_slice_key
from .score_table import SCORES_FILE, ScoreRow, scores_csv

FORMATS = {"npy": ".npy", "tiff": ".tif", "png": ".png", "nifti": ".nii.gz", "hdf5": ".h5"}
"""Formats of maps, and the ends of their files."""

AXES = {"npy": {1, 2, 3}, "tiff": {2}, "png": {2}, "nifti": {2, 3}, "hdf5": {1, 2, 3}}
"""How many axes the maps of a format may have; NIfTI takes slices stacked to volumes."""

WHITE = 65535
HDF5_FILE = "maps.h5"


class ExportError(ValueError):
    """Maps that cannot be exported: one line, why, and what would do.

    >>> import adbench
    >>> adbench.export_maps("nothing.json", "maps")
    Traceback (most recent call last):
    adbench.benchmark.external.export_maps.ExportError: nothing.json is no record: ...
    """

    exit_code = 2


@dataclass(frozen=True)
class _ExportedSplit:
    """Predictions of a split, and the levels that are exported, as rows of its maps."""

    name: str
    predictions: Predictions
    rows: Mapping[int, int]


def export_results(
    record: Record,
    dataset: Dataset,
    store: Store,
    folder: Path,
    *,
    format: str = "npy",
    all_levels: bool = False,
) -> list[Path]:
    """Write the maps and scores of a run's calibration, validation and test samples; return paths.

    A map is KEY.npy and so on, or an array of maps.h5; scores.csv has the method's own scores and
    the quality of reconstructions. All but PNG hold the maps to the bit. PNG holds 16 bits: 0 to
    65535 are 0 to the highest value of all maps.

    record: of the run        dataset: the record's, prepared       store: where its maps lie
    format: of FORMATS        all_levels: of every level, in level-…/; else of the chosen one

    Raises ExportError where the maps are not in the store or do not go into the format, DataError
    where the data has changed.

    Files of an earlier export of the same name are replaced; one that is interrupted is repeated.

    >>> from tempfile import TemporaryDirectory
    >>> import adbench
    >>> from adbench.benchmark.external.export_maps import export_results
    >>> from adbench.datasets.phantom import Phantom
    >>> sizes = {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 1}
    >>> with TemporaryDirectory() as folder:
    ...     results = adbench.run("pca", "phantom", settings={"phantom": sizes}, profile="check",
    ...                           out=folder, store=f"{folder}/store", executor="inline",
    ...                           baselines=False, progress=False)
    ...     record, store = results.records[0], Store(Path(folder, "store"))
    ...     to = Path(folder, "maps")
    ...     paths = export_results(record, Phantom(**sizes), store, to, format="hdf5")
    >>> [path.name for path in paths]
    ['scores.csv', 'maps.h5']
    """
    if format not in FORMATS:
        raise ExportError(f"no format {format!r}: one of {', '.join(FORMATS)}")
    splits = list(_load_splits(record, dataset, store, all_levels))
    axes = len(dataset.spec.shape)
    has_maps = all(split.predictions.map is not None for split in splits)
    if has_maps and axes not in AXES[format]:
        fit = ", ".join(name for name, numbers in AXES.items() if axes in numbers)
        raise ExportError(f"maps of {axes} axes do not go into {format}: use {fit}")
    paths = [folder / SCORES_FILE]
    if has_maps:
        paths += _write_maps(splits, folder, format, all_levels)
    atomic_write(paths[0], scores_csv(_score_rows(splits), levels=all_levels))
    return paths


def _load_splits(
    record: Record, dataset: Dataset, store: Store, all_levels: bool
) -> Iterator[_ExportedSplit]:
    chosen = record["level"]["chosen"]
    levels = sorted(map(int, record["sweep"])) if all_levels else [chosen]
    every = sorted(map(int, record["sweep"]))
    splits = Splits(dataset, limit=record["partial"])
    for name in PREDICTED_SPLITS:
        key = record["keys"].get(f"maps/{SPLIT_NAMES.get(name, name)}")
        artifact = None if key is None else store.read_metadata("maps", key)
        if artifact is None:
            raise ExportError(
                f"the maps of {SPLIT_NAMES.get(name, name)} are not in {store.root}: name the "
                "store, or do the same adbench run again"
            )
        expected = artifact.key_inputs["data"]["samples"][name]
        if len(splits[name]) and splits.digest(name) != expected:
            raise DataError(
                f"the samples of {SPLIT_NAMES.get(name, name)} are not those that were predicted: "
                "the data has changed since the run (--data)"
            )
        predictions = load_predictions(splits[name], artifact.path)
        yield _ExportedSplit(name, predictions, {level: every.index(level) for level in levels})


def _write_maps(
    splits: Sequence[_ExportedSplit], folder: Path, format: str, all_levels: bool
) -> list[Path]:
    if format == "hdf5":
        path = folder / HDF5_FILE
        with describe_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_hdf5(path) as file:
                for split, level, i, values in _maps(splits):
                    data = file.create_dataset(
                        _place(split.predictions.keys[i], level, all_levels), data=values
                    )
                    row = _score_row(split.predictions, split.rows[level], i)
                    for name, number in vars(row).items():
                        if number is not None:
                            data.attrs[name] = number
        return [path]
    if format == "nifti":
        return _write_volumes(splits, folder, all_levels)
    scale = 1.0
    if format == "png":
        scale = max((float(values.max()) for *_, values in _maps(splits)), default=0.0) or 1.0
    paths = []
    for split, level, i, values in _maps(splits):
        place = _place(split.predictions.keys[i], level, all_levels)
        path = folder / f"{place}{FORMATS[format]}"
        _write_image(path, values, format, scale)
        paths.append(path)
    return paths


def _write_image(path: Path, values: Array, format: str, scale: float) -> None:
    if format == "png":
        values = np.rint(np.clip(values / scale, 0, 1) * WHITE).astype(np.uint16)
    if format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, values)
        atomic_write(path, buffer.getvalue())
        return
    encoded, data = cv2.imencode(FORMATS[format], values)  # imwrite is silent about a full disk
    if not encoded:
        raise ExportError(f"{path} cannot be written as {format}")
    atomic_write(path, data.tobytes())


def _write_volumes(splits: Sequence[_ExportedSplit], folder: Path, all_levels: bool) -> list[Path]:
    """A volume per sample, or per subject of slices, on the grid of the samples, RAS+."""
    paths = []
    for split in splits:
        keys, spacing = split.predictions.keys, split.predictions.spacing
        subjects: dict[str, list[tuple[int, int]]] = {}
        for i, key in enumerate(keys):
            slice_of = split_slice_key(key)
            if split.predictions.map.ndim - 2 == 3:
                slice_of = key, 0
            elif slice_of is None:
                raise ExportError(f"{key} is no slice of a volume: nifti does not take it; use npy")
            subjects.setdefault(slice_of[0], []).append((slice_of[1], i))
        for level, row in split.rows.items():
            for subject, slices in subjects.items():
                planes = [
                    (index, np.asarray(split.predictions.map[row, i : i + 1], np.float32)[0])
                    for index, i in sorted(slices)
                ]
                data = planes[0][1] if planes[0][1].ndim == 3 else _stack(planes)
                path = folder / f"{_place(subject, level, all_levels)}.nii.gz"
                image = nib.Nifti1Image(data[:, ::-1, ::-1].T, _affine(spacing))
                atomic_write(path, _packed(image))
                paths.append(path)
    return paths


def _stack(planes: Sequence[tuple[int, Array]]) -> Array:
    """Slices as a volume, each at its index, zero between; in their order where an index is
    negative, a height rather than a place."""
    if planes[0][0] < 0:
        return np.stack([plane for _, plane in planes])
    volume = np.zeros((planes[-1][0] + 1, *planes[0][1].shape), np.float32)
    for index, plane in planes:
        volume[index] = plane
    return volume


def _affine(spacing: Sequence[float] | None) -> Array:
    steps = [1.0, 1.0, 1.0] if spacing is None else [*spacing[::-1], 1.0][:3]
    return np.diag([*steps, 1.0])


def _packed(image: nib.Nifti1Image) -> bytes:
    """The .nii.gz file of an image, the same bytes at any time."""
    import gzip

    return gzip.compress(image.to_bytes(), mtime=0)


def _maps(
    splits: Sequence[_ExportedSplit],
) -> Iterator[tuple[_ExportedSplit, int, int, Array]]:
    """Every map (*S): its split, level, and index in the split."""
    for split in splits:
        for level, row in split.rows.items():
            for i in range(len(split.predictions.keys)):
                values = split.predictions.map[row, i : i + 1]
                yield split, level, i, np.asarray(values, np.float32)[0]


def _score_rows(splits: Sequence[_ExportedSplit]) -> Iterator[tuple[int, str, ScoreRow]]:
    for split in splits:
        for level, row in split.rows.items():
            for i, key in enumerate(split.predictions.keys):
                yield level, key, _score_row(split.predictions, row, i)


def _score_row(predictions: Predictions, row: int, i: int) -> ScoreRow:
    def number(values: Any) -> float | None:
        value = float("nan") if values is None else float(values[row][i])
        return value if np.isfinite(value) else None

    score = number(predictions.score)
    assert score is not None  # a run checks that scores are finite
    return ScoreRow(score, number(predictions.psnr), number(predictions.ssim))


def _place(key: str, level: int, all_levels: bool) -> str:
    """The name of a sample's file without its end. Raises ExportError on a key that leaves the
    folder."""
    parts = PurePosixPath(key).parts
    if key.startswith("/") or ".." in parts or "\0" in key:
        raise ExportError(f"the key {key!r} is no name of a file; use --format hdf5")
    return f"level-{level}/{key}" if all_levels else key
