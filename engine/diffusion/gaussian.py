"""The Gaussian forward process and the steps back along it, in levels; every level per sample.

Ho et al. 2020 (DDPM), equations 4, 6, 7; Song et al. 2021 (DDIM), equations 12 and 16; Nichol and
Dhariwal 2021, equation 15; Salimans and Ho 2022, section 4 (v).
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ..noise.noise import Noise, gaussian
from .schedule import Schedule

Variance = Literal["small", "large", "learned"]
"""The noise of DDPM's step back: the posterior's, the forward step's, or as the network says,
between the two."""


class Process(Protocol):
    """A way to lose x_0 by and by, and what a denoiser must know of it.

    name: for checkpoints. fresh: what is drawn to disturb a sample, if nobody says otherwise.
    clean and noise: each from x and the other.
    """

    name: str
    fresh: Noise

    @property
    def schedule(self) -> Schedule: ...
    def disturb(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor: ...
    def clean(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor: ...
    def noise(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor: ...


class Gaussian(nn.Module):
    """x is (N, C, *S), a level is (N,) int64 in 0..T. Coefficients are computed in float64."""

    name = "gaussian"

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.fresh: Noise = gaussian

    def disturb(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x_0 brought to a level in one go."""
        kept = kept_at(self.schedule, level, x)
        return kept.sqrt().to(x.dtype) * x + (1 - kept).sqrt().to(x.dtype) * noise

    def further(self, x: Tensor, here: Tensor, there: Tensor, noise: Tensor) -> Tensor:
        """A sample at level `here` brought on to the higher level `there`."""
        ratio = kept_at(self.schedule, there, x) / kept_at(self.schedule, here, x)
        return ratio.sqrt().to(x.dtype) * x + (1 - ratio).sqrt().to(x.dtype) * noise

    def clean(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its noise imply."""
        kept = kept_at(self.schedule, level, x)
        return (x - (1 - kept).sqrt().to(x.dtype) * noise) / kept.sqrt().to(x.dtype)

    def noise(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The noise that x at this level (above 0) and its x_0 imply."""
        kept = kept_at(self.schedule, level, x)
        return (x - kept.sqrt().to(x.dtype) * clean) / (1 - kept).sqrt().to(x.dtype)

    def velocity(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """v of x_0 and its noise: signal times noise minus sigma times x_0."""
        kept = kept_at(self.schedule, level, x)
        return kept.sqrt().to(x.dtype) * noise - (1 - kept).sqrt().to(x.dtype) * x

    def unwound(self, x: Tensor, v: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its v imply."""
        kept = kept_at(self.schedule, level, x)
        return kept.sqrt().to(x.dtype) * x - (1 - kept).sqrt().to(x.dtype) * v

    def back(
        self,
        clean: Tensor,
        eps: Tensor,
        here: Tensor,
        there: Tensor,
        noise: Tensor | None,
        *,
        eta: float = 1.0,
        variance: Variance = "small",
        spread: Tensor | None = None,
    ) -> Tensor:
        """One step down from `here` to `there`, given the estimates of x_0 and of the noise.

        eta: 0 is DDIM, 1 is DDPM's ancestral step; `noise` may be None where eta is 0. Nothing is
        added on arrival at level 0. With variance "large" or "learned" the mean is DDPM's and the
        noise wider; spread: the network's own say for "learned", about -1..1.
        """
        a, b = kept_at(self.schedule, here, clean), kept_at(self.schedule, there, clean)
        small, large = (1 - b) / (1 - a) * (1 - a / b), 1 - a / b
        rest = (1 - b - eta**2 * small).clamp(min=0).sqrt().to(clean.dtype)
        x = b.sqrt().to(clean.dtype) * clean + rest * eps
        if noise is None:
            return x
        if variance == "learned":
            wide = eta**2 * between(small, large, spread)
        else:
            wide = eta**2 * (small if variance == "small" else large)
        return x + (wide * (b < 1)).sqrt().to(clean.dtype) * noise

    def carried(self, clean: Tensor, eps: Tensor, there: Tensor) -> Tensor:
        """x at any level, up or down, along the same x_0 and the same noise: DDIM's ODE."""
        kept = kept_at(self.schedule, there, clean)
        return kept.sqrt().to(clean.dtype) * clean + (1 - kept).sqrt().to(clean.dtype) * eps

    def posterior(self, x: Tensor, clean: Tensor, here: Tensor, there: Tensor) -> Tensor:
        """The mean of q(x_there | x_here, x_0), which `back` adds its noise to."""
        a, b = kept_at(self.schedule, here, x), kept_at(self.schedule, there, x)
        of_clean = b.sqrt() * (1 - a / b) / (1 - a)
        of_x = (a / b).sqrt() * (1 - b) / (1 - a)
        return of_clean.to(x.dtype) * clean + of_x.to(x.dtype) * x

    def divergence(self, clean: Tensor, guess: Tensor, here: Tensor, there: Tensor) -> Tensor:
        """KL of the true step down from the one that a guess of x_0 makes, per value, in nats.

        With the posterior's variance it is half the gain in signal-to-noise times the squared
        error; `there` is at least 1.
        """
        a, b = kept_at(self.schedule, here, clean), kept_at(self.schedule, there, clean)
        gain = (b / (1 - b) - a / (1 - a)) / 2
        return gain.to(clean.dtype) * (clean - guess).square()


def between(small: Tensor, large: Tensor, spread: Tensor | None) -> Tensor:
    """The variance a network chose, float64: logarithms mixed by (spread + 1) / 2."""
    if spread is None:
        raise ValueError("a learned variance needs a denoiser made with learned=True")
    share = (spread.double() + 1) / 2
    return (share * large.log() + (1 - share) * small.clamp(min=1e-20).log()).exp()


def disturbed(
    process: Process, x: Tensor, level: Tensor, noise: Tensor, region: Tensor | None
) -> Tensor:
    """The partial process: x_0 brought to a level where `region` ((N | 1), 1, *S) bool is true,
    and as it is elsewhere. Everywhere if None."""
    there = process.disturb(x, level, noise)
    return there if region is None else torch.where(region, there, x)


def kept_at(schedule: Schedule, level: Tensor, like: Tensor) -> Tensor:
    """kept of each sample's level (N,), float64, shaped to multiply (N, C, *S)."""
    return schedule.kept[level].view(-1, *[1] * (like.ndim - 1))
