"""Denoisers known in closed form, to test samplers against, and a small one that is not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adbench.engine.diffusion.schedule import Schedule


class NormalPosteriorMean(nn.Module):
    """The exact x_0 of data that is normal with this mean and variance, at every place alike."""

    def __init__(self, schedule: Schedule, mean: float, variance: float) -> None:
        super().__init__()
        self.schedule, self.mean, self.variance = schedule, mean, variance

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = self.schedule.alpha_bar[t + 1].view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        gain = alpha_bar.sqrt() * self.variance / (alpha_bar * self.variance + 1 - alpha_bar)
        return self.mean + gain * (x - alpha_bar.sqrt() * self.mean)


class ConstantX0(nn.Module):
    """Says that x_0 is `image`, whatever it is shown."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image, self.calls, self.rows = image, 0, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.image.expand_as(x).clone()


class ConstantNoise(nn.Module):
    """Says that the noise is `eps`."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, self.eps)


class NoiseField(nn.Module):
    """Says that the noise is this field (C, *S), whatever it is shown."""

    def __init__(self, eps: Tensor) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.eps.expand_as(x).clone()


class SmoothNetwork(nn.Module):
    """A smooth function of x and of the timestep, to compare samplers by; nothing is known of it.
    outs: how many times C channels come out. It keeps the timesteps that it was asked at."""

    def __init__(self, outs: int = 1) -> None:
        super().__init__()
        self.outs = outs
        self.timesteps: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.timesteps.append(t.tolist())
        phase = t.view(-1, *[1] * (x.ndim - 1)) / 300
        return torch.cat([torch.sin((2 + k) * x + phase + k) for k in range(self.outs)], 1)


class BernoulliPosterior(nn.Module):
    """The logit of x_l differing from x_0, for bits that are 1 with chance `prior` (C, *S) each
    by itself: Bayes' rule for the symmetric process."""

    def __init__(self, schedule: Schedule, prior: Tensor) -> None:
        super().__init__()
        self.schedule, self.prior = schedule, prior

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = self.schedule.alpha_bar[t + 1].view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        flipped = (1 - alpha_bar) / 2
        other = x * (1 - self.prior) + (1 - x) * self.prior  # chance of the bit not shown
        return (flipped * other).log() - ((1 - flipped) * (1 - other)).log()


class ConvolutionalNetwork(nn.Module):
    """The layers whose last digits depend on the shape of a batch (convolution, group norm, linear,
    attention), once each: what a UNet of images has many of. outs: how many channels come out."""

    def __init__(self, outs: int = 1, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.time = nn.Linear(2, width)
        self.norm = nn.GroupNorm(2, width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.leave = nn.Conv2d(width, outs, 3, padding=1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for p in self.parameters():  # nothing at zero, so that every part has a say
                nn.init.normal_(p, std=0.1)
        self.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(torch.stack([(t / 300).sin(), (t / 300).cos()], 1).to(x.dtype))
        h = nn.functional.silu(self.norm(self.enter(x) + time[..., None, None]))
        places = h.flatten(2).transpose(1, 2)
        attended, _ = self.attend(places, places, places, need_weights=False)
        return self.leave(h + attended.transpose(1, 2).unflatten(2, h.shape[2:]))


class NormalVelocity(nn.Module):
    """The exact velocity of rectified flow, E[noise - x_0 | x_t], t = level / T, of data that is
    normal with this mean and variance at every place; moved by `offset`."""

    def __init__(self, T: int, mean: float, variance: float, offset: float = 0.0) -> None:
        super().__init__()
        self.T, self.mean, self.variance, self.offset = T, mean, variance, offset

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        t = ((timesteps + 1) / self.T).view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        spread = (1 - t).square() * self.variance + t.square()
        gain = (t - (1 - t) * self.variance) / spread
        return gain * (x - (1 - t) * self.mean) - self.mean + self.offset
