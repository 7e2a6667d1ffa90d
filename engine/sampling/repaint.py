"""RePaint: inpaint a region of a sample so that it fits its known surroundings.

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
from ..runtime.transfer import to_device
from .continuous_batching import ChainBatch, Guide, Step, one_step_per_level, run_chains
from .samplers import DEFAULT_SAMPLING, SamplingConfig


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
    """Inpaint `region` from the level down so that it fits its surroundings, (N, C, *S).

    RePaint from `initial` with noise instead of pure noise: every step joins the denoised region
    with the surroundings at the same level, and is repeated `resamples` times, with noise added
    again in between. The result is exactly `surroundings` where the region is 0.

    denoiser: of a Gaussian process, in evaluation mode; ValueError for another
    initial: what the region starts from, (N, C, *S)
    surroundings: the known sample, (N, C, *S)
    region: (N, 1, *S) bool or weights
    level: on the 1000-step scale
    rng: one stream per sample
    sampling: ddpm or ddim; ValueError for another
    noise: what all steps add
    resamples: how often each step is made
    shifted_renoise: add noise again by the step below the right one, an error of autoDDPM's code
    skip_last_step: omit the last network call and leave the region at level 1, as autoDDPM's code
    guide: changes the estimates before each step

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.repaint import inpaint
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> x, region = torch.ones(1, 1, 3), torch.tensor([[[True, False, False]]])
    >>> inpaint(denoiser, x, x, region, 5, Rng(["a"]))
    tensor([[[0., 1., 1.]]])
    """
    process, level = denoiser.process, denoiser.schedule.to_level(level)
    if not isinstance(process, Gaussian) or sampling.sampler not in ("ddpm", "ddim"):
        raise ValueError(
            f"inpainting takes the steps of ddpm or ddim in a gaussian process,"
            f" not of {sampling.sampler} in a {process.name} one"
        )
    mask = region.float()
    levels = sampling_levels(level, sampling.steps, sampling.stride)
    path = levels[:-1] if skip_last_step and level else levels
    level_per_sample = torch.full((len(initial),), level, device=initial.device)
    streams = rng.fork("start", 0).at(level)
    eps = noise(streams, initial.shape[1:], level_per_sample.clamp(min=1))
    y = process.add_noise(initial, level_per_sample, eps)
    sampler = RePaint(process, sampling, rng, noise, surroundings, mask, resamples, shifted_renoise)
    y = run_chains(denoiser, sampler, y, [path] * len(initial), guide=guide)
    return mask * y + (1 - mask) * surroundings if len(path) < len(levels) else y


class RePaint:
    """A reverse step and, but for the last of its repeats, a forward step again.

    process, sampling, noise, resamples, shifted_renoise: as in `inpaint`
    rng: one stream per chain
    surroundings, mask: per chain

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.repaint import RePaint
    >>> from adbench.engine.sampling.samplers import SamplingConfig
    >>> process, rng, x = Gaussian(linear_schedule()), Rng(["a"]), torch.zeros(1, 1, 4)
    >>> sampler = RePaint(process, SamplingConfig(), rng, gaussian, x, x, 2, False)
    >>> [(step.start_level, step.end_level, step.tag) for step in sampler.plan_steps([10, 5, 0])]
    [(10, 5, 0), (10, 5, 1), (5, 0, 1)]
    """

    memory = 0

    def __init__(
        self, process: Gaussian, sampling: SamplingConfig, rng: Rng, noise: Noise,
        surroundings: Tensor, mask: Tensor, resamples: int, shifted_renoise: bool,
    ) -> None:  # fmt: skip
        self.process, self.sampling, self.noise = process, sampling, noise
        self.surroundings, self.mask = surroundings, mask
        self.resamples, self.shifted_renoise = resamples, shifted_renoise
        self.streams = {
            purpose: Rng.cat([rng.fork(purpose, repeat) for repeat in range(resamples)])
            for purpose in ("known", "region", "again")
        }

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: which repeat of the step it is; that down to level 0 is its only and last."""
        return [
            step._replace(tag=repeat)
            for step in one_step_per_level(levels)
            for repeat in range(0 if step.end_level else self.resamples - 1, self.resamples)
        ]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        process, start_level, end_level = self.process, batch.start_level, batch.end_level
        chain = batch.device_chain
        eta = self.sampling.effective_eta
        y = process.reverse_step(
            estimate.clean, estimate.noise, start_level, end_level,
            self._draw_noise("region", batch, start_level, x) if eta > 0 else None,
            eta=eta, variance=self.sampling.variance, learned_variance=estimate.learned_variance,
        )  # fmt: skip
        eps = self._draw_noise("known", batch, start_level, x)
        outside = process.add_noise(self.surroundings[chain], end_level, eps)
        y = self.mask[chain] * y + (1 - self.mask[chain]) * outside
        repeats = batch.tag + 1 < self.resamples
        if not repeats.any():
            return y
        host_index = repeats.nonzero().flatten()
        index = to_device(host_index, x.device)
        start_level, end_level = start_level[index], end_level[index]
        shift = int(self.shifted_renoise)
        eps = self._draw_noise("again", batch.subset(host_index), start_level, x)
        y[index] = process.add_noise_step(y[index], end_level - shift, start_level - shift, eps)
        return y

    def _draw_noise(self, purpose: str, batch: ChainBatch, level: Tensor, x: Tensor) -> Tensor:
        index = batch.tag * len(self.surroundings) + batch.chain
        start = torch.tensor([path[0].start_level for path in batch.upcoming])  # level on the host
        return self.noise(self.streams[purpose].rows(index).at(start), x.shape[1:], level)
