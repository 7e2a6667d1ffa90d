"""The ranking of more pixels than memory holds, exact, by an external sort.

Scores are dealt into ranges of about equal size on disk, each range is sorted by itself, and what
ranks its positives is written down. All sums over positives are then taken in the very order in
which numpy adds up the whole array, so that the metrics are those of `Ranking`, to the bit.

Letters: P pixels, Q of them abnormal, E distinct scores of abnormal pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from .connected_components import Array
from .order_statistics import ascending_patterns, scores_of_patterns
from .ranking import Ranking
from .scratch import scratch_file

RANGE_SIZE = 2**23
"""Pixels of a range, about; those whose scores share a key stay together."""

KEY_BITS = 16
"""Of a score's pattern that are its key."""

ROWS_AT_A_TIME = 2**18
"""Distinct scores of positives whose ranks are in memory."""

FIELDS = {"threshold": "f4", "count": "i8", "true": "i8", "above": "i8", "false": "i8"}
ROW = np.dtype([*FIELDS.items(), ("share", "f8")])
"""Of `Ranking`, what is stored of each distinct score of a positive."""

Blocks = Callable[[], Iterable[tuple[Array, Array, Array]]]
"""Gives (score (P,) float32, truth (P,) bool, component share (Q,) float64), block by block, the
same ones at each call."""


class ExternalRanking:
    """What `Ranking` is, in a file that vanishes with it; its metrics are the same numbers.

    size: E

    >>> score, truth = np.array([1, 2, 2, 3], np.float32), np.array([0, 1, 0, 1], bool)
    >>> ranking = ExternalRanking.from_blocks(lambda: [(score, truth, np.ones(2))])
    >>> ranking.auroc() == Ranking.from_scores(score, truth).auroc() == 0.875
    True
    """

    def __init__(self, rows: IO[bytes], size: int, positives: int, negatives: int) -> None:
        """rows: an open file of E times ROW, ascending"""
        self._rows, self.size = rows, size
        self.positives, self.negatives = positives, negatives

    @classmethod
    def from_blocks(cls, blocks: Blocks, folder: Path | None = None) -> ExternalRanking | None:
        """Rank scores by truths; None where either kind is missing. Passes twice over the blocks.

        folder: of the files; None for the system's folder of temporary files

        Raises ValueError where a score is NaN, OSError where the disk is full.
        """
        counts = np.zeros((2, 2**KEY_BITS), np.int64)
        for score, truth, _ in blocks():
            key = (ascending_patterns(score) >> (32 - KEY_BITS)) + 2 ** (KEY_BITS - 1)
            all_kinds = np.bincount(key, minlength=2**KEY_BITS)
            abnormal = np.bincount(key[truth], minlength=2**KEY_BITS)
            counts += [all_kinds - abnormal, abnormal]
        negatives, positives = (int(each) for each in counts.sum(1))
        if not positives or not negatives:
            return None
        ranges, rows, size = _Ranges(counts, folder), scratch_file(folder), 0
        for score, truth, share in blocks():
            ranges.add(score, truth, share)
        for some in ranges.rows():
            rows.write(some.tobytes())
            size += len(some)
        return cls(rows, size, positives, negatives)

    def auroc(self) -> float:
        """As `Ranking.auroc`."""
        outranked = sum(int(rows.outranked().sum()) for rows in self._blocks())
        return outranked / (2 * self.positives * self.negatives)

    def ap(self) -> float:
        """As `Ranking.ap`."""
        return float(self._sum(Ranking.precision_sums) / self.positives)

    def best_dice(self) -> tuple[float, float]:
        """As `Ranking.best_dice`."""
        best = max((rows.best_dice(self.positives) for rows in self._blocks()), key=lambda d: d[0])
        return best

    def aupro(self, limit: float) -> float:
        """As `Ranking.aupro`."""
        area = self._sum(lambda rows: rows.component_areas(limit))
        return float(area / self._sum(lambda rows: rows.component_shares) / limit)

    def thresholds_at(self, index: Array) -> Array:
        """Some of the E distinct scores of positives, by their places in ascending order."""
        places = sorted(set(np.asarray(index).tolist()))
        values = {place: self._read(place, place + 1).thresholds[0] for place in places}
        return np.array([values[place] for place in np.asarray(index).tolist()], np.float32)

    def _blocks(self) -> Iterator[Ranking]:
        for first in range(0, self.size, ROWS_AT_A_TIME):
            yield self._read(first, min(first + ROWS_AT_A_TIME, self.size))

    def _sum(self, terms: Callable[[Ranking], Array]) -> float:
        """The sum of terms (E,) float64 as numpy adds them up: pairwise, halves cut at eights."""

        def add(first: int, count: int) -> float:
            if count <= ROWS_AT_A_TIME:
                return terms(self._read(first, first + count)).sum()
            half = count // 2
            half -= half % 8
            return add(first, half) + add(first + half, count - half)

        return add(0, self.size)

    def _read(self, first: int, last: int) -> Ranking:
        self._rows.seek(first * ROW.itemsize)
        rows = np.frombuffer(self._rows.read((last - first) * ROW.itemsize), ROW)
        values = (np.ascontiguousarray(rows[name]) for name in ROW.names or ())
        return Ranking(*values, negatives=self.negatives)


