"""Scores and truth of the pixels of many samples, in memory, and some of their samples.

Letters: N samples, P pixels (voxels, time steps) within the regions of interest of all samples, Q
of them abnormal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from .connected_components import Array, component_sizes, label_components
from .ranking_curves import Ranking, RankingMetrics
from .streaming_histogram import StreamingHistogram

MANY_RANKS = 16
"""Ranks from which on sorting all scores is faster than partitioning by them."""


class Pixels(Protocol):
    """Scores and truth of the pixels of N samples: in memory (`PixelScores`), or read in blocks.

    counts: (N,) int, pixels of each sample
    """

    @property
    def counts(self) -> Array: ...

    def blocks(self) -> Iterator[PixelScores]:
        """All samples, some consecutive ones at a time, with components of their own numbers."""
        ...

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some samples, in this order."""
        ...

    def ranking(self, selected: Array | None = None) -> RankingMetrics | None:
        """The ranking of the pixels of selected samples (N,) bool; None for all. None where they
        lack abnormal or normal pixels."""
        ...

    def histogram(self) -> StreamingHistogram:
        """All pixels counted by bins of their scores."""
        ...

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks, in ascending order from 0 on, of the pixels of that truth in
        the selected samples (N,) bool; None for all."""
        ...

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; of more than `most` so many, evenly
        spread by their places."""
        ...


def histogram_of(pixels: Pixels) -> StreamingHistogram:
    """Count pixels by bins of their scores, block by block.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores, histogram_of
    >>> maps, masks = np.array([[0.1, 0.6, 0.5, 0.9]]), np.array([[0, 0, 1, 1]], bool)
    >>> histogram_of(PixelScores.from_maps(maps, masks)).metrics()["auroc"]
    0.75
    """
    histogram = StreamingHistogram()
    for block in pixels.blocks():
        histogram.add(block.score, block.truth, block.component_share)
    return histogram


def evenly_spread(size: int, most: int) -> Array:
    """Places 0..size-1, or `most` of them that are evenly spread.

    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import evenly_spread
    >>> evenly_spread(9, 3).tolist(), evenly_spread(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(int)


@dataclass(frozen=True)
class PixelScores:
    """Scores and truth of the pixels of N samples, sample after sample in one row.

    score: (P,)                 truth: (P,) bool, abnormal
    counts: (N,) int, pixels of each sample
    labels: (Q,) int, the connected component of each abnormal pixel, in order, or what computes it
        when it is asked for; read it as `component`

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> masks = np.array([[1, 1, 0, 1]], bool)
    >>> pixels = PixelScores.from_maps(np.array([[0.5, 0.1, 0.2, 0.9]]), masks)
    >>> pixels.component.tolist(), pixels.component_share.tolist()
    ([0, 0, 1], [0.5, 0.5, 1.0])
    """

    score: Array
    truth: Array
    counts: Array
    labels: Array | Callable[[], Array]

    @cached_property
    def component(self) -> Array:
        """The connected component of each abnormal pixel in order, (Q,) int."""
        return self.labels() if callable(self.labels) else self.labels

    @property
    def component_share(self) -> Array:
        """One over the size of its component, for each abnormal pixel in order, (Q,)."""
        return 1 / component_sizes(self.component)[self.component]

    def blocks(self) -> Iterator[PixelScores]:
        """All samples at once, for they are in memory."""
        yield self

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some samples, in this order; components are numbered anew."""
        rows = [self._rows[i] for i in samples]
        components, number = list[Array](), 0
        for component in (self.component[self._abnormal_rows[i]] for i in samples):
            if component.size:
                components.append(component - int(component.min()) + number)
                number = int(components[-1].max()) + 1
        return PixelScores(
            _concatenate([self.score[row] for row in rows], self.score.dtype),
            _concatenate([self.truth[row] for row in rows], np.dtype(bool)),
            self.counts[list(samples)],
            _concatenate(components, np.dtype(np.int64)),
        )

    def ranking(self, selected: Array | None = None) -> Ranking | None:
        """The ranking of the pixels of selected samples (N,) bool; None for all."""
        if selected is None:
            return Ranking.from_scores(self.score, self.truth, self.component_share)
        rows = np.repeat(selected, self.counts)
        return Ranking.from_scores(self.score[rows], self.truth[rows])

    def histogram(self) -> StreamingHistogram:
        """All pixels counted by bins of their scores."""
        return histogram_of(self)

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks of the pixels of that truth in the selected samples."""
        chosen: Any = ... if samples is None else np.repeat(samples, self.counts)
        if truth is not None:
            chosen = self.truth == truth if samples is None else chosen & (self.truth == truth)
        scores = self.score[chosen]
        if len(ranks) < MANY_RANKS:
            return np.partition(scores, ranks)[ranks] if len(ranks) else scores[:0]
        return np.sort(scores)[ranks]

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; `most` of more."""
        distinct = np.unique(self.score[self.truth])
        return distinct[evenly_spread(distinct.size, most)]

    @cached_property
    def _rows(self) -> list[slice]:
        """Where the pixels of each sample lie."""
        ends = np.cumsum(self.counts)
        return [slice(*pair) for pair in pairwise([0, *ends.tolist()])]

    @cached_property
    def _abnormal_rows(self) -> list[slice]:
        """Where they lie among the abnormal ones."""
        ends = np.cumsum([np.count_nonzero(self.truth[row]) for row in self._rows]).tolist()
        return [slice(*pair) for pair in pairwise([0, *ends])]

    @classmethod
    def from_maps(
        cls, maps: Sequence[Array] | Array, masks: Sequence[Array] | Array, roi: Any = None
    ) -> PixelScores:
        """Gather the pixels of maps, masks and regions of interest of (*S) each.

        Samples may differ in size. roi: None for all pixels
        """
        if isinstance(maps, np.ndarray) and isinstance(masks, np.ndarray) and roi is None:
            counts = np.full(len(maps), math.prod(maps.shape[1:]))
            truth = np.ascontiguousarray(masks, bool)
            return cls(maps.reshape(-1), truth.reshape(-1), counts, label_components(truth))
        inside = [True if roi is None else np.asarray(roi[i], bool) for i in range(len(maps))]
        masks = [np.asarray(mask, bool) & where for mask, where in zip(masks, inside, strict=True)]
        if not masks:
            return cls(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), np.zeros(0, int))
        scores = [np.asarray(m)[where].ravel() for m, where in zip(maps, inside, strict=True)]
        truths = [mask[where].ravel() for mask, where in zip(masks, inside, strict=True)]
        components = [label_components(mask[None]) for mask in masks]
        counts = (labels.max() + 1 if labels.size else 0 for labels in components)
        offsets = np.cumsum([0, *counts])
        return cls(
            score=np.concatenate(scores),
            truth=np.concatenate(truths),
            counts=np.array([score.size for score in scores]),
            labels=np.concatenate(
                [offset + labels for offset, labels in zip(offsets[:-1], components, strict=True)]
            ),
        )


