"""Conformal p-values of scores and pixels against held-out normal samples, exchangeable by group.

Construction. Samples of one patient are no independent draws, so groups are what is exchangeable:
the groups of the calibration split and the group of a new sample. Every calibration group has one
vote, and splits it evenly over its samples:

    p(s) = (1 + sum over groups of the share of the group's samples that score s or more) / (G + 1)

With one sample in each group this is the usual (1 + #{calibration >= s}) / (n + 1). With several it
is the p-value that belongs to hierarchical conformal prediction (Lee, Barber and Willett,
"Distribution-free inference with hierarchical data", 2023; Dunn, Wasserman and Ramdas, 2018): for
one sample drawn at random from a new normal group, P(p <= a) <= a for every a, whatever the scores'
distribution and however alike the samples of a group are. The highest score of each group as its
one value would be valid too, but of no use for single samples of large groups: they would hardly
ever be called abnormal. Counting all samples alike would not be valid.

A pixel's p-value is the same with pixels in place of samples: valid for a pixel drawn at random
from a new normal group. It never is below 1 / (G + 1): nineteen groups allow a decision at 5 %.

Letters: N samples, G groups, P pixels, K knots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ground_truth import GroundTruth
from .metrics.connected_components import Array
from .metrics.pixel_scores import Pixels

NOMINAL_RATE = 0.05
"""The rate of false alarms at which a record states the true one."""

MAX_KNOTS = 512
"""Values by which the distribution of normal pixels is stored, about."""

MAX_SORTED = 2**20
"""Pixels among which those values are chosen; the shares that exceed them are of all pixels."""


@dataclass(frozen=True)
class Calibration:
    """The distribution of normal values, each group with one vote.

    knots: (K,) ascending
    exceeded: (K,) the sum over groups of the share of their values above the knot before, which is
        G for the first; never less than the share of what is at least as high as the knot
    groups: G, how many there are

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.conformal import Calibration
    >>> calibration = Calibration.from_values(np.array([0.1, 0.2, 0.3]), ["a", "b", "c"])
    >>> calibration.p_values(np.array([0.05, 0.2, 0.9])).tolist()
    [1.0, 0.75, 0.25]
    """

    knots: Array
    exceeded: Array
    groups: int

    @classmethod
    def from_values(cls, values: Array, groups: Sequence[str]) -> Calibration:
        """The exact distribution of values (N,), each of one of the groups (N,).

        >>> import numpy as np
        >>> from adbench.benchmark.evaluation.conformal import Calibration
        >>> Calibration.from_values(np.array([1.0, 2.0, 3.0]), ["a", "a", "b"]).exceeded.tolist()
        [2.0, 1.5, 1.0]
        """
        values = np.asarray(values, np.float64)
        by_group = [values[members] for members in _members(groups).values()]
        return cls._of_groups(by_group, np.unique(values))

    @classmethod
    def from_pixels(cls, values: Sequence[Array], groups: Sequence[str]) -> Calibration:
        """The distribution of the pixels of N samples, (P_n,) each, at a few hundred knots.

        Half of the knots are spread over all pixels, half over the highest by factors of their
        share. Between two knots a p-value is that of the lower one: it errs on the safe side.

        >>> import numpy as np
        >>> from adbench.benchmark.evaluation.conformal import Calibration
        >>> pixels = [np.linspace(0, 1, 1000), np.linspace(0, 1, 1000)]
        >>> Calibration.from_pixels(pixels, ["a", "b"]).p_values(np.array([0.5])).round(2).tolist()
        [0.67]
        """
        sizes = [np.asarray(sample).size for sample in values]
        total = sum(sizes)
        if not total:
            return cls(np.zeros(0), np.zeros(0), 0)
        step, passed, highest, some = -(-total // MAX_SORTED), 0, [], []
        for sample in map(np.asarray, values):  # every step-th of all pixels
            some.append(sample[-passed % step :: step].copy())
            passed += sample.size
            highest += [sample.max()] if sample.size else []
        ranked = np.sort(np.concatenate(some))
        even = np.linspace(0, ranked.size - 1, MAX_KNOTS // 2)
        tail = ranked.size - np.geomspace(1, ranked.size, MAX_KNOTS // 2)
        at = np.unique(np.concatenate([even, tail]).round().astype(np.int64))
        knots = np.unique(np.append(ranked[at], max(highest)).astype(np.float64))
        by_group = (
            np.concatenate([np.asarray(values[i]) for i in members])
            for members in _members(groups).values()
        )
        return cls._of_groups((pixels for pixels in by_group if pixels.size), knots)

    @classmethod
    def _of_groups(cls, by_group: Iterable[Array], knots: Array) -> Calibration:
        """knots: ascending, the highest value of all among them"""
        exceeded, groups = np.zeros(len(knots)), 0
        for values in by_group:
            groups += 1
            ranked = np.sort(values)
            above = ranked.size - np.searchsorted(ranked, knots[:-1], side="right")
            exceeded += np.concatenate([[ranked.size], above])[: len(knots)] / ranked.size
        return cls(knots, exceeded, groups)

    def p_values(self, values: Array) -> Array:
        """The p-value of each value, (...) float64 in [1 / (G + 1), 1]; 1 without any group."""
        at = np.searchsorted(self.knots, np.asarray(values, np.float64), side="left")
        return np.minimum((1 + np.append(self.exceeded, 0.0)[at]) / (self.groups + 1), 1.0)

    def allows(self, rate: float) -> bool:
        """Whether there are groups enough for any p-value to be as low as this rate."""
        return 1 / (self.groups + 1) <= rate + 1e-12


class SamplePixels(Sequence[Array]):
    """The pixel scores (P,) of each of N samples; of streamed ones those of a block are in memory.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.conformal import SamplePixels
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps = np.arange(6.0).reshape(2, 3)
    >>> [part.tolist() for part in SamplePixels(PixelScores.from_maps(maps, maps > 9))]
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels.counts)

    def __getitem__(self, index: Any) -> Any:
        return self._pixels.take([index]).score

    def __iter__(self) -> Iterator[Array]:
        for block in self._pixels.blocks():
            yield from np.split(block.score, np.cumsum(block.counts)[:-1])


