"""Scorers: maps of any method in units of what it says of healthy samples, one level or all.

A scorer stands between the maps that a method gives and everything that the protocol does with
them. What it must know of healthy samples it reads from the calibration split, within the regions
of interest; maps are read block by block and never held as a whole.

`pvalue`           -log10 of a pixel's conformal p-value among calibration pixels (`conformal`)
`position-z`       standard deviations from the calibration mean at the same position: for aligned
                   samples. The Mahalanobis distance with a diagonal covariance, with its sign
`levels-mean`      the mean over noise levels of maps in standard deviations of calibration pixels
`levels-max`       their maximum
`levels-mahalanobis`  the Mahalanobis distance of a pixel's values at all levels from those of
                   calibration pixels, with their covariance

Scorers of all levels leave one map, which stands at the paper's level. A method's own scores are
treated alike, as one value for every sample.

Letters: L levels, N samples, S one to three spatial axes, P pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .conformal import Calibration
from .metrics.connected_components import Array
from .predictions import BLOCK_SIZE, Predictions
from .protocol import Protocol
from .protocol_values import ProtocolError

POSITION_PRIOR = 10
"""`position-z`: as many samples as the variance of all positions counts at each position."""

EVERY_LEVEL = slice(None)

Transform = Callable[[Array, slice], Array]
"""(maps of some samples at some levels, (l, n, *S) float64, or scores (l, n); which of the L levels
they are) -> (l, n, *S) or (l, n), or of one map in place of all levels."""


class ScoredSplits(NamedTuple):
    """Predictions after a scorer.

    calibration, val, test: of the splits        synthetic: None without
    levels: the levels of their maps

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.scorers import ScoredSplits
    >>> empty = Predictions([], [], np.zeros(0, bool), None, None, None, [], None, None)
    >>> ScoredSplits(empty, empty, empty, levels=[250], synthetic=None).levels
    [250]
    """

    calibration: Predictions
    val: Predictions
    test: Predictions
    levels: list[int]
    synthetic: Predictions | None


def score_splits(
    protocol: Protocol,
    calibration: Predictions,
    val: Predictions,
    test: Predictions,
    levels: Sequence[int],
    published: int,
    synthetic: Predictions | None = None,
) -> ScoredSplits:
    """Return the predictions of all splits as the protocol's scorer has them.

    levels: of the maps
    published: the paper's, at which the one map of scorers of all levels stands
    synthetic: as `evaluate` has it

    Raises ProtocolError where there are no calibration samples to score by.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.benchmark.evaluation.scorers import score_splits
    >>> def split(values):
    ...     keys = [str(i) for i in range(len(values[0]))]
    ...     return Predictions(keys, keys, np.zeros(len(keys), bool), None, None, None,
    ...                        [{} for _ in keys], np.array(values), None)
    >>> normal, test = split([[0.0, 2.0], [0.0, 20.0]]), split([[3.0], [10.0]])
    >>> scored = score_splits(Protocol(scorer="levels-max"), normal, test, test, [100, 250], 100)
    >>> scored.test.score.tolist(), scored.levels  # 2 and 0 standard deviations above the mean
    ([[2.0]], [100])
    """
    if protocol.scorer == "none":
        return ScoredSplits(calibration, val, test, list(levels), synthetic)
    if not len(calibration.label):
        raise ProtocolError(
            f"scorer '{protocol.scorer}' compares maps with those of calibration samples, and "
            "there are none; use scorer=none"
        )
    of_map = of_score = None
    if calibration.map is not None:
        of_map = _fit(protocol.scorer, _MapReader(calibration, protocol.roi))
    if calibration.score is not None:
        name = protocol.scorer if protocol.scorer != "position-z" else "levels-z"
        of_score = _fit(name, _ScoreReader(calibration))

    def scored(predictions: Predictions) -> Predictions:
        maps, score = predictions.map, predictions.score
        if maps is not None and of_map is not None:
            maps = ScoredMaps(maps, of_map, joins_levels(protocol.scorer))
        if score is not None and of_score is not None:
            score = of_score(np.asarray(score, np.float64), EVERY_LEVEL)
        return replace(predictions, map=maps, score=score)

    scored_levels = [published] if joins_levels(protocol.scorer) else list(levels)
    more = None if synthetic is None else scored(synthetic)
    return ScoredSplits(scored(calibration), scored(val), scored(test), scored_levels, more)


@dataclass(frozen=True)
class ScoredMaps:
    """Maps that are scored when they are read: [l, i:j] is (j - i, *S) float32.

    maps: (L, N, *S), an array or on disk        transform: of some samples at all levels
    joins_levels: whether the transform leaves one map of all levels

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.scorers import ScoredMaps
    >>> sum_of_levels = lambda part, levels: part.sum(0, keepdims=True)
    >>> maps = ScoredMaps(np.ones((2, 5, 4)), sum_of_levels, joins_levels=True)
    >>> maps.shape, maps[0, 1:3].tolist()[0]
    ((1, 5, 4), [2.0, 2.0, 2.0, 2.0])
    """

    maps: Any
    transform: Transform
    joins_levels: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, N, *S), of K = 1 or L levels."""
        return (1 if self.joins_levels else self.maps.shape[0], *self.maps.shape[1:])

    def __getitem__(self, index: tuple[int, slice]) -> Array:
        level, rows = index
        if not self.joins_levels:
            part = np.asarray(self.maps[level, rows], np.float64)
            return self.transform(part[None], slice(level, level + 1))[0].astype(np.float32)
        parts = [np.asarray(self.maps[k, rows], np.float64) for k in range(self.maps.shape[0])]
        return self.transform(np.stack(parts), EVERY_LEVEL)[level].astype(np.float32)


