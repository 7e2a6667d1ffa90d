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

    name: for checkpoints. default_noise: what is drawn to disturb a sample, if nobody says
    otherwise.
    clean and noise_from_x0: each from x and the other.
    """

    name: str
    default_noise: Noise

    @property
    def schedule(self) -> Schedule: ...
    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor: ...
    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor: ...
    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor: ...


class Gaussian(nn.Module):
    """x is (N, C, *S), a level is (N,) int64 in 0..T. Coefficients are computed in float64."""

    name = "gaussian"

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.default_noise: Noise = gaussian

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x_0 brought to a level in one go."""
        kept = alpha_bar_at(self.schedule, level, x)
        return kept.sqrt().to(x.dtype) * x + (1 - kept).sqrt().to(x.dtype) * noise

    def add_noise_step(
        self, x: Tensor, start_level: Tensor, end_level: Tensor, noise: Tensor
    ) -> Tensor:
        """A sample at level `start_level` brought on to the higher level `end_level`."""
        ratio = alpha_bar_at(self.schedule, end_level, x) / alpha_bar_at(
            self.schedule, start_level, x
        )
        return ratio.sqrt().to(x.dtype) * x + (1 - ratio).sqrt().to(x.dtype) * noise

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its noise imply."""
        kept = alpha_bar_at(self.schedule, level, x)
        return (x - (1 - kept).sqrt().to(x.dtype) * noise) / kept.sqrt().to(x.dtype)

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The noise that x at this level (above 0) and its x_0 imply."""
        kept = alpha_bar_at(self.schedule, level, x)
        return (x - kept.sqrt().to(x.dtype) * clean) / (1 - kept).sqrt().to(x.dtype)

    def velocity(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """v of x_0 and its noise: signal times noise minus sigma times x_0."""
        kept = alpha_bar_at(self.schedule, level, x)
        return kept.sqrt().to(x.dtype) * noise - (1 - kept).sqrt().to(x.dtype) * x

    def x0_from_velocity(self, x: Tensor, v: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its v imply."""
        kept = alpha_bar_at(self.schedule, level, x)
        return kept.sqrt().to(x.dtype) * x - (1 - kept).sqrt().to(x.dtype) * v

    def reverse_step(
        self,
        clean: Tensor,
        eps: Tensor,
        start_level: Tensor,
        end_level: Tensor,
        noise: Tensor | None,
        *,
        eta: float = 1.0,
        variance: Variance = "small",
        learned_variance: Tensor | None = None,
    ) -> Tensor:
        """One step down from `start_level` to `end_level`, given the estimates of x_0 and of the
        noise.

        eta: 0 is DDIM, 1 is DDPM's ancestral step; `noise` may be None where eta is 0. Nothing is
        added on arrival at level 0. With variance "large" or "learned" the mean is DDPM's and the
        noise wider; learned_variance: the network's own say for "learned", about -1..1.
        """
        a, b = (
            alpha_bar_at(self.schedule, start_level, clean),
            alpha_bar_at(self.schedule, end_level, clean),
        )
        small, large = (1 - b) / (1 - a) * (1 - a / b), 1 - a / b
        rest = (1 - b - eta**2 * small).clamp(min=0).sqrt().to(clean.dtype)
        x = b.sqrt().to(clean.dtype) * clean + rest * eps
        if noise is None:
            return x
        if variance == "learned":
            wide = eta**2 * interpolate_variance(small, large, learned_variance)
        else:
            wide = eta**2 * (small if variance == "small" else large)
        return x + (wide * (b < 1)).sqrt().to(clean.dtype) * noise

    def combine(self, clean: Tensor, eps: Tensor, level: Tensor) -> Tensor:
        """x at any level, up or down, along the same x_0 and the same noise: DDIM's ODE."""
        kept = alpha_bar_at(self.schedule, level, clean)
        return kept.sqrt().to(clean.dtype) * clean + (1 - kept).sqrt().to(clean.dtype) * eps

    def posterior_mean(
        self, x: Tensor, clean: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        """The mean of q(x_there | x_here, x_0), which `back` adds its noise to."""
        a, b = (
            alpha_bar_at(self.schedule, start_level, x),
            alpha_bar_at(self.schedule, end_level, x),
        )
        of_clean = b.sqrt() * (1 - a / b) / (1 - a)
        of_x = (a / b).sqrt() * (1 - b) / (1 - a)
        return of_clean.to(x.dtype) * clean + of_x.to(x.dtype) * x

    def posterior_kl(
        self, clean: Tensor, estimate: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        """KL of the true step down from the one that a guess of x_0 makes, per value, in nats.

        With the posterior's variance it is half the gain in signal-to-noise times the squared
        error; `end_level` is at least 1.
        """
        a, b = (
            alpha_bar_at(self.schedule, start_level, clean),
            alpha_bar_at(self.schedule, end_level, clean),
        )
        gain = (b / (1 - b) - a / (1 - a)) / 2
        return gain.to(clean.dtype) * (clean - estimate).square()


def interpolate_variance(small: Tensor, large: Tensor, learned_variance: Tensor | None) -> Tensor:
    """The variance a network chose, float64: logarithms mixed by (spread + 1) / 2."""
    if learned_variance is None:
        raise ValueError("a learned variance needs a denoiser made with learned=True")
    share = (learned_variance.double() + 1) / 2
    return (share * large.log() + (1 - share) * small.clamp(min=1e-20).log()).exp()


def add_noise_in_region(
    process: Process, x: Tensor, level: Tensor, noise: Tensor, region: Tensor | None
) -> Tensor:
    """The partial process: x_0 brought to a level where `region` ((N | 1), 1, *S) bool is true,
    and as it is elsewhere. Everywhere if None."""
    there = process.add_noise(x, level, noise)
    return there if region is None else torch.where(region, there, x)


def alpha_bar_at(schedule: Schedule, level: Tensor, like: Tensor) -> Tensor:
    """kept of each sample's level (N,), float64, shaped to multiply (N, C, *S)."""
    return schedule.alpha_bar[level].view(-1, *[1] * (like.ndim - 1))
