"""Reverse steps that mix the target itself into the sample, without noise of the sample's level.

Not DDAD's condition, which `guidance.image_conditioned_guidance` is, but that of a public
re-implementation of it (Diffusion-Based-AD), whose users have results to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..diffusion.denoiser import Estimate
from ..diffusion.gaussian import Gaussian
from .continuous_batching import ChainBatch, Step, one_step_per_level
from .step_noise import StepNoise


@dataclass(frozen=True)
class TargetMixing:
    """DDIM's step with `eta`, its mean mixed with the target, and then its noise.

    The target's weight is `weight` times the share of the schedule that is still ahead.

    process: of the denoiser
    step_noise: of every chain
    target: (N, C, *S), in the denoiser's range
    weight: of the target at level T
    eta: share of DDPM's noise that a step adds

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> from adbench.engine.sampling.target_mixing import TargetMixing
    >>> process, noise = Gaussian(build_schedule("even", 4)), StepNoise(Rng(["a"]), gaussian)
    >>> sampler = TargetMixing(process, noise, target=torch.full((1, 1, 2), 8.0), weight=1.0)
    >>> zero, x = torch.tensor([0]), torch.zeros(1, 1, 2)
    >>> steps = sampler.plan_steps([3, 2])
    >>> batch = ChainBatch(zero, zero, zero, zero + 3, zero + 3, zero + 2, [steps])
    >>> sampler.advance(x, x, Estimate(x, x), batch)  # 2 of 4 levels ahead: half the target
    tensor([[[4., 4.]]])
    """

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
        share = self.weight * (batch.start_level - 1) / self.process.schedule.T
        share = share.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        mixture = (1 - share) * mean + share * batch.per_chain(self.target)
        if self.eta == 0:
            return mixture
        noisy = self.process.reverse_step(*step, self.step_noise(batch, x), eta=self.eta)
        return mixture + noisy - mean
