"""Pixels of a split at one noise level, read from its maps block by block, each time anew.

What `PixelScores` holds in memory is here computed from files: memory holds a block of samples, or
one volume. Maps that are read more than once are first copied into a temporary file, which is read
ten times as fast as compressed ones, and steps of post-processing are taken on the way there.

Letters: N samples, S one to three spatial axes, P pixels within the regions of interest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .metrics.connected_components import Array, label_components
from .metrics.external_ranking import DealtPixels, ExternalRanking
from .metrics.order_statistics import DistinctScores, streamed_order_statistics
from .metrics.pixel_scores import PixelScores, evenly_spread, histogram_of
from .metrics.scratch import scratch_file
from .metrics.streaming_histogram import StreamingHistogram
from .packed_masks import FullMasks, consecutive_runs

BLOCK_PIXELS = 2**21
"""Pixels of a block, unless one sample has more."""

ReadMaps = Callable[[Sequence[int]], Array]
"""Gives the maps (n, *S) float32 of some samples."""


class MapCache:
    """Maps (N, *S) float32 in a temporary file.

    >>> cache = MapCache((2, 4))
    >>> cache.write([1], np.ones((1, 4), np.float32))
    >>> cache.read([1, 0]).tolist()
    [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, shape: Sequence[int], folder: Path | None = None) -> None:
        self._shape, self._bytes = tuple(shape[1:]), 4 * math.prod(shape[1:])
        self._file = scratch_file(folder)
        self._file.truncate(shape[0] * self._bytes)

    def write(self, samples: Sequence[int], maps: Array) -> None:
        """Set the maps of some samples. Raises OSError where the disk is full."""
        for first, last in consecutive_runs(samples):
            self._file.seek(int(samples[first]) * self._bytes)
            self._file.write(np.ascontiguousarray(maps[first:last], np.float32).reshape(-1).data)

    def read(self, samples: Sequence[int]) -> Array:
        """The maps of some samples."""
        maps = np.empty((len(samples), *self._shape), np.float32)
        for first, last in consecutive_runs(samples):
            self._file.seek(int(samples[first]) * self._bytes)
            self._file.readinto(maps[first:last].reshape(-1).data)
        return maps


class CopiedMaps:
    """Maps (N, *S) float32 that are written into a temporary file as soon as one is read.

    >>> maps = CopiedMaps((2, 4), lambda: [([0, 1], np.ones((2, 4), np.float32))])
    >>> maps.read([1]).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(
        self,
        shape: Sequence[int],
        parts: Callable[[], Iterable[tuple[Sequence[int], Array]]],
        folder: Path | None = None,
    ) -> None:
        """shape: (N, *S)        parts: gives samples with their maps, all of them once
        folder: of the file; None for the system's folder of temporary files"""
        self._shape, self._parts, self._folder = shape, parts, folder

    def read(self, samples: Sequence[int]) -> Array:
        """The maps of some samples. Raises OSError where the disk is full."""
        return self._cache.read(samples)

    @cached_property
    def _cache(self) -> MapCache:
        cache = MapCache(self._shape, self._folder)
        for samples, maps in self._parts():
            cache.write(samples, maps)
        return cache


