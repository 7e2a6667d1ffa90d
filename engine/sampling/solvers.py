"""Samplers of the Gaussian process, each a step that many chains make at once, in `pool`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion.denoiser import Estimate
from ..diffusion.gaussian import Gaussian, Variance, alpha_bar_at
from .continuous_batching import ChainBatch, Step, one_step_per_level
from .step_noise import StepNoise


@dataclass(frozen=True)
class Ancestral:
    """DDPM (Ho et al. 2020, algorithm 2) at eta 1, DDIM (Song et al. 2021, equation 12) at 0."""

    process: Gaussian
    step_noise: StepNoise
    eta: float = 1.0
    variance: Variance = "small"
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        fresh = self.step_noise(batch, x) if self.eta > 0 else None
        return self.process.reverse_step(
            estimate.clean, estimate.noise, batch.start_level, batch.end_level, fresh,
            eta=self.eta, variance=self.variance, learned_variance=estimate.learned_variance,
        )  # fmt: skip


@dataclass(frozen=True)
class DdimOde:
    """Along DDIM's ODE, up or down; up is inversion (Song et al. 2021, section 4.3).

    The network, which knows no level 0, is asked there as at level 1. Going down undoes going up
    exactly if the noise estimate is the same all the way, and better the finer the ladder if not.
    """

    process: Gaussian
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return [
            Step(max(move.start_level, 1), move.start_level, move.end_level)
            for move in one_step_per_level(levels)
        ]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        clean = self.process.x0_from_noise(x, estimate.noise, batch.start_level)
        return self.process.combine(clean, estimate.noise, batch.end_level)


PLMS_WEIGHTS = (  # of PLMS, by mark: the weights of the newest noise estimate and the three before
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
    step is made, asked about at its end and made again with the mean of both estimates, as in
    diffusers with skip_prk_steps; so a chain of two steps or more costs one call more than steps.

    lagged: MONAI's, which then takes the second step for made: one call less, and all that follows
    is a step behind what the network is told.
    """

    process: Gaussian
    lagged: bool = False
    memory = 4  # three estimates, the newest first, and where the first step began

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        plain = one_step_per_level(levels)
        if len(plain) < 2:
            return plain
        first, rest = plain[0], plain[2 if self.lagged else 1 :]
        later = [move._replace(tag=min(i, 4)) for i, move in enumerate(rest, 2)]
        return [first, Step(first.end_level, first.start_level, first.end_level, 1), *later]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        weights = torch.tensor(PLMS_WEIGHTS, dtype=x.dtype)[batch.tag].T.to(x.device)  # (4, B)
        again = (batch.tag == 1).view(shape).to(x.device)
        known = [estimate.noise, *memory[:, :3].unbind(1)]
        mixed = sum((w.view(shape) * eps for w, eps in zip(weights, known, strict=True)), 0 * x)
        begun = torch.where(again, memory[:, 3], x)
        shifted = [
            torch.where(again, old, new) for old, new in zip(known[1:], known[:3], strict=True)
        ]
        memory[:] = torch.stack([*shifted, begun], 1)
        clean = self.process.x0_from_noise(begun, mixed, batch.start_level)
        return self.process.combine(clean, mixed, batch.end_level)


TAGS_PER_CHAIN = 8
"""What `Leaking` adds to a mark of PLMS for every chain of the sample that came before."""


@dataclass(frozen=True)
class SharedHistoryPlms:
    """PLMS of several chains of a sample in turn, whose history is cleared for the first alone: a
    slip of ddpm-ood's code, in which one scheduler serves all starts and none but the first makes
    its first step twice.

    levels: of each of K chains; noised: (K, N, C, *S), where they begin; `reconstructions` where
    they ended
    """

    plms: Plms
    levels: Sequence[Sequence[int]]
    noised: Tensor
    reconstructions: Tensor
    memory = 4

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """Those of all chains, whichever ladder is asked for."""
        first, *later = self.levels
        path = self.plms.plan_steps(first)
        known = sum(move.tag != 1 for move in path)  # a step made again is not remembered
        for k, rungs in enumerate(later, 1):
            for move in one_step_per_level(rungs):
                known += 1
                past = 0 if known == 1 else min(known, 4)
                path.append(move._replace(tag=TAGS_PER_CHAIN * k + past))
        return path

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        plain = replace(batch, tag=batch.tag % TAGS_PER_CHAIN)
        x = self.plms.advance(x, memory, estimate, plain)
        for i, (job, path) in enumerate(zip(batch.chain.tolist(), batch.upcoming, strict=True)):
            chain = path[0].tag // TAGS_PER_CHAIN
            if len(path) == 1 or path[1].tag // TAGS_PER_CHAIN != chain:
                self.reconstructions[chain, job] = x[i]
                if len(path) > 1:
                    x[i] = self.noised[chain + 1, job]
        return x


@dataclass(frozen=True)
class DpmSolver:
    """DPM-Solver++ (2M): two x_0 estimates make a step, in half the logarithm of signal to noise.

    Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models", algorithm 2, midpoint. The first step and the last, which arrives at level 0, are of
    first order.
    """

    process: Gaussian
    memory = 1

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        before = [0, *levels][: len(levels) - 1]
        return [m._replace(tag=b) for m, b in zip(one_step_per_level(levels), before, strict=True)]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        a, b = (
            alpha_bar_at(self.process.schedule, at, x)
            for at in (batch.start_level, batch.end_level)
        )
        shrink = ((1 - b) / (1 - a)).sqrt()
        gain = b.sqrt() - shrink * a.sqrt()
        place = self.process.schedule.half_log_snr
        before = batch.tag.to(x.device)
        step, last = (
            place[batch.end_level] - place[batch.start_level],
            place[batch.start_level] - place[before],
        )
        second = (before > 0) & (batch.end_level > 0)
        ahead = torch.where(second, step / (2 * last), 0.0).view(gain.shape)
        slope = estimate.clean - memory[:, 0]
        memory[:, 0] = estimate.clean
        clean = estimate.clean + ahead.to(x.dtype) * slope
        return shrink.to(x.dtype) * x + gain.to(x.dtype) * clean
