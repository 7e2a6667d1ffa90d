"""Samplers of the processes that are not Gaussian, each a step that many chains make at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.bernoulli import Bernoulli
from ..diffusion.cold import ColdDiffusion
from ..diffusion.denoiser import Estimate
from .continuous_batching import ChainBatch, Step, one_step_per_level
from .step_noise import StepNoise


@dataclass(frozen=True)
class BernoulliStep:
    """The ancestral step of bits; on arrival at level 0, a bit is the more likely value.

    process: of the denoiser
    step_noise: uniform, of every chain

    >>> import torch
    >>> from adbench.engine.diffusion.bernoulli import Bernoulli, uniform_noise
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.discrete_solvers import BernoulliStep
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> process = Bernoulli(build_schedule("even", 4))
    >>> sampler = BernoulliStep(process, StepNoise(Rng(["a"]), uniform_noise))
    >>> zero, one, x = torch.tensor([0]), torch.tensor([1]), torch.tensor([[[1.0, 0.0]]])
    >>> batch = ChainBatch(zero, zero, zero, one, one, zero, [sampler.plan_steps([1, 0])])
    >>> sampler.advance(x, x, Estimate(x, torch.tensor([[[0.2, 0.8]]])), batch)
    tensor([[[0., 1.]]])
    """

    process: Bernoulli
    step_noise: StepNoise
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        start_level, end_level = batch.start_level, batch.end_level
        probability = self.process.reverse_probability(x, estimate.clean, start_level, end_level)
        bits = self.step_noise(batch, x) < probability
        last = (end_level == 0).view(-1, *[1] * (x.ndim - 1))
        return torch.where(last, estimate.clean > 0.5, bits).to(x.dtype)


@dataclass(frozen=True)
class ColdDiffusionStep:
    """The step of cold diffusion, by the difference of two degradations, or naive by one.

    process: of the denoiser
    initial_noise: what each chain was degraded with, (M, ...)
    naive: algorithm 1 of the paper

    >>> import torch
    >>> from adbench.engine.diffusion.cold import ColdDiffusion
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.discrete_solvers import ColdDiffusionStep
    >>> fade = lambda x, level, noise: x * (1 - level.view(-1, 1, 1) / 4)
    >>> process = ColdDiffusion(build_schedule("even", 4), fade, name="fade")
    >>> sampler, zero = ColdDiffusionStep(process, torch.zeros(1, 1, 2)), torch.tensor([0])
    >>> steps = sampler.plan_steps([2, 1])
    >>> batch = ChainBatch(zero, zero, zero, zero + 2, zero + 2, zero + 1, [steps])
    >>> x, clean = torch.full((1, 1, 2), 0.5), torch.ones(1, 1, 2)
    >>> sampler.advance(x, x, Estimate(x, clean), batch)  # 0.5 - 0.5 + 0.75
    tensor([[[0.7500, 0.7500]]])
    """

    process: ColdDiffusion
    initial_noise: Tensor
    naive: bool = False
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        noise = self.initial_noise[batch.device_chain]
        return self.process.reverse_step(
            x, estimate.clean, batch.start_level, batch.end_level, noise, naive=self.naive
        )
