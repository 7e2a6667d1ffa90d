"""The Gaussian forward process and its reverse steps, in levels; every sample has its own level.

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
"""The variance of DDPM's reverse step: the posterior's, the forward step's, or as the network
predicts, between the two."""


class Process(Protocol):
    """A forward process, which loses x_0 level by level, and what a denoiser must know of it.

    name: for checkpoints
    default_noise: what `add_noise` takes, unless a method says otherwise
    prediction_types: what a network may predict of a sample

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian, Process
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> process: Process = Gaussian(build_schedule("even", 4))
    >>> x, noise, level = torch.ones(1, 1, 2), torch.full((1, 1, 2), 2.0), torch.tensor([2])
    >>> process.x0_from_noise(process.add_noise(x, level, noise), noise, level)
    tensor([[[1.0000, 1.0000]]])
    """

    name: str
    default_noise: Noise
    prediction_types: tuple[str, ...]

    @property
    def schedule(self) -> Schedule: ...

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x at a level, from x_0 and noise: q_sample of DDPM's code."""
        ...

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its noise imply."""
        ...

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The noise that x at this level and its x_0 imply."""
        ...

    def noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor, prediction_type: str
    ) -> tuple[Tensor | None, Tensor]:
        """The noise, None where the network does not predict it, and x_0."""
        ...

    def prediction_error(
        self, prediction: Tensor, x: Tensor, noisy: Tensor, noise: Tensor, level: Tensor,
        prediction_type: str, power: int,
    ) -> Tensor:  # fmt: skip
        """The error per value of a prediction for `noisy`, which is x at the level with noise."""
        ...


