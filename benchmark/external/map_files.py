"""Maps in files, each found by the key of its sample, and reading one of them.

A folder holds a file per sample, KEY.npy, KEY.tif, KEY.png or KEY.nii.gz, where the `/` of a key
make folders; an HDF5 file holds an array per sample under its key. Maps at several noise levels lie
under level-100/, level-250/ and so on. A NIfTI file may hold all slices of a subject.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...datasets.base import DataError
from ...datasets.io.images import read_image
from ...datasets.io.nifti import Volume, read_volume
from ...datasets.io.npy import read_npy_array
from ..evaluation.hdf5_arrays import hdf5_dataset
from .score_table import SCORES_FILE, ScoreRow, read_scores

Array = np.ndarray[Any, Any]

SUFFIXES = {
    ".nii.gz": "nifti", ".nii": "nifti", ".npy": "npy", ".tif": "tiff", ".tiff": "tiff",
    ".png": "png",
}  # fmt: skip
"""Kinds of files that hold a map, by the end of their name."""

HDF5_SUFFIXES = (".h5", ".hdf5")
LEVEL_FOLDER = re.compile(r"level-(\d{1,4})/(.+)", re.DOTALL)
FORMATS = "NAME.npy, .tif, .png or .nii.gz for each sample, a file .h5, or a .csv of scores"


@dataclass(frozen=True)
class MapFile:
    """Where one map is stored, as it is named in errors: a file, or an array in an HDF5 file.

    kind: npy, tiff, png, nifti or hdf5        item: its name in an HDF5 file

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.external.map_files import MapFile
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "p1.npy")
    ...     np.save(path, np.array([0.25, np.inf]))
    ...     MapFile(path, "npy", "p1.npy").read()
    Traceback (most recent call last):
    adbench.datasets.base.DataError: p1.npy holds 1 values that are NaN or infinite
    """

    path: Path
    kind: str
    name: str
    item: str = ""

    def read(self) -> Array | Volume:
        """The map as float32, of any shape; of a NIfTI file the volume.

        A map of an image file holds the stored numbers, of a TIFF usually floats, of a PNG integers
        to 65535. Raises DataError on a damaged file, and on values that are no finite numbers.
        """
        if self.kind == "nifti":
            return read_volume(self.path, name=self.name)
        if self.kind == "hdf5":
            with _open_hdf5(self.path) as file:
                values = np.asarray(hdf5_dataset(file, self.item)[()])
        elif self.kind == "npy":
            values = read_npy_array(self.path.read_bytes(), self.name)
        else:
            image = read_image(self.path.read_bytes(), self.name, limits=(0.0, 1.0)).numpy()
            if len(image) != 1:
                raise DataError(f"{self.name} has {len(image)} colours; a map has one number each")
            values = image[0]
        if values.dtype.kind not in "biuf":
            raise DataError(f"{self.name} holds {values.dtype}, no numbers of a map")
        values = values.astype(np.float32)
        if bad := int((~np.isfinite(values)).sum()):
            raise DataError(f"{self.name} holds {bad} values that are NaN or infinite")
        return values


@dataclass(frozen=True)
class ExternalResults:
    """Maps and scores of another program by level and key; nothing is read of a map yet.

    source: the name of the file or folder       digest: of the content of all files, 32 hex digits
    levels: ascending, [0] where none are named
    maps, scores: of each level, by key; no scores at all where there is no table
    left_out: files that hold no map and are no table of scores

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for level in (250, 100):
    ...         Path(folder, f"level-{level}").mkdir()
    ...         np.save(Path(folder, f"level-{level}/p1.npy"), np.zeros((4, 4)))
    ...     _ = Path(folder, "notes.txt").write_text("")
    ...     results = find_results(Path(folder))
    >>> results.levels, results.maps[100]["p1"].name, results.scores, results.left_out
    ([100, 250], 'level-100/p1.npy', {}, ['notes.txt'])
    """

    source: str
    digest: str
    levels: list[int]
    maps: Mapping[int, Mapping[str, MapFile]]
    scores: Mapping[int, Mapping[str, ScoreRow]]
    left_out: list[str]


def find_results(path: Path, scores: Path | None = None) -> ExternalResults:
    """The maps and scores in a folder, in an HDF5 file, or in a table of scores alone.

    path: a folder, .h5 or .csv        scores: a table; None for scores.csv in the folder, if any
    Raises DataError where there are none, where two files are of one sample, and where some are of
    a level and others of none.

    >>> import numpy as np
    >>> Path("maps/p1").mkdir(parents=True)
    >>> np.save("maps/p1/z003.npy", np.zeros((4, 4)))
    >>> results = find_results(Path("maps"))
    >>> results.levels, list(results.maps[0])
    ([0], ['p1/z003'])
    """
    problems: list[str] = []
    files: list[Path] = []
    entries: list[tuple[str, MapFile]] = []
    left_out: list[str] = []
    if not path.exists():
        raise DataError(f"{path} is not there: --maps takes a folder with {FORMATS}")
    if path.is_dir():
        entries, left_out = _folder_maps(path)
        if scores is None and (path / SCORES_FILE).is_file():
            scores = path / SCORES_FILE
        files = list(dict.fromkeys(entry.path for _, entry in entries))
    elif path.suffix.lower() in HDF5_SUFFIXES:
        entries, files = list(_hdf5_maps(path)), [path]
    elif path.suffix.lower() == ".csv" and scores is None:
        scores = path
    else:
        raise DataError(f"{path} is no folder, .h5 or .csv: --maps takes a folder with {FORMATS}")
    maps, map_problems = _by_level(entries)
    problems += map_problems
    rows: dict[int, dict[str, ScoreRow]] = {}
    if scores is not None:
        rows, score_problems = read_scores(scores)
        problems += score_problems
        files.append(scores)
    elif path.suffix.lower() in HDF5_SUFFIXES:
        rows = _hdf5_scores(path, maps)
    if not problems and not maps and not rows:
        raise DataError(f"{path} holds no map and no score: it takes {FORMATS}", left_out[:8])
    if problems:
        raise DataError(f"{path} cannot be evaluated", problems)
    levels = sorted(maps or rows)
    return ExternalResults(path.name, _digest(path, files), levels, maps, rows, left_out)


def _folder_maps(folder: Path) -> tuple[list[tuple[str, MapFile]], list[str]]:
    maps, left_out = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in Path(name).parts) or not path.is_file():
            continue
        suffix = next((end for end in SUFFIXES if name.lower().endswith(end)), None)
        if suffix is not None:
            maps.append((name[: -len(suffix)], MapFile(path, SUFFIXES[suffix], name)))
        elif name != SCORES_FILE:
            left_out.append(name)
    return maps, left_out


def _hdf5_maps(path: Path) -> Iterator[tuple[str, MapFile]]:
    names: list[str] = []
    with _open_hdf5(path) as file:
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    for name in names:
        yield name, MapFile(path, "hdf5", f"{path.name}:{name}", name)


def _hdf5_scores(
    path: Path, maps: Mapping[int, Mapping[str, MapFile]]
) -> dict[int, dict[str, ScoreRow]]:
    """Scores that are attributes of the arrays of an HDF5 file, where any has one."""
    rows: dict[int, dict[str, ScoreRow]] = {}
    with _open_hdf5(path) as file:
        for level, entries in maps.items():
            for key, entry in entries.items():
                attributes = hdf5_dataset(file, entry.item).attrs
                if "score" in attributes:
                    names = [name for name in ("score", "psnr", "ssim") if name in attributes]
                    numbers = {name: float(np.asarray(attributes[name])) for name in names}
                    rows.setdefault(level, {})[key] = ScoreRow(**numbers)
    return rows


def _by_level(
    entries: list[tuple[str, MapFile]],
) -> tuple[dict[int, dict[str, MapFile]], list[str]]:
    """Maps by level and key, and what cannot be told apart."""
    maps: dict[int, dict[str, MapFile]] = {}
    problems = []
    named = [LEVEL_FOLDER.fullmatch(name) for name, _ in entries]
    for (name, entry), match in zip(entries, named, strict=True):
        if match is None and any(named):
            problems.append(f"{entry.name} is of no level, and others lie in level-…/")
            continue
        level, key = (int(match[1]), match[2]) if match else (0, name)
        other = maps.setdefault(level, {}).setdefault(key, entry)
        if other is not entry:
            problems.append(f"{entry.name} and {other.name} are maps of the same sample")
        if level > 1000:
            problems.append(f"{entry.name}: a noise level lies in 0..1000")
    return maps, problems


def _open_hdf5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataError(f"{path.name} is no HDF5 file, or is damaged ({error})") from None


def _digest(root: Path, files: list[Path]) -> str:
    """A hash of the names and the content of all files."""
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        with path.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]
