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
        kept = self.schedule.kept[t + 1].view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
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


class Field(nn.Module):
    """Says that the noise is this field (C, *S), whatever it is shown."""

    def __init__(self, eps: Tensor) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.eps.expand_as(x).clone()


class Curved(nn.Module):
    """A smooth function of x and of the timestep, to compare samplers by; nothing is known of it.
    outs: how many times C channels come out. It keeps the timesteps that it was asked at."""

    def __init__(self, outs: int = 1) -> None:
        super().__init__()
        self.outs = outs
        self.asked: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(t.tolist())
        phase = t.view(-1, *[1] * (x.ndim - 1)) / 300
        return torch.cat([torch.sin((2 + k) * x + phase + k) for k in range(self.outs)], 1)


class Bits(nn.Module):
    """The logit of x_l differing from x_0, for bits that are 1 with chance `prior` (C, *S) each
    by itself: Bayes' rule for the symmetric process."""

    def __init__(self, schedule: Schedule, prior: Tensor) -> None:
        super().__init__()
        self.schedule, self.prior = schedule, prior

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        kept = self.schedule.kept[t + 1].view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        flipped = (1 - kept) / 2
        other = x * (1 - self.prior) + (1 - x) * self.prior  # chance of the bit not shown
        return (flipped * other).log() - ((1 - flipped) * (1 - other)).log()
