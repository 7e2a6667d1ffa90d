"""Noise schedules in levels: the share of the signal at each level, from 0 (clean) to T.

Level l is index l - 1 of the papers' arrays, so that alpha_bar[0] = 1 and a clean sample exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """A noise schedule: x_l = sqrt(alpha_bar[l]) x_0 + sqrt(1 - alpha_bar[l]) noise.

    betas: (T,), the variance of the noise that each step adds
    name: for checkpoints

    alpha_bar: (T + 1,) float64, the share of the signal's power at each level; alpha_bar[0] = 1
    half_log_snr: (T + 1,) float64, half the logarithm of the signal-to-noise ratio; infinite at
        level 0

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> schedule = build_schedule("linear")
    >>> schedule.T, round(schedule.alpha_bar[250].item(), 3)
    (1000, 0.524)
    """

    alpha_bar: Tensor
    half_log_snr: Tensor

    def __init__(self, betas: Tensor, name: str) -> None:
        super().__init__()
        alpha_bar = torch.cat([torch.ones(1).double(), torch.cumprod(1 - betas.double(), 0)])
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        half_log_snr = (alpha_bar / (1 - alpha_bar)).log() / 2
        self.register_buffer("half_log_snr", half_log_snr, persistent=False)
        self.name = name

    @property
    def T(self) -> int:
        """The highest level."""
        return len(self.alpha_bar) - 1

    def to_level(self, step: int) -> int:
        """The level, 0..T, of a noise level on the 1000-step scale; at least 1 for a step above 0.

        step: 0..1000; ValueError for another
        """
        return level_of_step(step, self.T)


def level_of_step(step: int, T: int) -> int:
    """Return the level, 0..T, of a noise level on the 1000-step scale; at least 1 for a step above
    0.

    step: 0..1000; ValueError for another
    T: number of levels of the schedule

    >>> from adbench.engine.diffusion.schedule import level_of_step
    >>> level_of_step(250, 100), level_of_step(1, 100)
    (25, 1)
    """
    if not 0 <= step <= 1000:
        raise ValueError(f"a noise level lies in 0..1000, not {step}")
    return max(min(step, 1), round(step * T / 1000))


def linear_schedule(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Build a schedule of linear beta: Ho et al. 2020, section 4.

    T: number of levels; betas are scaled by 1000 / T
    first, last: beta at the ends for T = 1000

    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> linear_schedule(500).name
    'linear 500 0.0001 0.02'
    """
    betas = torch.linspace(first, last, T, dtype=torch.float64) * (1000 / T)
    return Schedule(betas.clamp(max=0.999), f"linear {T} {first} {last}")


def latent_linear_schedule(T: int = 1000) -> Schedule:
    """Build the linear schedule from 0.0015 to 0.0195 of MONAI's two-dimensional latent diffusion
    tutorial and of the radio-signal variant of DDPM-OOD.

    T: number of levels

    >>> from adbench.engine.diffusion.schedule import latent_linear_schedule
    >>> latent_linear_schedule().name
    'linear 1000 0.0015 0.0195'
    """
    return linear_schedule(T, 0.0015, 0.0195)


def scaled_linear_schedule(T: int = 1000, first: float = 0.0015, last: float = 0.0195) -> Schedule:
    """Build a schedule whose square root of beta is linear: Rombach et al. 2022. The name is that
    of diffusers; MONAI calls it scaled_linear_beta.

    T: number of levels; betas are scaled by 1000 / T
    first, last: beta at the ends for T = 1000

    >>> from adbench.engine.diffusion.schedule import scaled_linear_schedule
    >>> scaled_linear_schedule().name
    'scaled_linear 1000 0.0015 0.0195'
    """
    betas = torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64).square() * (1000 / T)
    return Schedule(betas.clamp(max=0.999), f"scaled_linear {T} {first} {last}")


def cosine_schedule(T: int = 1000, offset: float = 0.008) -> Schedule:
    """Build the cosine schedule: Nichol & Dhariwal 2021, equation 17; beta at most 0.999.

    T: number of levels
    offset: s of the paper, which keeps the first betas from being too small

    >>> from adbench.engine.diffusion.schedule import cosine_schedule
    >>> cosine_schedule().name
    'cosine 1000 0.008'
    """
    u = (torch.arange(T + 1, dtype=torch.float64) / T + offset) / (1 + offset)
    alpha_bar = torch.cos(u * math.pi / 2).square()
    betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    return Schedule(betas, f"cosine {T} {offset}")


def even_schedule(T: int = 1000) -> Schedule:
    """Build the schedule whose alpha_bar falls evenly to 0 at T, as binary latent diffusion has it
    for bits. A Gaussian process can lose the whole signal so, but not come back from T itself.

    T: number of levels

    >>> from adbench.engine.diffusion.schedule import even_schedule
    >>> even_schedule(4).alpha_bar
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """
    return Schedule(1 / torch.arange(T, 0, -1, dtype=torch.float64), f"even {T}")


def shift_snr(schedule: Schedule, factor: float) -> Schedule:
    """Build the schedule with `factor` times the signal-to-noise ratio at every level.

    schedule: to start from; returned as it is for a factor of 1
    factor: above 0

    >>> from adbench.engine.diffusion.schedule import linear_schedule, shift_snr
    >>> shift_snr(linear_schedule(), 0.5).name
    'linear 1000 0.0001 0.02 snr 0.5'
    """
    if factor == 1:
        return schedule
    alpha_bar = schedule.alpha_bar
    alpha_bar = factor * alpha_bar / (factor * alpha_bar + 1 - alpha_bar)
    return Schedule(1 - alpha_bar[1:] / alpha_bar[:-1], f"{schedule.name} snr {factor}")


ScheduleName = Literal["linear", "linear_latent", "scaled_linear", "cosine", "even"]

SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "linear": linear_schedule,
    "linear_latent": latent_linear_schedule,
    "scaled_linear": scaled_linear_schedule,
    "cosine": cosine_schedule,
    "even": even_schedule,
}


def build_schedule(name: str, T: int = 1000) -> Schedule:
    """Build the schedule of that name.

    name: one of SCHEDULES; ValueError for another
    T: number of levels

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> build_schedule("cosine", 500).T
    500
    """
    if name not in SCHEDULES:
        raise ValueError(f"no schedule {name!r}; there are {sorted(SCHEDULES)}")
    return SCHEDULES[name](T)


def sampling_levels(level: int, steps: int | None = None, stride: int | None = None) -> list[int]:
    """Return the levels that a sampler visits from `level` down to 0, both included, evenly spaced.

    Fewer steps than levels is respacing (Nichol & Dhariwal 2021, section 4).

    level: where the sampler starts, 0..T
    steps: number of steps, every level if None
    stride: in place of steps, the levels `stride` apart from the top, and 0, however many steps
        that makes: how many papers count, and what lets chains from several levels share one grid

    >>> from adbench.engine.diffusion.schedule import sampling_levels
    >>> sampling_levels(10, steps=4)
    [10, 8, 5, 2, 0]
    >>> sampling_levels(10, stride=4)
    [10, 6, 2, 0]
    """
    if stride is not None:
        if steps is not None or stride < 1:
            raise ValueError(f"sampling takes steps or a stride of at least 1: {steps}, {stride}")
        return [*range(level, 0, -stride), 0]
    if steps is not None and steps < 1:
        raise ValueError(f"sampling takes at least 1 step, not {steps}")
    count = level if steps is None else min(steps, level)
    return [round(level * (count - i) / count) for i in range(count)] + [0] if level else [0]
