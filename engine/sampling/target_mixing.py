"""Steps back that mix the target itself into the sample, without disturbing it to their level.

Not DDAD's condition, which `guides.towards` is, but that of a public re-implementation of it
(Diffusion-Based-AD), whose users have results to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..diffusion.gaussian import Gaussian
from .continuous_batching import Move, Rows, straight
from .solvers import Estimate
from .step_noise import Draws


@dataclass(frozen=True)
class Mixed:
    """DDIM's step with `eta`, its mean mixed with the target (N, C, *S) by weight times the share
    of the schedule that is still ahead, and then its noise."""

    process: Gaussian
    draws: Draws
    target: Tensor
    weight: float
    eta: float = 0.0
    memory = 0

    def moves(self, ladder: Sequence[int]) -> list[Move]:
        return straight(ladder)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, rows: Rows) -> Tensor:
        step = (estimate.clean, estimate.noise, rows.here, rows.there)
        mean = self.process.back(*step, None, eta=self.eta)
        part = self.weight * (rows.here - 1) / self.process.schedule.T
        part = part.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        mixed = (1 - part) * mean + part * rows.of(self.target)
        if self.eta == 0:
            return mixed
        return mixed + self.process.back(*step, self.draws(rows, x), eta=self.eta) - mean
