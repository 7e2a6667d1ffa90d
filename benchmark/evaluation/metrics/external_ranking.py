"""The ranking of more pixels than memory holds, exact, without sorting them all.

As they are read, once, scores are dealt on disk into ranges of their float32 pattern. Within a
range every pattern is counted, measured in a third of the time of a sort; only positives are
sorted. What ranks the positives is written down. All sums over positives are then taken in the very
order in which numpy adds up the whole array, so that the metrics are those of `Ranking`, to the
bit.

Letters: P pixels, Q of them abnormal, E distinct scores of abnormal pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from .connected_components import Array
from .order_statistics import ascending_patterns, scores_of_patterns
from .ranking_curves import Ranking
from .scratch import scratch_file

RANGE_BITS = 22
"""Of a score's pattern that differ within a range: half an octave, whose counts take 32 MB."""

MANY_PIXELS = 2**18
"""Pixels of a range from which on counting every pattern is faster than sorting the pixels."""

PART_SIZE = 2**22
"""Pixels of a range that are read at a time."""

ROWS_AT_A_TIME = 2**18
"""Distinct scores of positives whose ranks are in memory."""

FIELDS = {"threshold": "f4", "count": "i8", "true": "i8", "above": "i8", "false": "i8"}
ROW = np.dtype([*FIELDS.items(), ("share", "f8")])
"""Of `Ranking`, what is stored of each distinct score of a positive."""


class ExternalRanking:
    """What `Ranking` is, in a file that vanishes with it; its metrics are the same numbers.

    size: E

    >>> score, truth = np.array([1, 2, 2, 3], np.float32), np.array([0, 1, 0, 1], bool)
    >>> ranking = ExternalRanking.from_blocks([(score, truth, np.ones(2))])
    >>> ranking.auroc() == Ranking.from_scores(score, truth).auroc() == 0.875
    True
    """

    def __init__(self, rows: IO[bytes], size: int, positives: int, negatives: int) -> None:
        """rows: an open file of E times ROW, ascending"""
        self._rows, self.size = rows, size
        self.positives, self.negatives = positives, negatives

    @classmethod
    def from_blocks(
        cls, blocks: Iterable[tuple[Array, Array, Array]], folder: Path | None = None
    ) -> ExternalRanking | None:
        """Rank scores by truths; None where either kind is missing.

        blocks: of (score (P,) float32, truth (P,) bool, component share (Q,) float64)
        folder: of the files; None for the system's folder of temporary files

        Raises ValueError where a score is NaN, OSError where the disk is full.
        """
        pixels = DealtPixels(folder)
        for score, truth, share in blocks:
            pixels.add(score, truth, share)
        return pixels.ranking()

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


class DealtPixels:
    """Pixels on disk, dealt by score into ranges as they come, and ranked when all are there.

    >>> pixels = DealtPixels()
    >>> pixels.add(np.array([2, 3], np.float32), np.array([0, 1], bool), np.ones(1))
    >>> pixels.add(np.array([1, 2], np.float32), np.array([0, 1], bool), np.ones(1))
    >>> pixels.ranking().auroc()
    0.875
    """

    def __init__(self, folder: Path | None = None) -> None:
        """folder: of the files; None for the system's folder of temporary files"""
        self._folder = folder
        self._pixels, self._positives = _Ranges("i4", folder), _Ranges("i4", folder)
        self._shares = _Ranges("f8", folder)  # cut as the positives are

    def add(self, score: Array, truth: Array, share: Array) -> None:
        """Add pixels: score (P,) float32, truth (P,) bool, share (Q,) of each positive in order.

        Raises ValueError where a score is NaN, OSError where the disk is full.
        """
        pattern = ascending_patterns(score)
        order, sizes = _deal(pattern)
        self._pixels.append(pattern[order], sizes)
        pattern = pattern[truth]
        order, sizes = _deal(pattern)
        self._positives.append(pattern[order], sizes)
        self._shares.append(share[order], sizes)

    def ranking(self) -> ExternalRanking | None:
        """The ranking of all pixels; None without a positive or without a negative."""
        positives, all_pixels = self._positives.size(), self._pixels.size()
        if positives in (0, all_pixels):
            return None
        rows, size = scratch_file(self._folder), 0
        for some in self._rows(positives, all_pixels - positives):
            rows.write(some.tobytes())
            size += len(some)
        return ExternalRanking(rows, size, positives, all_pixels - positives)

    def _rows(self, positives: int, negatives: int) -> Iterator[Array]:
        """Arrays of ROW, ascending; positives, negatives: how many there are of all."""
        pixels_below = positives_below = 0
        for number in self._pixels.numbers():
            counts_at = self._counts_at(number) if self._positives.size(number) else None
            for pattern, share in self._sorted_positives(number):
                assert counts_at is not None
                start = np.flatnonzero(np.append(True, pattern[1:] != pattern[:-1]))
                rows = np.empty(start.size, ROW)
                rows["threshold"] = scores_of_patterns(pattern[start])
                rows["count"] = np.diff(np.append(start, pattern.size))
                before = positives_below + start
                below, up_to = counts_at(pattern[start])
                rows["true"] = positives - before
                rows["above"] = negatives - (pixels_below + up_to - before - rows["count"])
                rows["false"] = negatives - (pixels_below + below - before)
                rows["share"] = np.add.reduceat(share, start)
                positives_below += pattern.size
                yield rows
            pixels_below += self._pixels.size(number)

    def _counts_at(self, number: int) -> Callable[[Array], tuple[Array, Array]]:
        """Gives, at patterns of a range, how many of its pixels lie below, and there or below."""
        if self._pixels.size(number) < MANY_PIXELS:
            parts = [*self._pixels.parts(number)]
            ordered = np.sort(np.concatenate(parts))
            return lambda pattern: (
                np.searchsorted(ordered, pattern, "left"),
                np.searchsorted(ordered, pattern, "right"),
            )
        ends, first = self._pixels.counts_below(number), np.int32(number << RANGE_BITS)
        return lambda pattern: (ends[pattern - first], ends[pattern - first + 1])

    def _sorted_positives(self, number: int) -> Iterator[tuple[Array, Array]]:
        """Patterns and shares of a range, ascending, equal ones in the order in which they came:
        at once, or about PART_SIZE at a time, all with one pattern together."""
        size, first = self._positives.size(number), number << RANGE_BITS
        cuts = [first, first + 2**RANGE_BITS]
        if size > PART_SIZE:
            at = np.arange(PART_SIZE, size, PART_SIZE)
            inner = np.searchsorted(self._positives.counts_below(number), at, "right") - 1
            cuts = sorted({*cuts, *(first + inner).tolist()})
        for low, high in pairwise(cuts if size else ()):
            patterns, shares = list[Array](), list[Array]()
            for pattern, share in zip(
                self._positives.parts(number), self._shares.parts(number), strict=True
            ):
                inside = (pattern >= low) & (pattern < high)
                patterns.append(pattern[inside])
                shares.append(share[inside])
            pattern = np.concatenate(patterns)
            order = np.argsort(pattern, kind="stable")
            if pattern.size:
                yield pattern[order], np.concatenate(shares)[order]


