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
from ..diffusion.gaussian import Gaussian, between, kept_at
from .continuous_batching import Guide, Move, Rows, straight
from .solvers import Ancestral

Slope = Callable[[Tensor, Rows], Tensor]
"""(x (B, C, *S), rows) -> the gradient of a log chance by x, alike; in one batch shape, if results
are not to depend on company."""


def climbing(process: Gaussian, slope: Slope, scale: float) -> Guide:
    """Algorithm 2: the noise estimate goes down the slope by scale times sigma, x_0 along."""

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        if not scale:
            return noise, clean
        sigma = (1 - kept_at(process.schedule, rows.level, x)).sqrt().to(x.dtype)
        moved = noise - scale * sigma * slope(x, rows)
        return moved, process.clean(x, moved, rows.level)

    return guide


@dataclass(frozen=True)
class Climbing:
    """Algorithm 1: ancestral steps of a network that learned its variance, whose mean moves by
    scale times that variance times the slope.

    The step to level 0 has none. last: it is moved as well; the posterior's variance, which is 0
    there, is then that of a step as long, one higher, as in the authors' code.
    """

    ancestral: Ancestral
    slope: Slope
    scale: float
    last: bool = False
    memory = 0

    def moves(self, ladder: Sequence[int]) -> list[Move]:
        return straight(ladder)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, rows: Rows) -> Tensor:
        y = self.ancestral.advance(x, memory, estimate, rows)
        if not self.scale:
            return y
        times = self.ancestral.process.schedule
        a, b = kept_at(times, rows.here, x), kept_at(times, rows.there, x)
        small = (1 - b) / (1 - a) * (1 - a / b)
        if self.last:
            above = kept_at(times, (2 * rows.here).clamp(max=times.T), x)
            small = torch.where(b < 1, small, (1 - a) / (1 - above) * (1 - above / a))
        wide = between(small, 1 - a / b, estimate.spread) * (self.last | (b < 1))
        return y + self.scale * wide.to(x.dtype) * self.slope(x, rows)
