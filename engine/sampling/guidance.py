"""Guides of several papers, for the one hook that every sampler has: each moves the noise estimate
and with it x_0, which is not clipped again, as in the papers' code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.gaussian import Gaussian, alpha_bar_at
from .continuous_batching import ChainBatch, Guide


def image_conditioned_guidance(process: Gaussian, target: Tensor, weight: float) -> Guide:
    """Lean to a target of each sample's own, (N, C, *S), here in DDAD's way.

    Mousakhan et al. 2023, arXiv 2305.15956, equation 6: the estimate of x_0 moves by weight times
    (1 - kept) of its way to the target, so that little is left of it at low levels.
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
        sigma = (1 - alpha_bar_at(process.schedule, rows.network_level, x)).sqrt().to(x.dtype)
        apart = process.add_noise(rows.per_chain(target), rows.network_level, noise) - x
        moved = noise - weight * sigma * apart
        return moved, process.x0_from_noise(x, moved, rows.network_level)

    return guide


def classifier_free_guidance(
    denoiser: Denoiser, conditioning: Sequence[Tensor], weight: float
) -> Guide:
    """Classifier-free guidance (Ho and Salimans 2022): from what the network says of the condition
    that it is sampled with, usually none, `weight` of the way to what it says `conditioning`
    another, and
    beyond if above 1. conditioning: per sample (N, ...). One more evaluation a move.
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
        other = denoiser.estimate(
            x, rows.network_level, *[rows.per_chain(value) for value in conditioning]
        ).noise
        moved = noise + weight * (other - noise)
        return moved, denoiser.process.x0_from_noise(x, moved, rows.network_level)

    return guide
