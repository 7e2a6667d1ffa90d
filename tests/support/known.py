"""Denoisers that are known in closed form, to test samplers against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adbench.engine.schedule import Schedule


class Normal(nn.Module):
    """The exact x_0 of data that is normal with this mean and variance, at every place alike."""

    def __init__(self, schedule: Schedule, mean: float, variance: float) -> None:
        super().__init__()
        self.schedule, self.mean, self.variance = schedule, mean, variance

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        kept = self.schedule.kept[t + 1].view(-1, *[1] * (x.ndim - 1)).float()
        gain = kept.sqrt() * self.variance / (kept * self.variance + 1 - kept)
        return self.mean + gain * (x - kept.sqrt() * self.mean)


class Oracle(nn.Module):
    """Says that x_0 is `image`, whatever it is shown."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image, self.calls, self.rows = image, 0, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.image.expand_as(x).clone()


class Constant(nn.Module):
    """Says that the noise is `eps`."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, self.eps)
