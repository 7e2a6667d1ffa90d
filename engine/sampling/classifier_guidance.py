"""Classifier guidance: by the gradient of a log probability, in DDIM's estimates, or in the mean of
DDPM's steps, in proportion to their variance.

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
"""(x (B, C, *S), batch) -> the gradient of a log probability with respect to x, of x's shape; in
one batch shape, if results are not to depend on the batch."""


def classifier_guidance(process: Gaussian, gradient: LogProbGradient, scale: float) -> Guide:
    """Build the guide of algorithm 2: the noise estimate minus scale times sigma times the
    gradient, and x_0 accordingly.

    process: of the denoiser
    gradient: of the classifier
    scale: s of the paper; 0 changes nothing

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.sampling.classifier_guidance import classifier_guidance
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> process, x = Gaussian(build_schedule("even", 4)), torch.zeros(1, 1, 2)
    >>> guide = classifier_guidance(process, lambda x, batch: torch.ones_like(x), scale=2.0)
    >>> zero = torch.tensor([0])
    >>> batch = ChainBatch(zero, zero, zero, zero + 2, zero + 2, zero + 1, [])
    >>> noise, clean = guide(x, x, x, batch)
    >>> noise, clean  # -2 sqrt(0.5), and 2 sqrt(0.5) sqrt(0.5) / sqrt(0.5)
    (tensor([[[-1.4142, -1.4142]]]), tensor([[[1.4142, 1.4142]]]))
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, batch: ChainBatch) -> tuple[Tensor, Tensor]:
        if not scale:
            return noise, clean
        level = batch.network_level
        sigma = (1 - alpha_bar_at(process.schedule, level, x)).sqrt().to(x.dtype)
        guided = noise - scale * sigma * gradient(x, batch)
        return guided, process.x0_from_noise(x, guided, level)

    return guide


@dataclass(frozen=True)
class ClassifierGuidedSampler:
    """Algorithm 1: ancestral steps of a network that learns its variance, whose mean moves by
    scale times that variance times the gradient.

    The step to level 0 has no variance.

    ancestral: makes the steps
    gradient: of the classifier
    scale: s of the paper
    guide_last_step: move the step to level 0 as well; the posterior's variance, which is 0 there,
        is then that of a step as long, one higher, as in the authors' code

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.classifier_guidance import ClassifierGuidedSampler
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.solvers import Ancestral
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> process = Gaussian(build_schedule("even", 4))
    >>> ancestral = Ancestral(process, StepNoise(Rng(["a"]), gaussian), eta=0.0)
    >>> sampler = ClassifierGuidedSampler(ancestral, lambda x, batch: torch.ones_like(x), scale=3.0)
    >>> zero, steps, x = torch.tensor([0]), sampler.plan_steps([3, 2]), torch.zeros(1, 1, 2)
    >>> batch = ChainBatch(zero, zero, zero, zero + 3, zero + 3, zero + 2, [steps])
    >>> sampler.advance(x, x, Estimate(x, x, x - 1), batch)  # 3 * 0.5 / 0.75 * (1 - 0.25 / 0.5)
    tensor([[[1., 1.]]])
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
        schedule, start_level = self.ancestral.process.schedule, batch.start_level
        a, b = (alpha_bar_at(schedule, level, x) for level in (start_level, batch.end_level))
        small = (1 - b) / (1 - a) * (1 - a / b)
        if self.guide_last_step:
            above = alpha_bar_at(schedule, (2 * start_level).clamp(max=schedule.T), x)
            small = torch.where(b < 1, small, (1 - a) / (1 - above) * (1 - above / a))
        variance = interpolate_variance(small, 1 - a / b, estimate.learned_variance)
        variance = variance * (self.guide_last_step | (b < 1))
        return y + self.scale * variance.to(x.dtype) * self.gradient(x, batch)