def calibration_record(calibration: GroundTruth, test: GroundTruth, level: int) -> dict[str, Any]:
    """The calibration samples at a level, and how often normal test data are called abnormal.

    JSON values: rate, the nominal one; groups; the key, group and score of every calibration
    sample; pixel_knots and pixel_exceeded of a Calibration of pixels, None without maps; image_fpr
    and pixel_fpr, the shares of normal test samples and of their pixels with p <= rate, where
    every group has one vote, None where the groups are too few for such a p-value.

    level: index of the level among those predicted

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.conformal import calibration_record
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> def of_scores(score):
    ...     keys, label = [str(value) for value in score], np.zeros(len(score), bool)
    ...     split = Predictions(keys, keys, label, None, None, None, [{}] * len(keys),
    ...                         np.array([score]), None)
    ...     return build_ground_truth(split, Protocol())
    >>> calibration, test = of_scores([*range(1, 20)]), of_scores([0.5, 7.5, 19.5, 12.5])
    >>> record = calibration_record(calibration, test, 0)
    >>> record["groups"], record["rate"], record["image_fpr"]  # one of four is above all
    (19, 0.05, 0.25)
    """
    normal = calibration.at_level(level)
    keys, groups = calibration.predictions.keys, calibration.predictions.groups
    least = min((s for s in normal.score.tolist() if np.isfinite(s)), default=0.0)
    score = np.maximum(normal.score, least)
    pixels = None
    if normal.pixels is not None:
        pixels = Calibration.from_pixels(SamplePixels(normal.pixels), groups)
    image_fpr, pixel_fpr = _false_positive_rates(
        Calibration.from_values(score, groups), pixels, test, level
    )
    return {
        "rate": NOMINAL_RATE,
        "groups": len(set(groups)),
        "key": list(keys),
        "group": list(groups),
        "score": score.tolist(),
        "pixel_knots": None if pixels is None else pixels.knots.tolist(),
        "pixel_exceeded": None if pixels is None else pixels.exceeded.tolist(),
        "image_fpr": image_fpr,
        "pixel_fpr": pixel_fpr,
    }


def _false_positive_rates(
    images: Calibration, pixels: Calibration | None, test: GroundTruth, level: int
) -> tuple[float | None, float | None]:
    """Of normal test samples and of their pixels; every group has one vote."""
    at_level, normal = test.at_level(level), ~test.label
    groups = [g for g, is_normal in zip(test.predictions.groups, normal, strict=True) if is_normal]
    rejected = images.p_values(at_level.score[normal]) <= NOMINAL_RATE
    image_fpr = _mean_of_groups(rejected, groups) if images.allows(NOMINAL_RATE) else None
    if pixels is None or at_level.pixels is None or not pixels.allows(NOMINAL_RATE):
        return image_fpr, None
    shares = [
        float((pixels.p_values(values) <= NOMINAL_RATE).mean()) if values.size else np.nan
        for values, is_normal in zip(SamplePixels(at_level.pixels), normal, strict=True)
        if is_normal
    ]
    return image_fpr, _mean_of_groups(np.array(shares), groups)


def _mean_of_groups(values: Array, groups: Sequence[str]) -> float | None:
    """The mean over groups of the mean of their values (N,) that are not NaN; None of none."""
    means = [_defined_mean(values[members]) for members in _members(groups).values()]
    defined = [mean for mean in means if mean is not None]
    return float(np.mean(defined)) if defined else None


def _defined_mean(values: Array) -> float | None:
    defined = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return float(defined.mean()) if defined.size else None


def _members(groups: Iterable[str]) -> dict[str, list[int]]:
    """The positions of each group, by its name, in sorted order."""
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return dict(sorted(members.items()))
