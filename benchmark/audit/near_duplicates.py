"""Find samples of different splits that are nearly the same, compared with what is usual.

The distance of two samples is 1 minus the correlation of their thumbnails, after the average
thumbnail is subtracted (else all brains are alike). How small is too small depends on the data: a
quarter of the distance that only one in a hundred samples has to its nearest neighbour of another
group in its own split. Candidates are found on coarse thumbnails and checked on finer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...datasets.base import Progress, Sample
from .sample_summary import FINE_SIZE, Array, SampleSummary, normalize, thumbnail

BLOCK, MAX_CHECKED, MIN_AVERAGED = 256, 500, 4
"""Rows of a block of distances; most pairs that are checked; fewest samples for an average."""

MAX_COARSE_DISTANCE, MAX_FINE_DISTANCE, DEFAULT_DISTANCE = 0.3, 0.25, 0.05
"""The largest distance of a copy, whatever is usual; and if nothing is known to be usual."""


class Pair(NamedTuple):
    """Rows of two samples in the table of summaries, and their distance.

    >>> from adbench.benchmark.audit.near_duplicates import Pair
    >>> Pair(4, 0, 0.01).distance
    0.01
    """

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class NearestNeighbours:
    """The nearest neighbours of samples.

    within_splits: for every sample, the nearest of another group in its own split, if there is one
    across_splits: for every sample, the nearest in each earlier split
    typical_distance: the 1 % quantile of the former; None if no split has two groups

    >>> from adbench.benchmark.audit.near_duplicates import NearestNeighbours
    >>> NearestNeighbours([], [], None).typical_distance is None
    True
    """

    within_splits: list[Pair]
    across_splits: list[Pair]
    typical_distance: float | None


def normalize_thumbnails(summaries: Sequence[SampleSummary]) -> Array:
    """Thumbnails without their average, each of length 1, (N, D); constant samples are all 0.

    >>> import numpy as np
    >>> from adbench.benchmark.audit.near_duplicates import normalize_thumbnails
    >>> from adbench.benchmark.audit.sample_summary import summarize
    >>> from adbench.datasets.phantom import Phantom
    >>> samples = Phantom(shape=(16, 16), test=4).test()
    >>> table = normalize_thumbnails([summarize(samples[i]) for i in range(8)])
    >>> table.shape, bool(np.allclose(np.square(table).sum(1), 1))
    ((8, 256), True)
    """
    table = np.stack([summary.thumbnail for summary in summaries])
    nonzero = np.abs(table).sum(1) > 0
    if nonzero.sum() >= MIN_AVERAGED:
        table = table - table[nonzero].mean(0, dtype=np.float64).astype(np.float32)
    rows = zip(table, nonzero, strict=True)
    return np.stack([normalize(row) if varies else 0 * row for row, varies in rows])


def nearest_neighbours(
    table: Array, summaries: Sequence[SampleSummary], split: Array, progress: Progress
) -> NearestNeighbours:
    """The nearest neighbours of all samples within their splits and across splits.

    table: from `normalize_thumbnails`, (N, D)
    split: the number of the split of each sample, in the order of the splits, (N,) int

    >>> import numpy as np
    >>> from adbench.benchmark.audit.near_duplicates import (
    ...     nearest_neighbours,
    ...     normalize_thumbnails,
    ... )
    >>> from adbench.benchmark.audit.sample_summary import summarize
    >>> from adbench.datasets.base import no_progress
    >>> from adbench.datasets.phantom import Phantom
    >>> samples = Phantom(shape=(16, 16), test=4).test()
    >>> summaries = [summarize(samples[i]) for i in (0, 1, 2, 3, 4, 5, 2)]  # one is in two splits
    >>> table, split = normalize_thumbnails(summaries), np.array([0, 0, 0, 0, 0, 0, 1])
    >>> (pair,) = nearest_neighbours(table, summaries, split, no_progress).across_splits
    >>> pair.first, pair.second
    (6, 2)
    """
    _, group = np.unique([summary.group for summary in summaries], return_inverse=True)
    constant = np.abs(table).sum(1) == 0
    within, across = list[Pair](), list[Pair]()
    members = [np.flatnonzero(split == part) for part in range(int(split.max()) + 1)]
    for start in range(0, len(table), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(table)))
        distances = 1 - table[rows] @ table.T
        distances[:, constant] = 2
        distances[constant[rows]] = 2
        for part, columns in enumerate(members):
            if not len(columns):
                continue
            in_split, later = split[rows] == part, split[rows] > part
            block = distances[:, columns]
            if in_split.any():
                same = group[rows][:, None] == group[columns]
                within += _closest_pairs(rows, columns, np.where(same, 2, block), in_split)
            if later.any():
                across += _closest_pairs(rows, columns, block, later)
        progress("comparing splits", int(rows[-1]) + 1, len(table))
    apart = [pair.distance for pair in within if not _are_identical(summaries, pair)]
    typical = float(np.quantile(apart, 0.01, method="lower")) if apart else None
    return NearestNeighbours(within, across, typical)


def find_near_duplicates(
    neighbours: NearestNeighbours,
    summaries: Sequence[SampleSummary],
    read: Callable[[int], Sample],
) -> tuple[list[Pair], int]:
    """Pairs across splits that are nearly but not exactly the same, the nearest first.

    Also how many more pairs were near enough on coarse thumbnails, but were not checked.

    read: the sample of a row of the table

    >>> from adbench.benchmark.audit.near_duplicates import (
    ...     NearestNeighbours,
    ...     find_near_duplicates,
    ... )
    >>> find_near_duplicates(NearestNeighbours([], [], None), [], lambda n: None)
    ([], 0)
    """
    typical = neighbours.typical_distance
    limit = DEFAULT_DISTANCE if typical is None else min(MAX_COARSE_DISTANCE, 0.5 * typical)

    def different(pairs: list[Pair]) -> list[Pair]:
        pairs = [pair for pair in pairs if not _are_identical(summaries, pair)]
        return sorted(pairs, key=lambda pair: pair.distance)

    near = [pair for pair in different(neighbours.across_splits) if pair.distance < limit]
    if not near:
        return [], 0
    within = different(neighbours.within_splits)
    first = len(within) // 100
    usual = within[first : first + 32]
    rows = {n for pair in (*near[:MAX_CHECKED], *usual) for n in pair[:2]}
    average = _average_thumbnail(read, rows)
    fine = {n: normalize(thumbnail(read(n), FINE_SIZE) - average) for n in rows}

    def distance(pair: Pair) -> float:
        return float(1 - fine[pair.first] @ fine[pair.second])

    limit = DEFAULT_DISTANCE
    if usual:
        limit = min(MAX_FINE_DISTANCE, 0.25 * float(np.quantile([*map(distance, usual)], 0.1)))
    checked = [pair._replace(distance=distance(pair)) for pair in near[:MAX_CHECKED]]
    return [pair for pair in checked if pair.distance < limit], len(near) - len(checked)


def _average_thumbnail(read: Callable[[int], Sample], rows: set[int]) -> Array | float:
    """The average fine thumbnail of at most 64 of the samples."""
    selected = sorted(rows)[:: max(1, len(rows) // 64)]
    if len(selected) < MIN_AVERAGED:
        return 0.0
    total = sum(thumbnail(read(n), FINE_SIZE).astype(np.float64) for n in selected)
    return np.asarray(total / len(selected), np.float32)


def _closest_pairs(rows: Array, columns: Array, distances: Array, selected: Array) -> list[Pair]:
    nearest = distances.argmin(1)
    return [
        Pair(int(rows[i]), int(columns[nearest[i]]), float(distances[i, nearest[i]]))
        for i in np.flatnonzero(selected)
        if distances[i, nearest[i]] < 2
    ]


def _are_identical(summaries: Sequence[SampleSummary], pair: Pair) -> bool:
    digest = summaries[pair.first].digest
    return digest is not None and digest == summaries[pair.second].digest
