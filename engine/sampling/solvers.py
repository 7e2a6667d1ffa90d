"""Samplers of the Gaussian process, each a step that many chains make at once in one batch.

Our own because a chain of `continuous_batching` is at a level of its own. diffusers' schedulers
hold one timestep and one history for a whole batch, and MONAI's likewise; the tests compare every
sampler here with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ..diffusion.denoiser import Estimate
from ..diffusion.gaussian import Gaussian, Variance, alpha_bar_at
from ..diffusion.schedule import Schedule
from ..runtime.transfer import to_device
from .continuous_batching import ChainBatch, Sampler, Step, one_step_per_level
from .step_noise import StepNoise


@dataclass(frozen=True)
class Ancestral:
    """DDPM (Ho et al. 2020, algorithm 2) at eta 1, DDIM (Song et al. 2021, equation 12) at 0.

    process: of the denoiser
    step_noise: of every chain
    eta: share of DDPM's noise that a step adds
    variance: of DDPM's step

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.solvers import Ancestral
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> process = Gaussian(build_schedule("even", 4))
    >>> sampler = Ancestral(process, StepNoise(Rng(["a"]), gaussian), eta=0.0)
    >>> zero, x = torch.tensor([0]), torch.ones(1, 1, 2)
    >>> steps = sampler.plan_steps([4, 3])
    >>> batch = ChainBatch(zero, zero, zero, zero + 4, zero + 4, zero + 3, [steps])
    >>> sampler.advance(x, x, Estimate(0 * x, x), batch)  # sqrt(0.25) of x_0, and no noise
    tensor([[[0.5000, 0.5000]]])
    """

    process: Gaussian
    step_noise: StepNoise
    eta: float = 1.0
    variance: Variance = "small"
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        noise = self.step_noise(batch, x) if self.eta > 0 else None
        return self.process.reverse_step(
            estimate.clean, estimate.noise, batch.start_level, batch.end_level, noise,
            eta=self.eta, variance=self.variance, learned_variance=estimate.learned_variance,
        )  # fmt: skip


@dataclass(frozen=True)
class DdimOde:
    """DDIM's ODE, up or down; up is inversion (Song et al. 2021, section 4.3).

    The network, which knows no level 0, is called there with level 1. Going down undoes going up
    exactly if the noise estimate is the same all the way, and better the finer the levels if not.

    process: of the denoiser

    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.sampling.solvers import DdimOde
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> DdimOde(Gaussian(linear_schedule())).plan_steps([0, 10])
    [Step(network_level=1, start_level=0, end_level=10, tag=0)]
    """

    process: Gaussian
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        steps = one_step_per_level(levels)
        return [step._replace(network_level=max(step.start_level, 1)) for step in steps]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        clean = self.process.x0_from_noise(x, estimate.noise, batch.start_level)
        return self.process.combine(clean, estimate.noise, batch.end_level)


PLMS_WEIGHTS = (  # by tag: the weights of the newest noise estimate and the three before
    (1.0, 0.0, 0.0, 0.0),
    (1 / 2, 1 / 2, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class Plms:
    """Pseudo linear multistep: four noise estimates make a step of the ODE.

    Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", ICLR 2022. The first
    step is made, the network is called at its end, and it is made again with the mean of both
    estimates, as in diffusers with skip_prk_steps; so a chain of two steps or more costs one call
    more than steps.

    process: of the denoiser
    lagged: MONAI's, which then takes the second step for made: one call less, and all that follows
        is a step behind the level of the network
    final_schedule: of the level that a step from a level to itself ends at, which is MONAI's last
        step; None for the process's own

    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.sampling.solvers import Plms
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> [step.tag for step in Plms(Gaussian(linear_schedule())).plan_steps([9, 6, 3, 0])]
    [0, 1, 2, 3]
    """

    process: Gaussian
    lagged: bool = False
    final_schedule: Schedule | None = None
    memory = 4  # three estimates, the newest first, and where the first step began

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        steps = one_step_per_level(levels)
        if len(steps) < 2:
            return steps
        first, rest = steps[0], steps[2 if self.lagged else 1 :]
        later = [step._replace(tag=min(i, 4)) for i, step in enumerate(rest, 2)]
        return [first, Step(first.end_level, first.start_level, first.end_level, 1), *later]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        weights = _plms_weights(x.dtype, x.device)[batch.device_tag].T  # (4, B)
        repeat = (batch.device_tag == 1).view(shape)
        history = [estimate.noise, *memory[:, :3].unbind(1)]
        eps = sum((w.view(shape) * e for w, e in zip(weights, history, strict=True)), 0 * x)
        start = torch.where(repeat, memory[:, 3], x)
        next_history = [
            torch.where(repeat, old, new) for old, new in zip(history[1:], history[:3], strict=True)
        ]
        memory[:] = torch.stack([*next_history, start], 1)
        clean = self.process.x0_from_noise(start, eps, batch.start_level)
        end = self.process.combine(clean, eps, batch.end_level)
        if self.final_schedule is None:
            return end
        final = Gaussian(self.final_schedule).combine(clean, eps, batch.end_level)
        is_final = (batch.start_level == batch.end_level).view(shape)
        return torch.where(is_final, final, end)


@cache
def _plms_weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    """PLMS_WEIGHTS on the device, (5, 4)."""
    return to_device(torch.tensor(PLMS_WEIGHTS, dtype=dtype), device)


TAGS_PER_CHAIN = 8
"""What `SharedHistoryPlms` adds to a tag of PLMS for every chain of the sample that came before."""


@dataclass(frozen=True)
class SharedHistoryPlms:
    """PLMS of several chains of a sample in turn, whose history is cleared for the first alone.

    An error of ddpm-ood's code, in which one scheduler serves all starts and none but the first
    makes its first step twice.

    plms: `Plms` of the process
    levels: of each of K chains
    noised: where they start, (K, N, C, *S)
    reconstructions: where they end, of the same shape, written as they do

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.solvers import Plms, SharedHistoryPlms
    >>> paths, starts = [[6, 3, 0], [9, 6, 3, 0]], torch.zeros(2, 1, 1, 4)
    >>> plms = Plms(Gaussian(linear_schedule()))
    >>> sampler = SharedHistoryPlms(plms, paths, starts, torch.zeros_like(starts))
    >>> [divmod(step.tag, 8) for step in sampler.plan_steps([6, 3, 0])]  # (chain, tag of PLMS)
    [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 4)]
    """

    plms: Sampler
    levels: Sequence[Sequence[int]]
    noised: Tensor
    reconstructions: Tensor
    memory = 4

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """The steps of all chains, whichever levels are passed."""
        first, *later = self.levels
        path = self.plms.plan_steps(first)
        count = sum(step.tag != 1 for step in path)  # a step made again is not remembered
        for k, chain_levels in enumerate(later, 1):
            for step in one_step_per_level(chain_levels):
                count += 1
                history = 0 if count == 1 else min(count, 4)
                path.append(step._replace(tag=TAGS_PER_CHAIN * k + history))
        return path

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        plms_batch = replace(batch, tag=batch.tag % TAGS_PER_CHAIN, on_device=None)
        x = self.plms.advance(x, memory, estimate, plms_batch)
        for i, (sample, path) in enumerate(zip(batch.chain.tolist(), batch.upcoming, strict=True)):
            chain = path[0].tag // TAGS_PER_CHAIN
            if len(path) == 1 or path[1].tag // TAGS_PER_CHAIN != chain:
                self.reconstructions[chain, sample] = x[i]
                if len(path) > 1:
                    x[i] = self.noised[chain + 1, sample]
        return x


@dataclass(frozen=True)
class DpmSolver:
    """DPM-Solver++ (2M): two x_0 estimates make a step, in half the logarithm of signal to noise.

    Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models", algorithm 2, midpoint. The first step and the last, which arrives at level 0, are of
    first order.

    process: of the denoiser

    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.sampling.solvers import DpmSolver
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> [step.tag for step in DpmSolver(Gaussian(linear_schedule())).plan_steps([9, 6, 3, 0])]
    [0, 9, 6]
    """

    process: Gaussian
    memory = 1

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: the level before the step's start, 0 for the first step."""
        previous = [0, *levels][: len(levels) - 1]
        steps = zip(one_step_per_level(levels), previous, strict=True)
        return [step._replace(tag=level) for step, level in steps]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        schedule, start, end = self.process.schedule, batch.start_level, batch.end_level
        a, b = (alpha_bar_at(schedule, level, x) for level in (start, end))
        x_weight = ((1 - b) / (1 - a)).sqrt()
        clean_weight = b.sqrt() - x_weight * a.sqrt()
        log_snr, previous = schedule.half_log_snr, batch.device_tag
        step, last_step = log_snr[end] - log_snr[start], log_snr[start] - log_snr[previous]
        second_order = (previous > 0) & (end > 0)
        ratio = torch.where(second_order, step / (2 * last_step), 0.0).view(clean_weight.shape)
        difference = estimate.clean - memory[:, 0]
        memory[:, 0] = estimate.clean
        clean = estimate.clean + ratio.to(x.dtype) * difference
        return x_weight.to(x.dtype) * x + clean_weight.to(x.dtype) * clean