def joins_levels(scorer: str) -> bool:
    """Return whether a scorer leaves one map of all noise levels.

    >>> from adbench.benchmark.evaluation.scorers import joins_levels
    >>> joins_levels("levels-max"), joins_levels("pvalue")
    (True, False)
    """
    return scorer in ("levels-mean", "levels-max", "levels-mahalanobis")


class _MapReader:
    """The maps of calibration samples, block by block."""

    def __init__(self, predictions: Predictions, roi: bool) -> None:
        self.maps, self.groups = predictions.map, predictions.groups
        self.roi = predictions.roi if roi else None
        self.levels, self.samples, *self.shape = self.maps.shape

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """Maps of some samples at all levels, (L, n, *S) float64, and which pixels count."""
        step = max(1, BLOCK_SIZE // max(1, self.levels * math.prod(self.shape)))
        for i in range(0, self.samples, step):
            rows = slice(i, min(i + step, self.samples))
            parts = [np.asarray(self.maps[k, rows], np.float64) for k in range(self.levels)]
            block = np.stack(parts)
            inside = np.ones(block.shape[1:], bool)
            yield block, inside if self.roi is None else np.asarray(self.roi[rows], bool)

    def samples_at(self, level: int) -> list[Array]:
        """The pixels that count of every sample at a level, (P_n,) each."""
        values = []
        for i in range(self.samples):
            pixels = np.asarray(self.maps[level, i : i + 1], np.float64)[0]
            values.append(pixels[np.asarray(self.roi[i], bool)] if self.roi is not None
                          else pixels.ravel())  # fmt: skip
        return values


class _ScoreReader:
    """The scores of calibration samples, as maps of one pixel."""

    def __init__(self, predictions: Predictions) -> None:
        self.score, self.groups = np.asarray(predictions.score, np.float64), predictions.groups
        self.levels = len(self.score)

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        yield self.score, np.ones(self.score.shape[1:], bool)

    def samples_at(self, level: int) -> list[Array]:
        return [value[None] for value in self.score[level]]


def _fit(scorer: str, reader: _MapReader | _ScoreReader) -> Transform:
    """What the scorer does to maps or scores, with what it must know of healthy ones."""
    if scorer == "pvalue":
        by_level = [
            Calibration.from_pixels(reader.samples_at(level), reader.groups)
            for level in range(reader.levels)
        ]
        return lambda part, levels: np.stack(
            [-np.log10(c.p_values(m)) for c, m in zip(by_level[levels], part, strict=True)]
        )
    if scorer == "position-z":
        return _position_z(reader)
    mean, covariance = _moments(reader)  # (L,), (L, L)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 1e-24))

    def z(part: Array, levels: slice) -> Array:
        view = (-1, *[1] * (part.ndim - 1))
        return (part - mean[levels].reshape(view)) / deviation[levels].reshape(view)

    if scorer == "levels-z":
        return z
    if scorer == "levels-mean":
        return lambda part, levels: z(part, levels).mean(0, keepdims=True)
    if scorer == "levels-max":
        return lambda part, levels: z(part, levels).max(0, keepdims=True)
    # the correlation's pseudo-inverse: levels that say the same count once
    correlation = covariance / deviation[:, None] / deviation
    precision = np.linalg.pinv(correlation, rcond=1e-8, hermitian=True)

    def distance(part: Array, levels: slice) -> Array:
        away = z(part, levels)
        square = np.einsum("l...,lk,k...->...", away, precision, away)
        return np.sqrt(np.maximum(square, 0))[None]

    return distance


def _moments(reader: _MapReader | _ScoreReader) -> tuple[Array, Array]:
    """Mean (L,) and covariance (L, L) of the calibration pixels' values at all levels."""
    count, total = 0, np.zeros(reader.levels)
    for block, inside in reader.blocks():
        values = block[:, inside]
        count, total = count + values.shape[1], total + values.sum(1)
    if not count:
        raise ProtocolError("no calibration sample has a pixel in its region of interest")
    mean, squares = total / count, np.zeros((reader.levels, reader.levels))
    for block, inside in reader.blocks():
        away = block[:, inside] - mean[:, None]
        squares += away @ away.T
    return mean, squares / count


def _position_z(reader: _MapReader | _ScoreReader) -> Transform:
    """Standard scores by position; variances lean on that of all positions, `POSITION_PRIOR`."""
    count: Any = 0
    total: Any = 0.0
    for block, inside in reader.blocks():
        count, total = count + inside.sum(0), total + (block * inside).sum(1)
    mean = total / np.maximum(count, 1)  # (L, *S)
    squares: Any = 0.0
    for block, inside in reader.blocks():
        squares = squares + (np.square(block - mean[:, None]) * inside).sum(1)
    flat = tuple(range(1, squares.ndim))
    freedom = np.maximum(count - 1, 0)  # (*S)
    if not freedom.sum():
        raise ProtocolError(
            "scorer 'position-z' needs at least two calibration samples with pixels at the same "
            "positions; use levels-mean or pvalue"
        )
    pooled = squares.sum(axis=flat) / freedom.sum()  # (L,)
    pooled = pooled.reshape(-1, *[1] * len(flat))
    variance = (squares + POSITION_PRIOR * pooled) / (freedom + POSITION_PRIOR)
    deviation = np.sqrt(np.maximum(variance, 1e-24))
    seen = count > 0
    middle = (total * seen).sum(axis=flat) / np.maximum(count.sum(), 1)
    mean = np.where(seen, mean, middle.reshape(pooled.shape))
    return lambda part, levels: (part - mean[levels, None]) / deviation[levels, None]
