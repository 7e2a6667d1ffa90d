"""Healthy mean: the distance from the mean of the normal training samples. No network.

The cheapest baseline there is: a diffusion model that loses to it has learnt less than an average
image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from .base import Detection, Method


class HealthyMean(Method):
    """Score every pixel by its absolute difference from the mean of the normal training samples,
    mean over channels; the score is the map's mean.

    >>> import torch
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.healthy_mean import HealthyMean
    >>> method = HealthyMean(Spec(1, (2,)))
    >>> train = [Sample(torch.full((1, 2), x), f"{x}", f"{x}", False) for x in (0.0, 0.5)]
    >>> method.fit(train, [], TrainingContext())
    >>> method.localize(torch.tensor([[[0.25, 1.0]]]), Rng(["a"]))
    tensor([[0.0000, 0.7500]])
    """

    mean: Tensor  # (C, *S)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.register_buffer("mean", torch.zeros(spec.channels, *spec.shape))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        total = torch.zeros_like(self.mean, dtype=torch.float64, device="cpu")
        for i in range(len(train)):
            total += train[i].x
        self.mean.copy_(total / max(len(train), 1))

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        normal = self.mean.expand(len(levels), *x.shape)  # (L, N, C, *S)
        return Detection.from_map((x - normal).abs().mean(2), normal)
