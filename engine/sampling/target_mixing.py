"""Steps back that mix the target itself into the sample, without disturbing it to their level.

Not DDAD's condition, which `guides.towards` is, but that of a public re-implementation of it
(Diffusion-Based-AD), whose users have results to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..diffusion.gaussian import Gaussian
from .continuous_batching import ChainBatch, Step, one_step_per_level
from .solvers import Estimate
from .step_noise import StepNoise


@dataclass(frozen=True)
class TargetMixing:
    """DDIM's step with `eta`, its mean mixed with the target (N, C, *S) by weight times the share
    of the schedule that is still ahead, and then its noise."""

    process: Gaussian
    step_noise: StepNoise
    target: Tensor
    weight: float
    eta: float = 0.0
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        step = (estimate.clean, estimate.noise, batch.start_level, batch.end_level)
        mean = self.process.reverse_step(*step, None, eta=self.eta)
        part = self.weight * (batch.start_level - 1) / self.process.schedule.T
        part = part.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        mixed = (1 - part) * mean + part * batch.per_chain(self.target)
        if self.eta == 0:
            return mixed
        return (
            mixed + self.process.reverse_step(*step, self.step_noise(batch, x), eta=self.eta) - mean
        )