class StreamedPixels:
    """Scores and truth of the pixels of N samples (a `Pixels`), read when they are asked for.

    counts: (N,) int, pixels of each sample within its region of interest

    >>> from adbench.benchmark.evaluation.packed_masks import FullMasks
    >>> maps = np.arange(12, dtype=np.float32).reshape(3, 4)
    >>> pixels = StreamedPixels(lambda rows: maps[rows], FullMasks((3, 4)), None, np.full(3, 4))
    >>> pixels.take([2]).score.tolist(), pixels.order_statistics(np.array([11])).tolist()
    ([8.0, 9.0, 10.0, 11.0], [11.0])
    """

    def __init__(
        self,
        read_maps: ReadMaps,
        roi: Any,
        mask: Any,
        counts: Array,
        *,
        budget: int | None = None,
        folder: Path | None = None,
    ) -> None:
        """roi, mask: (N, *S) bool, in memory or on disk; mask None for none
        budget: pixels beyond which not all are sorted; None for any number
        folder: of temporary files"""
        self._read_maps, self._mask = read_maps, mask
        self._roi = None if isinstance(roi, FullMasks) else roi
        self._block_samples = max(1, BLOCK_PIXELS // max(1, math.prod(roi.shape[1:])))
        self.counts, self._folder = counts, folder
        self._sorted = budget is None or int(counts.sum()) <= budget
        self._dealt: DealtPixels | None = None
        self._counted: StreamingHistogram | None = None

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some samples, in this order; components have numbers of their own."""
        index = np.asarray(samples, np.int64)
        maps, counts = self._read_maps(index.tolist()), self.counts[index]
        roi: Any = ... if self._roi is None else self._roi[index]
        score = maps[roi].reshape(-1)
        if self._mask is None:
            return PixelScores(score, np.zeros(score.size, bool), counts, np.zeros(0, np.int64))
        mask = self._mask[index]
        inside = mask if self._roi is None else mask & roi
        return PixelScores(score, mask[roi].reshape(-1), counts, lambda: label_components(inside))

    def sample_blocks(self) -> Iterator[tuple[int, int]]:
        """Samples that are read at a time: the first, and past the last."""
        for first in range(0, len(self.counts), self._block_samples):
            yield first, min(first + self._block_samples, len(self.counts))

    def blocks(self) -> Iterator[PixelScores]:
        """All samples, some consecutive ones at a time."""
        for first, last in self.sample_blocks():
            yield self.take(range(first, last))

    def sample_scores(self, sample_score: Callable[[Array], float], *, rank: bool = False) -> Array:
        """The score of each sample from its pixels (P,), (N,) float64.

        rank: whether the ranking of all pixels is going to be asked for, or beyond the budget their
            histogram: it is then prepared from the same blocks, for reading them takes as long
        """
        prepared: DealtPixels | StreamingHistogram | None = None
        if rank:
            prepared = DealtPixels(self._folder) if self._sorted else StreamingHistogram()
        scores = list[float]()
        for block in self.blocks():
            scores += map(sample_score, np.split(block.score, np.cumsum(block.counts)[:-1]))
            if prepared is not None:
                prepared.add(block.score, block.truth, block.component_share)
        self._dealt = prepared if isinstance(prepared, DealtPixels) else None
        self._counted = prepared if isinstance(prepared, StreamingHistogram) else None
        return np.array(scores, np.float64)

    def ranking(self, selected: Array | None = None) -> ExternalRanking | None:
        """The ranking of the pixels of selected samples (N,) bool, on disk."""
        return self._ranking if selected is None else self._rank(selected)

    @cached_property
    def _ranking(self) -> ExternalRanking | None:
        dealt, self._dealt = self._dealt, None
        return self._rank(None) if dealt is None else dealt.ranking()

    def _rank(self, selected: Array | None) -> ExternalRanking | None:
        def blocks() -> Iterator[tuple[Array, Array, Array]]:
            for block in self._selected_blocks(selected):
                share = np.ones(int(block.truth.sum()))
                yield (
                    block.score,
                    block.truth,
                    share if selected is not None else (block.component_share),
                )

        return ExternalRanking.from_blocks(blocks(), self._folder)

    def histogram(self) -> StreamingHistogram:
        """All pixels counted by bins of their scores."""
        counted, self._counted = self._counted, None
        return histogram_of(self) if counted is None else counted

    def _selected_blocks(self, selected: Array | None) -> Iterator[PixelScores]:
        for first, last in self.sample_blocks():
            rows = np.arange(first, last)
            rows = rows if selected is None else rows[selected[first:last]]
            if rows.size:
                yield self.take(rows.tolist())

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks of the pixels of that truth in the selected samples."""

        def scores() -> Iterator[Array]:
            for block in self._selected_blocks(samples):
                yield block.score if truth is None else block.score[block.truth == truth]

        return streamed_order_statistics(scores, np.asarray(ranks, np.int64))

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; `most` of more. Beyond the budget the
        distinct ones among `most` scores that are evenly spread by rank."""
        if not self._sorted:
            abnormal = sum(int(block.truth.sum()) for block in self.blocks())
            return np.unique(self.order_statistics(evenly_spread(abnormal, most), truth=True))
        distinct = DistinctScores()
        for block in self.blocks():
            distinct.add(block.score[block.truth])
        return distinct.take(evenly_spread(distinct.size(), most))