class SelectedPixels:
    """The pixels of some of the samples of a `Pixels`, which are one themselves.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores, SelectedPixels
    >>> maps = np.arange(6.0).reshape(3, 2)
    >>> pixels = SelectedPixels(PixelScores.from_maps(maps, maps > 3), np.array([1, 0, 1], bool))
    >>> pixels.counts.tolist(), pixels.take([1]).score.tolist()
    ([2, 2], [4.0, 5.0])
    """

    def __init__(self, pixels: Pixels, selected: Array) -> None:
        """selected: (N,) bool"""
        self._pixels, self._selected = pixels, np.asarray(selected, bool)
        self._index = np.flatnonzero(selected).tolist()
        self.counts = pixels.counts[self._selected]

    def take(self, samples: Sequence[int]) -> PixelScores:
        """Some of the selected samples, in this order."""
        return self._pixels.take([self._index[i] for i in samples])

    def blocks(self) -> Iterator[PixelScores]:
        """The selected samples, some at a time."""
        first = 0
        for block in self._pixels.blocks():
            last = first + len(block.counts)
            chosen = np.flatnonzero(self._selected[first:last]).tolist()
            if chosen:
                yield block.take(chosen)
            first = last

    def ranking(self, selected: Array | None = None) -> RankingMetrics | None:
        """The ranking of the pixels of all selected samples, or of some of these."""
        return self._pixels.ranking(self._among(selected))

    def histogram(self) -> StreamingHistogram:
        """The pixels of all selected samples, counted by bins of their scores."""
        return histogram_of(self)

    def order_statistics(
        self, ranks: Array, *, truth: bool | None = None, samples: Array | None = None
    ) -> Array:
        """The scores at some ranks of the pixels of that truth in the selected samples."""
        return self._pixels.order_statistics(ranks, truth=truth, samples=self._among(samples))

    def distinct_abnormal(self, most: int) -> Array:
        """The distinct scores of abnormal pixels, ascending; `most` of more."""
        parts = [np.unique(block.score[block.truth]) for block in self.blocks()]
        distinct = np.unique(_concatenate(parts, np.dtype(np.float32)))
        return distinct[evenly_spread(distinct.size, most)]

    def _among(self, samples: Array | None) -> Array:
        """Of samples among the selected ones, which of all they are."""
        if samples is None:
            return self._selected
        chosen = np.zeros(len(self._selected), bool)
        chosen[self._index] = samples
        return chosen


def _concatenate(parts: Sequence[Array], dtype: Any) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])
