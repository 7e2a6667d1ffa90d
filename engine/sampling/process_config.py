"""The choice between Gaussian diffusion and rectified flow as methods offer it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from ..diffusion.denoiser import Denoiser
from ..diffusion.flow import Flow
from ..diffusion.schedule import Schedule
from .samplers import SamplingConfig


@dataclass(frozen=True)
class ProcessConfig:
    """The forward process of a method, and how it is solved.

    process: the method's own, or "flow": rectified flow, a straight line from the sample to its
    noise, whose velocity the network predicts. Noise levels are then a thousandth of the way each;
    of the schedule only the number of levels counts, and reverse steps add no noise.
    solver: of rectified flow; heun calls the network twice a step.

    >>> from adbench.engine.sampling.process_config import ProcessConfig
    >>> ProcessConfig("flow").is_flow
    True
    """

    process: Literal["gaussian", "flow"] = "gaussian"
    solver: Literal["euler", "heun"] = "euler"

    @property
    def is_flow(self) -> bool:
        """Whether the process is rectified flow."""
        return self.process == "flow"

    def build_denoiser(self, net: nn.Module, schedule: Schedule, **options: Any) -> Denoiser:
        """Return the denoiser of a network; options: Denoiser's."""
        if self.is_flow:
            options |= {"process": Flow, "prediction_type": "velocity"}
        return Denoiser(net, schedule, **options)

    def sampling(self, gaussian: SamplingConfig) -> SamplingConfig:
        """Return how samples are taken, from how they are with Gaussian diffusion.

        >>> ProcessConfig("flow", "heun").sampling(SamplingConfig(steps=10)).sampler
        'heun'
        """
        return replace(gaussian, sampler=self.solver, eta=None) if self.is_flow else gaussian

    def ineffective(self, *gaussian_only: str) -> dict[tuple[str, ...], str]:
        """Return by the names of arguments why they have no effect with this process.

        gaussian_only: arguments that rectified flow has no use for

        >>> ProcessConfig(solver="heun").ineffective("eta")
        {('solver',): 'solver is of process=flow'}
        """
        if not self.is_flow:
            return {("solver",): "solver is of process=flow"} if self.solver == "heun" else {}
        return {
            (name,): f"{name} is of Gaussian diffusion, and has no effect with process=flow"
            for name in gaussian_only
        }


GAUSSIAN_PROCESS = ProcessConfig()
