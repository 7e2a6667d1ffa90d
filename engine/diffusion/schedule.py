"""Noise schedules in levels: how much of the signal is kept at each level, 0 (clean) to T.

Level l is index l - 1 of the papers' arrays, so that kept[0] = 1 and a clean sample exists.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """alpha_bar: (T + 1,) float64, the share of the signal's power at each level; kept[0] = 1.
    half_log_snr: (T + 1,) float64, half the logarithm of signal to noise; infinite at level 0.

    x_l = sqrt(kept[l]) x_0 + sqrt(1 - kept[l]) noise.
    """

    alpha_bar: Tensor
    half_log_snr: Tensor

    def __init__(self, betas: Tensor, name: str) -> None:
        super().__init__()
        kept = torch.cat([torch.ones(1).double(), torch.cumprod(1 - betas.double(), 0)])
        self.register_buffer("alpha_bar", kept, persistent=False)
        ratio = (kept / (1 - kept)).log() / 2
        self.register_buffer("half_log_snr", ratio, persistent=False)
        self.name = name

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def to_level(self, step: int) -> int:
        """The level, 0..T, that a noise level on the 1000-step scale stands for; at least 1 for
        a step above 0."""
        if not 0 <= step <= 1000:
            raise ValueError(f"a noise level lies in 0..1000, not {step}")
        return max(min(step, 1), round(step * self.T / 1000))


def linear_schedule(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Ho et al. 2020, section 4: beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T."""
    betas = torch.linspace(first, last, T, dtype=torch.float64) * (1000 / T)
    return Schedule(betas.clamp(max=0.999), f"linear {T} {first} {last}")


def latent_linear_schedule(T: int = 1000) -> Schedule:
    """beta from 0.0015 to 0.0195, as MONAI's two-dimensional latent diffusion tutorial has it and
    the radio-signal variant of DDPM-OOD."""
    return linear_schedule(T, 0.0015, 0.0195)


def scaled_linear_schedule(T: int = 1000, first: float = 0.0015, last: float = 0.0195) -> Schedule:
    """Rombach et al. 2022: the square root of beta is linear. diffusers names it so; MONAI's
    name is scaled_linear_beta."""
    betas = torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64).square() * (1000 / T)
    return Schedule(betas.clamp(max=0.999), f"scaled_linear {T} {first} {last}")


def cosine_schedule(T: int = 1000, offset: float = 0.008) -> Schedule:
    """Nichol & Dhariwal 2021, equation 17; beta at most 0.999."""
    u = (torch.arange(T + 1, dtype=torch.float64) / T + offset) / (1 + offset)
    kept = torch.cos(u * math.pi / 2).square()
    return Schedule((1 - kept[1:] / kept[:-1]).clamp(max=0.999), f"cosine {T} {offset}")


def even_schedule(T: int = 1000) -> Schedule:
    """What is kept falls evenly to nothing at T, as binary latent diffusion has it for bits; a
    Gaussian process can lose everything so, but not come back from T itself."""
    return Schedule(1 / torch.arange(T, 0, -1, dtype=torch.float64), f"even {T}")


def shift_snr(schedule: Schedule, factor: float) -> Schedule:
    """The schedule with so many times the signal-to-noise at every level."""
    if factor == 1:
        return schedule
    kept = factor * schedule.alpha_bar / (factor * schedule.alpha_bar + 1 - schedule.alpha_bar)
    return Schedule(1 - kept[1:] / kept[:-1], f"{schedule.name} snr {factor}")


SCHEDULES = {
    "linear": linear_schedule,
    "linear_latent": latent_linear_schedule,
    "scaled_linear": scaled_linear_schedule,
    "cosine": cosine_schedule,
    "even": even_schedule,
}


def build_schedule(name: str, T: int = 1000) -> Schedule:
    if name not in SCHEDULES:
        raise ValueError(f"no schedule {name!r}; there are {sorted(SCHEDULES)}")
    return SCHEDULES[name](T)


def sampling_levels(level: int, steps: int | None = None, stride: int | None = None) -> list[int]:
    """The levels visited from `level` down to 0, both included, evenly spaced: `steps` moves, or
    every level if None. Fewer moves than levels is respacing (Nichol & Dhariwal 2021, section 4).

    stride: the levels `stride` apart from the top, and 0, however many moves that makes: how many
    papers count, and what lets chains from several levels share one grid.
    """
    if stride is not None:
        if steps is not None or stride < 1:
            raise ValueError(f"a ladder has steps or a stride of at least 1: {steps}, {stride}")
        return [*range(level, 0, -stride), 0]
    if steps is not None and steps < 1:
        raise ValueError(f"sampling takes at least 1 step, not {steps}")
    moves = level if steps is None else min(steps, level)
    return [round(level * (moves - i) / moves) for i in range(moves)] + [0] if level else [0]
