"""Guides of several papers, for the one hook that every sampler has: each moves the noise estimate
and with it x_0, which is not clipped again, as in the papers' code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.gaussian import Gaussian, kept_at
from .continuous_batching import Guide, Rows


def towards(process: Gaussian, target: Tensor, weight: float) -> Guide:
    """Lean to a target of each sample's own, (N, C, *S), here in DDAD's way.

    Mousakhan et al. 2023, arXiv 2305.15956, equation 6: the estimate of x_0 moves by weight times
    (1 - kept) of its way to the target, so that little is left of it at low levels.
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        sigma = (1 - kept_at(process.schedule, rows.level, x)).sqrt().to(x.dtype)
        apart = process.disturb(rows.of(target), rows.level, noise) - x
        moved = noise - weight * sigma * apart
        return moved, process.clean(x, moved, rows.level)

    return guide


def contrast(denoiser: Denoiser, given: Sequence[Tensor], weight: float) -> Guide:
    """Classifier-free guidance (Ho and Salimans 2022): from what the network says of the condition
    that it is sampled with, usually none, `weight` of the way to what it says `given` another, and
    beyond if above 1. given: per sample (N, ...). One more evaluation a move.
    """

    def guide(x: Tensor, noise: Tensor, clean: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        other = denoiser.estimate(x, rows.level, *[rows.of(value) for value in given]).noise
        moved = noise + weight * (other - noise)
        return moved, denoiser.process.clean(x, moved, rows.level)

    return guide
