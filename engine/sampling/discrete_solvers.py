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
    """

    process: ColdDiffusion
    initial_noise: Tensor
    naive: bool = False
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        noise = self.initial_noise[batch.chain.to(self.initial_noise.device)]
        return self.process.reverse_step(
            x, estimate.clean, batch.start_level, batch.end_level, noise, naive=self.naive
        )
