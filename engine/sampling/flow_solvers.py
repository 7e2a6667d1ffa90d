"""Solvers of the equation of rectified flow, dx/dt = velocity, which many chains solve at once.

Liu, Gong and Liu, ICLR 2023, section 2.2 (Euler); Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models", NeurIPS 2022, algorithm 1 (Heun, with a last step of Euler's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.denoiser import Estimate
from ..diffusion.flow import Flow
from .continuous_batching import ChainBatch, Step, one_step_per_level


@dataclass(frozen=True)
class Euler:
    """Euler's method, down to the sample or up to the noise; the network is called once a step.

    The network, which knows no level 0, is called there with level 1.

    process: of the denoiser

    >>> from adbench.engine.diffusion.flow import Flow
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.flow_solvers import Euler
    >>> Euler(Flow(linear_schedule())).plan_steps([0, 10])
    [Step(network_level=1, start_level=0, end_level=10, tag=0)]
    """

    process: Flow
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        steps = one_step_per_level(levels)
        return [step._replace(network_level=max(step.start_level, 1)) for step in steps]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        velocity = estimate.noise - estimate.clean
        return self.process.move(x, velocity, batch.start_level, batch.end_level)


@dataclass(frozen=True)
class Heun:
    """Heun's method, of second order: a step is made anew with the mean of the velocities at both
    its ends, so that it calls the network twice; one that arrives at level 0 is Euler's.

    process: of the denoiser

    >>> from adbench.engine.diffusion.flow import Flow
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.flow_solvers import Heun
    >>> [(s.network_level, s.tag) for s in Heun(Flow(linear_schedule())).plan_steps([9, 5, 0])]
    [(9, 0), (5, 1), (5, 0)]
    """

    process: Flow
    memory = 2  # where the step began, and the velocity there

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: 1 where a step is made anew."""
        steps: list[Step] = []
        for step in Euler(self.process).plan_steps(levels):
            steps.append(step)
            if step.end_level > 0:
                steps.append(step._replace(network_level=step.end_level, tag=1))
        return steps

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        anew = (batch.device_tag == 1).view(-1, *[1] * (x.ndim - 1))
        velocity = estimate.noise - estimate.clean
        start = torch.where(anew, memory[:, 0], x)
        slope = torch.where(anew, (memory[:, 1] + velocity) / 2, velocity)
        memory[:, 0], memory[:, 1] = x, velocity
        return self.process.move(start, slope, batch.start_level, batch.end_level)
