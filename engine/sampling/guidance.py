"""Guides of several papers for the one hook of every sampler: each changes the noise estimate and
with it x_0, which is not clipped again, as in the papers' code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.flow import Flow
from ..diffusion.gaussian import Process, alpha_bar_at
from .continuous_batching import ChainBatch, Guide


def image_conditioned_guidance(process: Process, target: Tensor, weight: float) -> Guide:
    """Build the guide of DDAD, towards a target of each sample's own.

    Mousakhan et al. 2023, arXiv 2305.15956, equation 6: the estimate of x_0 moves by weight times
    (1 - alpha_bar) of its way to the target, so that little is left of it at low levels.

    Of a flow, whose noise weighs t, the estimate moves by weight times t ** 2 likewise.

    process: of the denoiser, Gaussian or a flow
    target: (N, C, *S), in the denoiser's range
    weight: w of the paper

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.guidance import image_conditioned_guidance
    >>> process, x = Gaussian(build_schedule("even", 4)), torch.zeros(1, 1, 2)
    >>> zero = torch.tensor([0])
    >>> guide = image_conditioned_guidance(process, torch.ones(1, 1, 2), weight=1.0)
    >>> batch = ChainBatch(zero, zero, zero, zero + 2, zero + 2, zero + 1, [])
    >>> guide(x, x, x, batch)[1]  # x_0 moves from 0 by 1 - alpha_bar of its way to 1
    tensor([[[0.5000, 0.5000]]])
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, batch: ChainBatch) -> tuple[Tensor, Tensor]:
        level = batch.network_level
        if isinstance(process, Flow):
            t = process.time(level, x).to(x.dtype)
            moved = weight * t * (batch.per_chain(target) - clean)
            return noise - (1 - t) * moved, clean + t * moved
        sigma = (1 - alpha_bar_at(process.schedule, level, x)).sqrt().to(x.dtype)
        difference = process.add_noise(batch.per_chain(target), level, noise) - x
        guided = noise - weight * sigma * difference
        return guided, process.x0_from_noise(x, guided, level)

    return guide


def classifier_free_guidance(
    denoiser: Denoiser, conditioning: Sequence[Tensor], weight: float
) -> Guide:
    """Build the guide of classifier-free guidance: Ho and Salimans 2022.

    From the estimate with the condition that is sampled with, usually none, `weight` of the way to
    the estimate with another, and beyond if above 1. One more evaluation a step.

    denoiser: that is sampled from
    conditioning: the other condition, per sample (N, ...)
    weight: of the other condition

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.guidance import classifier_free_guidance
    >>> class Condition(torch.nn.Module):
    ...     def forward(self, x, timesteps, value):
    ...         return value.view(-1, 1, 1).expand_as(x)
    >>> denoiser, zero = Denoiser(Condition(), linear_schedule()).eval(), torch.tensor([0])
    >>> guide = classifier_free_guidance(denoiser, [torch.tensor([1.0])], weight=2.0)
    >>> batch = ChainBatch(zero, zero, zero, zero + 2, zero + 2, zero + 1, [])
    >>> x = torch.zeros(1, 1, 2)
    >>> guide(x, x, x, batch)[0]  # noise 0 without the condition and 1 with it
    tensor([[[2., 2.]]])
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, batch: ChainBatch) -> tuple[Tensor, Tensor]:
        inputs = [batch.per_chain(value) for value in conditioning]
        other = denoiser.estimate(x, batch.network_level, *inputs).noise
        guided = noise + weight * (other - noise)
        return guided, denoiser.process.x0_from_noise(x, guided, batch.network_level)

    return guide