class Gaussian(nn.Module):
    """The Gaussian process: x is (N, C, *S), a level is (N,) int64 in 0..T.

    Coefficients are computed in float64.

    schedule: alpha_bar of every level

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> process = Gaussian(build_schedule("linear"))
    >>> x, noise, level = torch.ones(1, 1, 4), torch.zeros(1, 1, 4), torch.tensor([250])
    >>> process.add_noise(x, level, noise)
    tensor([[[0.7239, 0.7239, 0.7239, 0.7239]]])
    """

    name = "gaussian"
    prediction_types: tuple[str, ...] = ("noise", "clean", "v")

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.default_noise: Noise = gaussian

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x at a level, from x_0 and noise, in one step."""
        alpha_bar = alpha_bar_at(self.schedule, level, x)
        return alpha_bar.sqrt().to(x.dtype) * x + (1 - alpha_bar).sqrt().to(x.dtype) * noise

    def add_noise_step(
        self, x: Tensor, start_level: Tensor, end_level: Tensor, noise: Tensor
    ) -> Tensor:
        """x at the higher level `end_level`, from x at `start_level` and noise."""
        start = alpha_bar_at(self.schedule, start_level, x)
        ratio = alpha_bar_at(self.schedule, end_level, x) / start
        return ratio.sqrt().to(x.dtype) * x + (1 - ratio).sqrt().to(x.dtype) * noise

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its noise imply."""
        alpha_bar = alpha_bar_at(self.schedule, level, x)
        return (x - (1 - alpha_bar).sqrt().to(x.dtype) * noise) / alpha_bar.sqrt().to(x.dtype)

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The noise that x at this level (above 0) and its x_0 imply."""
        alpha_bar = alpha_bar_at(self.schedule, level, x)
        return (x - alpha_bar.sqrt().to(x.dtype) * clean) / (1 - alpha_bar).sqrt().to(x.dtype)

    def velocity(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """v of x_0 and its noise: sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0."""
        alpha_bar = alpha_bar_at(self.schedule, level, x)
        return alpha_bar.sqrt().to(x.dtype) * noise - (1 - alpha_bar).sqrt().to(x.dtype) * x

    def x0_from_velocity(self, x: Tensor, v: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its v imply."""
        alpha_bar = alpha_bar_at(self.schedule, level, x)
        return alpha_bar.sqrt().to(x.dtype) * x - (1 - alpha_bar).sqrt().to(x.dtype) * v

    def noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor, prediction_type: str
    ) -> tuple[Tensor | None, Tensor]:
        """The noise, None where the network does not predict it, and x_0."""
        if prediction_type == "v":
            return None, self.x0_from_velocity(x, prediction, level)
        if prediction_type == "clean":
            return None, prediction
        return prediction, self.x0_from_noise(x, prediction, level)

    def prediction_error(
        self, prediction: Tensor, x: Tensor, noisy: Tensor, noise: Tensor, level: Tensor,
        prediction_type: str, power: int,
    ) -> Tensor:  # fmt: skip
        """|prediction - target| ** power, per value."""
        target = noise if prediction_type == "noise" else x
        if prediction_type == "v":
            target = self.velocity(x, noise, level)
        return (prediction - target).abs() ** power

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
        """x at `end_level` from the estimates of x_0 and of the noise at `start_level`.

        eta: 0 is DDIM, 1 is DDPM's ancestral step; `noise` may be None where eta is 0. Nothing is
        added on arrival at level 0. With variance "large" or "learned" the mean is DDPM's and the
        noise wider; learned_variance: the network's output for "learned", about -1..1.
        """
        a = alpha_bar_at(self.schedule, start_level, clean)
        b = alpha_bar_at(self.schedule, end_level, clean)
        small, large = (1 - b) / (1 - a) * (1 - a / b), 1 - a / b
        rest = (1 - b - eta**2 * small).clamp(min=0).sqrt().to(clean.dtype)
        x = b.sqrt().to(clean.dtype) * clean + rest * eps
        if noise is None:
            return x
        if variance == "learned":
            step_variance = eta**2 * interpolate_variance(small, large, learned_variance)
        else:
            step_variance = eta**2 * (small if variance == "small" else large)
        return x + (step_variance * (b < 1)).sqrt().to(clean.dtype) * noise

    def combine(self, clean: Tensor, eps: Tensor, level: Tensor) -> Tensor:
        """x at any level along the same x_0 and the same noise: DDIM's ODE, up or down."""
        alpha_bar = alpha_bar_at(self.schedule, level, clean)
        scaled_noise = (1 - alpha_bar).sqrt().to(clean.dtype) * eps
        return alpha_bar.sqrt().to(clean.dtype) * clean + scaled_noise

    def posterior_mean(
        self, x: Tensor, clean: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        """The mean of q(x_end | x_start, x_0), to which `reverse_step` adds its noise."""
        a = alpha_bar_at(self.schedule, start_level, x)
        b = alpha_bar_at(self.schedule, end_level, x)
        clean_weight = b.sqrt() * (1 - a / b) / (1 - a)
        x_weight = (a / b).sqrt() * (1 - b) / (1 - a)
        return clean_weight.to(x.dtype) * clean + x_weight.to(x.dtype) * x

    def posterior_kl(
        self, clean: Tensor, estimate: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        """KL of the true reverse step from the one with an estimate of x_0, per value, in nats.

        With the posterior's variance it is half the gain in signal-to-noise ratio times the
        squared error; `end_level` is at least 1.
        """
        a = alpha_bar_at(self.schedule, start_level, clean)
        b = alpha_bar_at(self.schedule, end_level, clean)
        gain = (b / (1 - b) - a / (1 - a)) / 2
        return gain.to(clean.dtype) * (clean - estimate).square()


def interpolate_variance(small: Tensor, large: Tensor, learned_variance: Tensor | None) -> Tensor:
    """Return the variance that a network predicts, float64: the logarithms of the posterior's and
    the forward step's variance, mixed by (learned_variance + 1) / 2.

    small, large: the two variances
    learned_variance: the network's output, about -1..1; ValueError where it is None

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import interpolate_variance
    >>> small, large = torch.tensor([0.01]).double(), torch.tensor([0.04]).double()
    >>> interpolate_variance(small, large, torch.zeros(1))
    tensor([0.0200], dtype=torch.float64)
    """
    if learned_variance is None:
        raise ValueError("a learned variance needs a denoiser made with learns_variance=True")
    share = (learned_variance.double() + 1) / 2
    return (share * large.log() + (1 - share) * small.clamp(min=1e-20).log()).exp()


def add_noise_in_region(
    process: Process, x: Tensor, level: Tensor, noise: Tensor, region: Tensor | None
) -> Tensor:
    """Add noise to x_0 (N, C, *S) up to a level where `region` is true; as it is elsewhere.

    process: forward process
    level: (N,) int64
    noise: as the process takes it
    region: ((N | 1), 1, *S) bool, everywhere if None

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian, add_noise_in_region
    >>> process, level = Gaussian(build_schedule("linear")), torch.tensor([1000])
    >>> region = torch.tensor([[[True, False]]])
    >>> add_noise_in_region(process, torch.ones(1, 1, 2), level, torch.zeros(1, 1, 2), region)
    tensor([[[0.0064, 1.0000]]])
    """
    noisy = process.add_noise(x, level, noise)
    return noisy if region is None else torch.where(region, noisy, x)


def alpha_bar_at(schedule: Schedule, level: Tensor, like: Tensor) -> Tensor:
    """Return alpha_bar of each sample's level (N,), float64, shaped to multiply (N, C, *S).

    schedule: of the process
    level: (N,) int64 in 0..T
    like: a tensor of the samples' number of axes

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import alpha_bar_at
    >>> alpha_bar_at(build_schedule("even", 4), torch.tensor([0, 1]), torch.ones(2, 1, 8)).shape
    torch.Size([2, 1, 1])
    """
    return schedule.alpha_bar[level].view(-1, *[1] * (like.ndim - 1))
