"""Matching of maps and scores to the samples of a dataset by key, and their predictions on disk.

Nothing is dropped: what is missing, left over, of a wrong shape or not finite is a problem with its
name, and all problems are listed at once.

Letters: L levels, N samples, S one to three spatial axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.base import DataError, Dataset, Sample, Split
from ...datasets.io.hdf5_output import write_hdf5
from ..evaluation.maps_file import create_maps
from ..evaluation.tile_stitching import TiledImages, samples_without_images
from ..experiments.record import SPLIT_NAMES
from ..figures.gallery import gallery_samples
from ..registry.imports import did_you_mean
from .map_files import Array, ExternalResults, MapFile
from .sample_grid import SampleGrid, split_slice_key
from .score_table import ScoreRow

MAX_NAMES = 5000
"""Keys that a key is compared with at most, to guess what was meant."""

MAX_GUESSES = 20
"""Keys of which it is guessed what was meant; a comparison takes tens of milliseconds."""


class MatchedResults:
    """Which maps and scores are of which samples of the evaluated splits.

    splits: of the dataset, by name      covered: names of those that there are results of

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.external.map_files import find_results
    >>> from adbench.benchmark.external.matching import MatchedResults
    >>> from adbench.datasets.phantom import Phantom
    >>> dataset = Phantom(shape=(16,), val=1, test=1)
    >>> dataset.prepare()
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "test/00000.npy")
    ...     path.parent.mkdir()
    ...     np.save(path, np.zeros(16))
    ...     splits = {"val": dataset.val(), "test": dataset.test()}
    ...     matched = MatchedResults(find_results(Path(folder)), dataset, splits)
    >>> matched.covered
    ['test']
    >>> matched.check()  # of two samples, a normal and an abnormal one, one has a map
    Traceback (most recent call last):
    adbench.datasets.base.DataError: ... does not fit the samples: 1 problems ...
    """

    def __init__(
        self, results: ExternalResults, dataset: Dataset, splits: Mapping[str, Split]
    ) -> None:
        self.results, self.splits = results, splits
        self._samples = {name: samples_without_images(split) for name, split in splits.items()}
        self._images = {name: TiledImages(samples) for name, samples in self._samples.items()}
        every = [sample for samples in self._samples.values() for sample in samples]
        self._keys = {key for images in self._images.values() for key in images.keys}
        subjects: dict[str, list[int]] = {}
        for key in sorted(self._keys):
            if slice_of := split_slice_key(key):
                subjects.setdefault(slice_of[0], []).append(slice_of[1])
        self._subjects = {subject: sorted(indices) for subject, indices in subjects.items()}
        tile = every[0].tile if every else None
        shape = dataset.spec.shape if tile is None else tile.extent
        self._grid = SampleGrid(dataset, shape, self._subjects)
        self._guesses = 0
        self.covered = [name for name in splits if self._covers(name)]

    def check(self) -> None:
        """Raises DataError with every sample that lacks a map or a score, and every map and score
        that is of no sample."""
        problems = []
        for level in self.results.levels:
            place = f"level {level}: " if len(self.results.levels) > 1 else ""
            maps, scores = self._at(level)
            for name in dict.fromkeys([*self.covered, "test"]):
                keys = self._images[name].keys
                shown = SPLIT_NAMES.get(name, name)
                if self.results.maps:
                    problems += [
                        f"{place}{key} of {shown} has no map"
                        for key in keys
                        if self._map_file(level, key) is None
                    ]
                if self.results.scores:
                    problems += [
                        f"{place}{key} of {shown} has no score" for key in keys if key not in scores
                    ]
            covered = {key for name in self.covered for key in self._images[name].keys}
            accepted = covered | {s[0] for s in map(split_slice_key, covered) if s}
            problems += [
                f"{place}{entry.name} is of no sample of the evaluated splits{self._guess(key)}"
                for key, entry in maps.items()
                if key not in accepted
            ]
            problems += [
                f"{place}the score of {key} is of no sample of the evaluated splits"
                f"{self._guess(key)}"
                for key in scores
                if key not in covered
            ]
        if problems:
            raise DataError(
                f"{self.results.source} does not fit the samples: {len(problems)} problems "
                "(adbench export-maps writes the layout)",
                problems,
            )

    def write(self, name: str, path: Path) -> None:
        """Write the predictions of a split as a prediction stage does, for `load_predictions`.

        Raises DataError with every map of a wrong shape, and every one that cannot be read.
        """
        split, samples = self.splits[name], self._samples[name]
        levels = self.results.levels
        problems: list[str] = []
        with write_hdf5(path) as file:
            file["levels"] = np.array(levels, dtype=np.int64)
            file["gallery"] = np.array(
                gallery_samples(split) if name == "test" and samples else [], dtype=np.int64
            )
            keys = _image_keys(samples)
            for field, values in self._numbers(keys, levels).items():
                file[field] = values
            if self.results.maps and samples:
                shape = tuple(split[0].x.shape[1:])  # of a tile, where samples are tiles
                maps = create_maps(file, len(levels), len(samples), shape)
                for row, level in enumerate(levels):
                    last: tuple[str, Array] | None = None
                    for i, key in enumerate(keys):
                        if last is None or last[0] != key:
                            values = self._read(level, key, problems)
                            if values is None:
                                continue
                            last = (key, values)
                        maps[row, i] = _cut(last[1], samples[i], shape)
        if problems:
            path.unlink()
            raise DataError(
                f"{len(problems)} maps of {self.results.source} cannot be used", problems
            )

    def _read(self, level: int, key: str, problems: list[str]) -> Array | None:
        file = self._map_file(level, key)
        assert file is not None  # `check` was called
        try:
            return self._grid.read(file, key)
        except (DataError, OSError) as error:
            problems.append(error.summary if isinstance(error, DataError) else str(error))
            return None

    def _numbers(self, keys: Sequence[str], levels: Sequence[int]) -> dict[str, Array]:
        """score, psnr and ssim, (L, N) each, those that there are."""
        if not self.results.scores:
            return {"score": np.full((len(levels), len(keys)), np.nan)}
        table = [[self._at(level)[1][key] for key in keys] for level in levels]
        numbers: dict[str, Array] = {}
        for name in ("score", "psnr", "ssim"):
            values = [[_or_nan(getattr(row, name)) for row in rows] for rows in table]
            array = np.array(values, np.float64).reshape(len(levels), len(keys))
            if name == "score" or not np.isnan(array).all():
                numbers[name] = array
        return numbers

    def _covers(self, name: str) -> bool:
        """Whether any sample of a split has a map, or a score where there are no maps."""
        level = self.results.levels[0]
        keys = self._images[name].keys
        if self.results.maps:
            return any(self._map_file(level, key) is not None for key in keys)
        return any(key in self._at(level)[1] for key in keys)

    def _at(self, level: int) -> tuple[Mapping[str, MapFile], Mapping[str, ScoreRow]]:
        return self.results.maps.get(level, {}), self.results.scores.get(level, {})

    def _map_file(self, level: int, key: str) -> MapFile | None:
        """The file of a sample's map, or of the volume that the sample is a slice of."""
        maps = self.results.maps.get(level, {})
        if key in maps:
            return maps[key]
        slice_of = split_slice_key(key)
        volume = maps.get(slice_of[0]) if slice_of else None
        return volume if volume is not None and volume.kind == "nifti" else None

    def _guess(self, key: str) -> str:
        self._guesses += 1
        if self._guesses > MAX_GUESSES:
            return ""
        hint = did_you_mean(key, sorted(self._keys)[:MAX_NAMES], cutoff=0.8)
        return "" if hint == "." else hint


def _image_keys(samples: Sequence[Sample]) -> list[str]:
    """The key of the whole image of each sample."""
    return [sample.tile.image_key if sample.tile else sample.key for sample in samples]


def _cut(values: Array, sample: Sample, shape: Sequence[int]) -> Array:
    """The part of a whole map that a sample, a tile, shows."""
    if sample.tile is None:
        return values
    starts = sample.tile.start
    return values[tuple(slice(a, a + n) for a, n in zip(starts, shape, strict=True))]


def _or_nan(value: Any) -> float:
    return float("nan") if value is None else value
