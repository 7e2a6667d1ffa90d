"""RePaint: fill a region of a sample so that it fits its known surroundings.

Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", CVPR 2022,
algorithm 1. https://arxiv.org/abs/2201.09865
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser, Estimate
from ..diffusion.gaussian import Gaussian
from ..diffusion.schedule import sampling_levels
from ..noise.noise import Noise, gaussian
from ..runtime.rng import Rng
from .continuous_batching import ChainBatch, Guide, Step, one_step_per_level, run_chains
from .reconstruct import SamplingConfig

DEFAULT_SAMPLING = SamplingConfig()


def inpaint(
    denoiser: Denoiser,
    initial: Tensor,
    surroundings: Tensor,
    region: Tensor,
    level: int,
    rng: Rng,
    *,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    noise: Noise = gaussian,
    resamples: int = 1,
    shifted_renoise: bool = False,
    skip_last_step: bool = False,
    guide: Guide | None = None,
) -> Tensor:
    """Fill `region` from the level down so that it fits its known surroundings, (N, C, *S).

    RePaint from a disturbed `initial` instead of pure noise: every step joins the denoised region
    with the known rest, disturbed to the same level, and is repeated `resamples` times, noised up
    again in between. region: (N, 1, *S) bool or weights. Exactly `surroundings` where the region
    is 0.

    Two quirks of autoDDPM's code: `shifted_renoise` noises up again by the step below the right
    one;
    `skip_last_step` spares the last network call and keeps the region as it is at level 1.
    """
    process, level = denoiser.process, denoiser.schedule.to_level(level)
    if not isinstance(process, Gaussian) or sampling.sampler not in ("ddpm", "ddim"):
        raise ValueError(
            f"inpainting takes the steps of ddpm or ddim in a gaussian process,"
            f" not of {sampling.sampler} in a {process.name} one"
        )
    m = region.float()
    whole = sampling_levels(level, sampling.steps, sampling.stride)
    steps = whole[:-1] if skip_last_step and level else whole
    full = torch.full((len(initial),), level, device=initial.device)
    fresh = noise(rng.fork("start", 0).at(level), initial.shape[1:], full.clamp(min=1))
    y = process.add_noise(initial, full, fresh)
    sampler = RePaint(process, sampling, rng, noise, surroundings, m, resamples, shifted_renoise)
    y = run_chains(denoiser, sampler, y, [steps] * len(initial), guide=guide)
    return m * y + (1 - m) * surroundings if len(steps) < len(whole) else y


class RePaint:
    """A step down and, but for the last of its repeats, up again; known and m are per chain."""

    memory = 0

    def __init__(
        self, process: Gaussian, sampling: SamplingConfig, rng: Rng, noise: Noise,
        surroundings: Tensor, mask: Tensor, resamples: int, shifted_renoise: bool,
    ) -> None:  # fmt: skip
        self.process, self.sampling, self.noise = process, sampling, noise
        self.surroundings, self.mask, self.resamples, self.shifted_renoise = (
            surroundings,
            mask,
            resamples,
            shifted_renoise,
        )
        self.streams = {
            purpose: Rng.cat([rng.fork(purpose, again) for again in range(resamples)])
            for purpose in ("known", "region", "again")
        }

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """mark: which repeat of the step it is; that down to level 0 is its only and last."""
        return [
            move._replace(tag=again)
            for move in one_step_per_level(levels)
            for again in range(0 if move.end_level else self.resamples - 1, self.resamples)
        ]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        process, here, there = self.process, batch.start_level, batch.end_level
        job = batch.chain.to(x.device)
        eta = self.sampling.effective_eta
        y = process.reverse_step(
            estimate.clean, estimate.noise, here, there,
            self._draw_noise("region", batch, here, x) if eta > 0 else None,
            eta=eta, variance=self.sampling.variance, learned_variance=estimate.learned_variance,
        )  # fmt: skip
        rest = process.add_noise(
            self.surroundings[job], there, self._draw_noise("known", batch, here, x)
        )
        y = self.mask[job] * y + (1 - self.mask[job]) * rest
        again = batch.tag + 1 < self.resamples
        if not again.any():
            return y
        up = again.nonzero().flatten()
        here, there = here[up.to(x.device)], there[up.to(x.device)]
        off = int(self.shifted_renoise)
        fresh = self._draw_noise("again", batch.subset(up), here, x)
        y[up] = process.add_noise_step(y[up], there - off, here - off, fresh)
        return y

    def _draw_noise(self, purpose: str, batch: ChainBatch, level: Tensor, x: Tensor) -> Tensor:
        index = batch.tag * len(self.surroundings) + batch.chain
        return self.noise(self.streams[purpose].rows(index).at(level), x.shape[1:], level)
