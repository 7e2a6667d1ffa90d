"""Guidance by the slope of a chance, such as a classifier's: in DDIM's estimates, or in the mean
of DDPM's steps, in proportion to their variance.

Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, algorithms 2 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.denoiser import Estimate
from ..diffusion.gaussian import Gaussian, alpha_bar_at, interpolate_variance
from .continuous_batching import ChainBatch, Guide, Step, one_step_per_level
from .solvers import Ancestral

LogProbGradient = Callable[[Tensor, ChainBatch], Tensor]
"""(x (B, C, *S), rows) -> the gradient of a log chance by x, alike; in one batch shape, if results
are not to depend on company."""


def classifier_guidance(process: Gaussian, gradient: LogProbGradient, scale: float) -> Guide:
    """Algorithm 2: the noise estimate goes down the slope by scale times sigma, x_0 along."""

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
        if not scale:
            return noise, clean
        sigma = (1 - alpha_bar_at(process.schedule, rows.network_level, x)).sqrt().to(x.dtype)
        moved = noise - scale * sigma * gradient(x, rows)
        return moved, process.x0_from_noise(x, moved, rows.network_level)

    return guide


@dataclass(frozen=True)
class ClassifierGuidedSampler:
    """Algorithm 1: ancestral steps of a network that learned its variance, whose mean moves by
    scale times that variance times the slope.

    The step to level 0 has none. guide_last_step: it is moved as well; the posterior's variance,
    which is 0
    there, is then that of a step as long, one higher, as in the authors' code.
    """

    ancestral: Ancestral
    gradient: LogProbGradient
    scale: float
    guide_last_step: bool = False
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        y = self.ancestral.advance(x, memory, estimate, batch)
        if not self.scale:
            return y
        times = self.ancestral.process.schedule
        a, b = alpha_bar_at(times, batch.start_level, x), alpha_bar_at(times, batch.end_level, x)
        small = (1 - b) / (1 - a) * (1 - a / b)
        if self.guide_last_step:
            above = alpha_bar_at(times, (2 * batch.start_level).clamp(max=times.T), x)
            small = torch.where(b < 1, small, (1 - a) / (1 - above) * (1 - above / a))
        wide = interpolate_variance(small, 1 - a / b, estimate.learned_variance) * (
            self.guide_last_step | (b < 1)
        )
        return y + self.scale * wide.to(x.dtype) * self.gradient(x, batch)
