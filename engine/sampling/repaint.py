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
from ..diffusion.schedule import ladder
from ..noise.noise import Noise, gaussian
from ..runtime.rng import Rng
from .continuous_batching import Guide, Move, Rows, flow, straight
from .reconstruct import Chain

ANCESTRAL = Chain()


def inpaint(
    denoiser: Denoiser,
    start: Tensor,
    known: Tensor,
    region: Tensor,
    level: int,
    rng: Rng,
    *,
    chain: Chain = ANCESTRAL,
    noise: Noise = gaussian,
    resamples: int = 1,
    shifted: bool = False,
    leave_last: bool = False,
    guide: Guide | None = None,
) -> Tensor:
    """Fill `region` from the level down so that it fits its known surroundings, (N, C, *S).

    RePaint from a disturbed `start` instead of pure noise: every step joins the denoised region
    with the known rest, disturbed to the same level, and is repeated `resamples` times, noised up
    again in between. region: (N, 1, *S) bool or weights. Exactly `known` where the region is 0.

    Two quirks of autoDDPM's code: `shifted` noises up again by the step below the right one;
    `leave_last` spares the last network call and keeps the region as it is at level 1.
    """
    process, level = denoiser.process, denoiser.schedule.level(level)
    if not isinstance(process, Gaussian) or chain.sampler not in ("ddpm", "ddim"):
        raise ValueError(
            f"inpainting takes the steps of ddpm or ddim in a gaussian process,"
            f" not of {chain.sampler} in a {process.name} one"
        )
    m = region.float()
    whole = ladder(level, chain.steps, chain.stride)
    steps = whole[:-1] if leave_last and level else whole
    full = torch.full((len(start),), level, device=start.device)
    fresh = noise(rng.fork("start", 0).at(level), start.shape[1:], full.clamp(min=1))
    y = process.disturb(start, full, fresh)
    sampler = RePaint(process, chain, rng, noise, known, m, resamples, shifted)
    y = flow(denoiser, sampler, y, [steps] * len(start), guide=guide)
    return m * y + (1 - m) * known if len(steps) < len(whole) else y


class RePaint:
    """A step down and, but for the last of its repeats, up again; known and m are per chain."""

    memory = 0

    def __init__(
        self, process: Gaussian, chain: Chain, rng: Rng, noise: Noise,
        known: Tensor, m: Tensor, resamples: int, shifted: bool,
    ) -> None:  # fmt: skip
        self.process, self.chain, self.noise = process, chain, noise
        self.known, self.m, self.resamples, self.shifted = known, m, resamples, shifted
        self.streams = {
            purpose: Rng.cat([rng.fork(purpose, again) for again in range(resamples)])
            for purpose in ("known", "region", "again")
        }

    def moves(self, ladder: Sequence[int]) -> list[Move]:
        """mark: which repeat of the step it is; that down to level 0 is its only and last."""
        return [
            move._replace(mark=again)
            for move in straight(ladder)
            for again in range(0 if move.there else self.resamples - 1, self.resamples)
        ]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, rows: Rows) -> Tensor:
        process, here, there = self.process, rows.here, rows.there
        job = rows.job.to(x.device)
        eta = self.chain.noisiness
        y = process.back(
            estimate.clean, estimate.noise, here, there,
            self._draw("region", rows, here, x) if eta > 0 else None,
            eta=eta, variance=self.chain.variance, spread=estimate.spread,
        )  # fmt: skip
        rest = process.disturb(self.known[job], there, self._draw("known", rows, here, x))
        y = self.m[job] * y + (1 - self.m[job]) * rest
        again = rows.mark + 1 < self.resamples
        if not again.any():
            return y
        up = again.nonzero().flatten()
        here, there = here[up.to(x.device)], there[up.to(x.device)]
        off = int(self.shifted)
        fresh = self._draw("again", rows.at(up), here, x)
        y[up] = process.further(y[up], there - off, here - off, fresh)
        return y

    def _draw(self, purpose: str, rows: Rows, level: Tensor, x: Tensor) -> Tensor:
        index = rows.mark * len(self.known) + rows.job
        return self.noise(self.streams[purpose].rows(index).at(level), x.shape[1:], level)