class _Ranges:
    """Pixels on disk, dealt by score into ranges; what has no positives in it is only counted.

    counts: (2, keys) of negatives and positives at each key
    """

    def __init__(self, counts: Array, folder: Path | None) -> None:
        first_keys = _first_keys(counts.sum(0))
        self.sizes = np.add.reduceat(counts, first_keys, axis=1)  # (2, ranges)
        self.ends = np.cumsum(self.sizes, axis=1)
        patterns = (first_keys[1:] - 2 ** (KEY_BITS - 1)) << (32 - KEY_BITS)
        self._edges = scores_of_patterns(patterns)
        self._negatives = _Regions(np.where(self.sizes[1] > 0, self.sizes[0], 0), "f4", folder)
        self._positives = _Regions(self.sizes[1], "f4", folder)
        self._shares = _Regions(self.sizes[1], "f8", folder)

    def add(self, score: Array, truth: Array, share: Array) -> None:
        negative, positive = score[~truth], score[truth]
        negative.sort()
        order = np.argsort(positive, kind="stable")
        positive = positive[order]
        self._negatives.append(negative, np.searchsorted(negative, self._edges, "left"))
        cuts = np.searchsorted(positive, self._edges, "left")
        self._positives.append(positive, cuts)
        self._shares.append(share[order], cuts)

    def rows(self) -> Iterator[Array]:
        """Arrays of ROW, ascending."""
        (negatives, positives), totals = self.ends - self.sizes, self.ends[:, -1]
        for number in np.flatnonzero(self.sizes[1]).tolist():
            positive, share = self._positives.read(number), self._shares.read(number)
            order = np.argsort(positive, kind="stable")
            positive = positive[order]
            start = np.flatnonzero(np.append(True, positive[1:] != positive[:-1]))
            rows = np.empty(start.size, ROW)
            rows["threshold"] = positive[start]
            rows["count"] = np.diff(np.append(start, positive.size))
            rows["true"] = totals[1] - positives[number] - start
            values, count_below = _counts_below(self._negatives.parts(number))
            remaining = totals[0] - negatives[number] - count_below
            rows["above"] = remaining[np.searchsorted(values, rows["threshold"], "right")]
            rows["false"] = remaining[np.searchsorted(values, rows["threshold"], "left")]
            rows["share"] = np.add.reduceat(share[order], start)
            yield rows


def _first_keys(counts: Array) -> Array:
    """The first key of each range, 0 the first: ranges hold RANGE_SIZE pixels, or one key."""
    first, filled = [0], 0
    for key in np.flatnonzero(counts).tolist():
        if filled and filled + int(counts[key]) > RANGE_SIZE:
            first.append(key)
            filled = 0
        filled += int(counts[key])
    return np.array(first)


def _counts_below(parts: Iterable[Array]) -> tuple[Array, Array]:
    """Distinct scores, ascending (K,), and how many lie below each and below infinity (K + 1,).

    Of scores that share a key there are at most 2**16 distinct ones, however many there are.
    """
    values, counts = np.zeros(0, np.float32), np.zeros(0, np.int64)
    for part in parts:
        part.sort()
        start = np.flatnonzero(np.append(True, part[1:] != part[:-1])[: part.size])
        both = np.concatenate([values, part[start]])
        times = np.concatenate([counts, np.diff(np.append(start, part.size))])
        if not values.size:
            values, counts = both, times
            continue
        values, index = np.unique(both, return_inverse=True)
        counts = np.zeros(values.size, np.int64)
        np.add.at(counts, index, times)
    return values, np.append(0, np.cumsum(counts))


class _Regions:
    """Numbers in one temporary file, in regions of known sizes that are filled bit by bit."""

    def __init__(self, sizes: Array, dtype: str, folder: Path | None) -> None:
        self.dtype, self.sizes = np.dtype(dtype), sizes
        self._start = np.cumsum(sizes) - sizes
        self._filled = np.zeros(len(sizes), np.int64)
        self._file = scratch_file(folder)

    def append(self, values: Array, cuts: Array) -> None:
        """Add values, cut at these places, to the regions in their order."""
        ends = np.concatenate([[0], cuts, [values.size]]).tolist()
        for number in np.flatnonzero(np.diff(ends) * (self.sizes > 0)).tolist():
            part = values[ends[number] : ends[number + 1]].astype(self.dtype, copy=False)
            position = int(self._start[number] + self._filled[number])
            self._file.seek(position * self.dtype.itemsize)
            self._file.write(part.tobytes())
            self._filled[number] += part.size

    def read(self, number: int) -> Array:
        """All of a region."""
        return np.concatenate([np.zeros(0, self.dtype), *self.parts(number)])

    def parts(self, number: int) -> Iterator[Array]:
        """A region, 2 * RANGE_SIZE at a time."""
        size = int(self.sizes[number])
        for first in range(0, size, 2 * RANGE_SIZE):
            self._file.seek(int(self._start[number] + first) * self.dtype.itemsize)
            count = min(2 * RANGE_SIZE, size - first)
            yield np.frombuffer(self._file.read(count * self.dtype.itemsize), self.dtype).copy()
