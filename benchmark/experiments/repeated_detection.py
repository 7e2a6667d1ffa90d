"""A method whose map is a sample's Mahalanobis distance from several of its own reconstructions.

Behrendt et al., "Leveraging the Mahalanobis Distance to enhance Unsupervised Brain MRI Anomaly
Detection", 2024. https://arxiv.org/abs/2407.12474

A stochastic method is asked R times, each time with random streams of its own; what it says is
reduced while it predicts, so that one map is stored and not R. Differs from the paper in what it
does not state: how the covariance of a few reconstructions is made invertible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...datasets.base import Split
from ...engine.runtime.context import TrainingContext
from ...engine.runtime.rng import Rng
from ...methods.base import Detection, Method
from ..evaluation.protocol import Protocol

SHRINKAGE = 0.5
"""How much of the covariance is that of independent values of equal variance."""


def repeat_detection(method: Method, protocol: Protocol) -> Method:
    """Return a fitted method, or one that asks it as often as the protocol says.

    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.benchmark.experiments.repeated_detection import repeat_detection
    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.intensity import Intensity
    >>> method = Intensity(Spec(1, (8,)))
    >>> repeat_detection(method, Protocol()) is method
    True
    >>> repeat_detection(method, Protocol(repeats=5)).repeats
    5
    """
    if protocol.repeats == 1:
        return method
    return RepeatedDetection(method, protocol.repeats, protocol.covariance).eval()


class RepeatedDetection(Method):
    """Ask a fitted method `repeats` times; the map is the distance from its reconstructions.

    With mean m and covariance S of the R reconstructions of a sample x, value by value, the map is
    the root of the mean over channels of (x - m) * inverse(T) (x - m), where T = (S + v I) / 2 and
    v the mean variance of the sample's values. S is diagonal, or has all covariances of values
    (of rank R - 1 at most; what is below 0 becomes 0). A method without reconstructions has its
    maps in their place: the distance of a map of 0 from them. The score is the mean of the R
    scores.

    method: fitted; its first request has the streams that it would have alone
    repeats: R, at least 2; ValueError for fewer
    covariance: "diagonal" or "full"

    `detect` raises ValueError where the method says the same every time.

    >>> import torch
    >>> from adbench.benchmark.experiments.repeated_detection import RepeatedDetection
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.base import Detection, Method
    >>> class Noise(Method):
    ...     def fit(self, train, calibration, context):
    ...         pass
    ...     def detect(self, x, levels, rng):
    ...         drawn = rng.normal(x.shape[1:]).expand(len(levels), *x.shape)
    ...         return Detection.from_map((drawn - x).abs().sum(2), drawn)
    >>> method = RepeatedDetection(Noise(Spec(1, (2,))), 500)
    >>> method.detect(torch.tensor([[[0.0, 3.0]]]), [0], Rng(["a"])).map.round(decimals=1)
    tensor([[[0.1000, 2.9000]]])
    """

    def __init__(
        self, method: Method, repeats: int, covariance: Literal["diagonal", "full"] = "diagonal"
    ) -> None:
        if repeats < 2:
            raise ValueError(f"a distance from repeated reconstructions needs 2, not {repeats}")
        torch.nn.Module.__init__(self)
        self.spec, self.method = method.spec, method
        self.repeats, self.covariance = repeats, covariance
        self.levels, self.published = method.levels, method.published  # pyright: ignore[reportAttributeAccessIssue]
        self.ineffective_arguments = {}

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        self.method.fit(train, calibration, context)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        spread = _Spread(keep_all=self.covariance == "full")
        score, of_images = x.new_zeros(len(levels), len(x)), False
        for r in range(self.repeats):
            stream = rng.fork("repeated detection", r) if r else rng
            detection = self.method.detect(x, levels, stream)
            score = score + detection.score / self.repeats
            if detection.reconstruction is not None:
                spread.add(detection.reconstruction)
                of_images = True
            elif detection.map is not None:
                spread.add(detection.map[:, :, None])
        if not spread.count:
            return Detection(score)
        if not bool(spread.squares.any()):
            raise ValueError(
                f"{type(self.method).__name__} gives the same each of {self.repeats} times, so "
                "that there is no spread to measure by; protocol repeats=1 takes its map as it is"
            )
        map = self._distance(x - spread.mean if of_images else -spread.mean, spread)
        return Detection(score, map, spread.mean if of_images else None)

    def _distance(self, away: Tensor, spread: _Spread) -> Tensor:
        """The map (L, N, *S) of what is away (L, N, C, *S) from the mean."""
        variance = spread.squares / (self.repeats - 1)
        means = torch.stack([v.mean() for v in variance.flatten(0, 1)])
        least = SHRINKAGE * means.clamp(min=1e-12)  # (L * N,)
        if self.covariance == "diagonal":
            lowest = least.view(*away.shape[:2], *[1] * (away.ndim - 2))
            square = away.square() / ((1 - SHRINKAGE) * variance + lowest)
        else:
            centred = torch.stack(spread.values) - spread.mean
            columns = centred.flatten(1, 2).unbind(1)
            square = torch.stack(
                [
                    _low_rank_contributions(*parts)
                    for parts in zip(away.flatten(0, 1), columns, least, strict=True)
                ]
            ).view_as(away)
        return square.clamp(min=0).mean(2).sqrt()


class _Spread:
    """Mean and squared deviations of what is added, by Welford's updates, and perhaps all of it."""

    def __init__(self, *, keep_all: bool) -> None:
        self.count, self.keep_all, self.values = 0, keep_all, list[Tensor]()
        self.mean = self.squares = torch.zeros(())

    def add(self, value: Tensor) -> None:
        self.count += 1
        mean = self.mean.to(value.device)
        away = value - mean
        self.mean = mean + away / self.count
        self.squares = self.squares.to(value.device) + away * (value - self.mean)
        if self.keep_all:
            self.values.append(value)


def _low_rank_contributions(away: Tensor, centred: Tensor, least: Tensor) -> Tensor:
    """Each value's part of away' inverse(T) away, (C, *S), by Woodbury's identity.

    T = (1 - SHRINKAGE) A A' / (R - 1) + least I, A the columns of centred (R, C, *S).
    """
    delta, least = away.flatten().double(), least.double()
    spread = centred.flatten(1).double() * ((1 - SHRINKAGE) / (len(centred) - 1)) ** 0.5  # (R, P)
    inner = spread @ spread.T + least * torch.eye(len(spread), device=away.device).double()
    solved = (delta - spread.T @ torch.linalg.solve(inner, spread @ delta)) / least
    return (delta * solved).view_as(away).to(away.dtype)
