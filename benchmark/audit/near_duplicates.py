"""Samples of different splits that are almost the same, by what is usual within a split.

Two pictures are as far apart as 1 minus their correlation, once the average picture is taken away
(else all brains are alike). How near is too near depends on the data: a quarter of what only one in
a hundred samples has within its own split, from another group. Candidates are found on coarse
pictures and looked at again on finer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...datasets.base import Progress, Sample
from .sample_summary import FINE_SIZE, Array, SampleSummary, normalize, thumbnail

BLOCK, MAX_CHECKED, MIN_AVERAGED = 256, 500, 4
"""Rows of a block of distances; pairs looked at again at most; samples an average is made of."""

MAX_COARSE_DISTANCE, MAX_FINE_DISTANCE, DEFAULT_DISTANCE = 0.3, 0.25, 0.05
"""The greatest distance of a copy, whatever is usual; and where nothing is known to be usual."""


class Pair(NamedTuple):
    """Places in the table of looks, and their distance."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class NearestNeighbours:
    """within_splits: the nearest in its own split of another group, for every sample that has one
    across_splits: the nearest in each earlier split, for every sample
    typical_distance: the distance that 1 in 100 have within; None where no split holds two groups
    """

    within_splits: list[Pair]
    across_splits: list[Pair]
    typical_distance: float | None


def normalize_thumbnails(looks: Sequence[SampleSummary]) -> Array:
    """(N, D) pictures without their average, each of length 1; of constant samples all 0."""
    table = np.stack([held.thumbnail for held in looks])
    full = np.abs(table).sum(1) > 0
    if full.sum() >= MIN_AVERAGED:
        table = table - table[full].mean(0, dtype=np.float64).astype(np.float32)
    return np.stack(
        [normalize(row) if kept else 0 * row for row, kept in zip(table, full, strict=True)]
    )


def nearest_neighbours(
    table: Array, looks: Sequence[SampleSummary], split: Array, progress: Progress
) -> NearestNeighbours:
    """Nearest neighbours in blocks of rows; split (N,) int tells which each is in, in order."""
    _, group = np.unique([held.group for held in looks], return_inverse=True)
    empty = np.abs(table).sum(1) == 0
    within, across, count = [], [], int(split.max()) + 1
    places = [np.flatnonzero(split == part) for part in range(count)]
    for start in range(0, len(table), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(table)))
        far = 1 - table[rows] @ table.T
        far[:, empty] = 2
        far[empty[rows]] = 2
        for part, columns in enumerate(places):
            if not len(columns):
                continue
            mine, other = split[rows] == part, split[rows] > part
            theirs = far[:, columns]
            if mine.any():
                same = group[rows][:, None] == group[columns]
                within += _closest_pairs(rows, columns, np.where(same, 2, theirs), mine)
            if other.any():
                across += _closest_pairs(rows, columns, theirs, other)
        progress("comparing splits", int(rows[-1]) + 1, len(table))
    apart = [pair.distance for pair in within if not _are_identical(looks, pair)]
    usual = float(np.quantile(apart, 0.01, method="lower")) if apart else None
    return NearestNeighbours(within, across, usual)


def find_near_duplicates(
    found: NearestNeighbours, looks: Sequence[SampleSummary], read: Callable[[int], Sample]
) -> tuple[list[Pair], int]:
    """Pairs across splits that are almost the same (not to the bit), nearest first; and how many
    more were near enough on coarse pictures but not looked at again.

    read: the sample at a place of the table
    """
    most = (
        DEFAULT_DISTANCE
        if found.typical_distance is None
        else min(MAX_COARSE_DISTANCE, 0.5 * found.typical_distance)
    )
    near = [p for p in found.across_splits if p.distance < most and not _are_identical(looks, p)]
    near.sort(key=lambda pair: pair.distance)
    if not near:
        return [], 0
    ranked = sorted(
        (p for p in found.within_splits if not _are_identical(looks, p)), key=lambda p: p.distance
    )
    first = len(ranked) // 100
    usual = ranked[first : first + 32]
    some = {n for pair in (*near[:MAX_CHECKED], *usual) for n in pair[:2]}
    average = _average(read, some)
    fine = {n: normalize(thumbnail(read(n), FINE_SIZE) - average) for n in some}

    def apart(pair: Pair) -> float:
        return float(1 - fine[pair.first] @ fine[pair.second])

    limit = DEFAULT_DISTANCE
    if usual:
        limit = min(MAX_FINE_DISTANCE, 0.25 * float(np.quantile([apart(p) for p in usual], 0.1)))
    checked = [pair._replace(distance=apart(pair)) for pair in near[:MAX_CHECKED]]
    return [pair for pair in checked if pair.distance < limit], len(near) - len(checked)


def _average(read: Callable[[int], Sample], some: set[int]) -> Array | float:
    """The average fine picture of at most 64 of the samples."""
    chosen = sorted(some)[:: max(1, len(some) // 64)]
    if len(chosen) < MIN_AVERAGED:
        return 0.0
    total = sum(thumbnail(read(n), FINE_SIZE).astype(np.float64) for n in chosen)
    return np.asarray(total / len(chosen), np.float32)


def _closest_pairs(rows: Array, columns: Array, far: Array, wanted: Array) -> list[Pair]:
    place = far.argmin(1)
    return [
        Pair(int(rows[i]), int(columns[place[i]]), float(far[i, place[i]]))
        for i in np.flatnonzero(wanted)
        if far[i, place[i]] < 2
    ]


def _are_identical(looks: Sequence[SampleSummary], pair: Pair) -> bool:
    digest = looks[pair.first].digest
    return digest is not None and digest == looks[pair.second].digest