def _deal(pattern: Array) -> tuple[Array, dict[int, int]]:
    """The order in which patterns (P,) lie range by range, and the size of each range."""
    if not pattern.size:
        return np.zeros(0, np.int64), {}
    number = pattern >> RANGE_BITS
    lowest = int(number.min())
    number -= lowest
    sizes = np.bincount(number)
    # the radix sort that numpy has for numbers of one and two bytes
    order = np.argsort(number.astype(np.min_scalar_type(sizes.size)), kind="stable")
    filled = np.flatnonzero(sizes)
    return order, dict(zip((filled + lowest).tolist(), sizes[filled].tolist(), strict=True))


class _Ranges:
    """Numbers in one temporary file, in ranges that grow stretch by stretch."""

    def __init__(self, dtype: str, folder: Path | None) -> None:
        self.dtype = np.dtype(dtype)
        self._file, self._end = scratch_file(folder), 0
        self._stretches: dict[int, list[tuple[int, int]]] = {}

    def append(self, values: Array, sizes: Mapping[int, int]) -> None:
        """Add values that lie range by range; sizes: of each range, by its number."""
        self._file.seek(self._end * self.dtype.itemsize)
        self._file.write(np.ascontiguousarray(values, self.dtype).data)
        for number, size in sizes.items():
            self._stretches.setdefault(number, []).append((self._end, size))
            self._end += size

    def numbers(self) -> list[int]:
        """The numbers of all ranges that are not empty, ascending."""
        return sorted(self._stretches)

    def size(self, number: int | None = None) -> int:
        """How many values a range has; None for all of them."""
        if number is None:
            return self._end
        return sum(size for _, size in self._stretches.get(number, ()))

    def parts(self, number: int) -> Iterator[Array]:
        """A range in the order in which it grew, stretches of about PART_SIZE at a time."""
        batch, filled = list[tuple[int, int]](), 0
        for stretch in self._stretches.get(number, ()):
            if filled and filled + stretch[1] > PART_SIZE:
                yield self._read(batch)
                batch, filled = [], 0
            batch.append(stretch)
            filled += stretch[1]
        if batch:
            yield self._read(batch)

    def counts_below(self, number: int) -> Array:
        """How many of a range of patterns lie below each of its patterns, (2**RANGE_BITS + 1,)."""
        first = np.int32(number << RANGE_BITS)
        ends = np.zeros(2**RANGE_BITS + 1, np.int64)
        for part in self.parts(number):
            ends[1:] += np.bincount(part - first, minlength=2**RANGE_BITS)
        return np.cumsum(ends, out=ends)

    def _read(self, stretches: Sequence[tuple[int, int]]) -> Array:
        values, first = np.empty(sum(size for _, size in stretches), self.dtype), 0
        for position, size in stretches:
            self._file.seek(position * self.dtype.itemsize)
            self._file.readinto(values[first : first + size].data)
            first += size
        return values
