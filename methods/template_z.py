"""Template z: the distance from the mean of normal samples in standard deviations, per pixel.

A normal distribution for every pixel; what a statistician would do before anybody trains a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Positive
from .base import Detection, Method


class TemplateZ(Method):
    """Score every pixel by its absolute z-score, mean over channels; the score is the map's mean.

    floor: added to every standard deviation, in units of x: where normal samples never differ
        (background), a difference of this size has a z-score of 1

    >>> import torch
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.template_z import TemplateZ
    >>> method = TemplateZ(Spec(1, (2,)), floor=0.25)
    >>> train = [Sample(torch.full((1, 2), x), f"{x}", f"{x}", False) for x in (0.0, 0.5)]
    >>> method.fit(train, [], TrainingContext())
    >>> method.localize(torch.tensor([[[0.25, 1.0]]]), Rng(["a"]))  # 0.75 / (0.25 + 0.25)
    tensor([[0.0000, 1.5000]])
    """

    mean: Tensor  # (C, *S)
    spread: Tensor  # (C, *S)

    search_space = SearchSpace(floor=Interval(0.005, 0.2, log=True))

    def __init__(self, spec: Spec, *, floor: Positive = 0.05) -> None:
        super().__init__(spec)
        self.floor = floor
        self.register_buffer("mean", torch.zeros(spec.channels, *spec.shape))
        self.register_buffer("spread", torch.ones(spec.channels, *spec.shape))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        total = torch.zeros(self.mean.shape, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for i in range(len(train)):
            x = train[i].x.double()
            total += x
            squares += x.square()
        mean = total / max(len(train), 1)
        variance = (squares / max(len(train), 1) - mean.square()).clamp(min=0)
        self.mean.copy_(mean)
        self.spread.copy_(variance.sqrt() + self.floor)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        z = ((x - self.mean) / self.spread).abs().mean(1)  # (N, *S)
        normal = self.mean.expand(len(levels), *x.shape)
        return Detection.from_map(z.expand(len(levels), *z.shape), normal)
