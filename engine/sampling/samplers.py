"""The sampler of each forward process, found by the process's class.

A new process registers its own with `@build_sampler.register(ItsClass)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

from torch import Tensor

from ..diffusion.bernoulli import Bernoulli
from ..diffusion.cold import ColdDiffusion
from ..diffusion.flow import Flow
from ..diffusion.gaussian import Gaussian, Process, Variance
from ..diffusion.schedule import Schedule
from .continuous_batching import Sampler
from .discrete_solvers import BernoulliStep, ColdDiffusionStep
from .flow_solvers import Euler, Heun
from .solvers import Ancestral, DpmSolver, Plms
from .step_noise import StepNoise

FLOW_SAMPLERS = ("euler", "heun")
SAMPLERS = ("ddpm", "ddim", "plms", "dpm++", *FLOW_SAMPLERS)


@dataclass(frozen=True)
class SamplingConfig:
    """How a sample is taken from a level back to 0.

    steps: at most so many network calls a chain, evenly spaced; None is one for every level
    eta: the share of DDPM's noise that a step of ddpm or ddim adds: 1 is ancestral DDPM (Ho et al.
        2020, algorithm 2), 0 is DDIM; None is the value of the sampler's name. The others add none
    variance: of a step of ddpm
    repeats: chains per sample, each with its own noise
    sampler: of the Gaussian process, euler and heun of a flow process; the other processes have one
        each
    stride: levels a step, in place of steps
    lagged: of plms, MONAI's error
    final_schedule: of plms, the schedule of the level that a step from a level to itself ends at
    naive: of cold diffusion, its algorithm 1

    >>> from adbench.engine.sampling.samplers import SamplingConfig
    >>> SamplingConfig(sampler="ddim").effective_eta
    0.0
    """

    steps: int | None = None
    eta: float | None = None
    variance: Variance = "small"
    repeats: int = 1
    sampler: Literal["ddpm", "ddim", "plms", "dpm++", "euler", "heun"] = "ddpm"
    stride: int | None = None
    lagged: bool = False
    final_schedule: Schedule | None = None
    naive: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"no sampler {self.sampler!r}; there are {', '.join(SAMPLERS)}")

    @property
    def effective_eta(self) -> float:
        """eta, or the value of the sampler's name where it is None."""
        if self.eta is None or self.sampler not in ("ddpm", "ddim"):
            return float(self.sampler == "ddpm")
        return self.eta


DEFAULT_SAMPLING = SamplingConfig()


@singledispatch
def build_sampler(
    process: Process, sampling: SamplingConfig, step_noise: StepNoise, initial_noise: Tensor
) -> Sampler:
    """Build the sampler of a forward process.

    process: of the denoiser; ValueError for one whose class has no sampler
    sampling: which of the process's samplers, and its settings
    step_noise: what its steps add
    initial_noise: what the chains were degraded with, (M, ...), for cold diffusion

    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.sampling.samplers import SamplingConfig, build_sampler
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> import torch
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> step_noise = StepNoise(Rng(["a"]), gaussian)
    >>> sampling = SamplingConfig(sampler="plms")
    >>> process = Gaussian(linear_schedule())
    >>> type(build_sampler(process, sampling, step_noise, torch.zeros(1))).__name__
    'Plms'
    """
    raise ValueError(f"there is no sampler of a {process.name} process")


@build_sampler.register(Gaussian)
def _(
    process: Gaussian, sampling: SamplingConfig, step_noise: StepNoise, initial_noise: Tensor
) -> Sampler:
    if sampling.sampler in FLOW_SAMPLERS:
        raise ValueError(
            f"the sampler {sampling.sampler!r} is of a flow process, not of a Gaussian one"
        )
    if sampling.sampler == "plms":
        return Plms(process, sampling.lagged, sampling.final_schedule)
    if sampling.sampler == "dpm++":
        return DpmSolver(process)
    return Ancestral(process, step_noise, sampling.effective_eta, sampling.variance)


@build_sampler.register(Flow)
def _(
    process: Flow, sampling: SamplingConfig, step_noise: StepNoise, initial_noise: Tensor
) -> Sampler:
    if sampling.sampler not in FLOW_SAMPLERS:
        raise ValueError(f"a flow process has the samplers {', '.join(FLOW_SAMPLERS)}, not "
            f"{sampling.sampler!r}")  # fmt: skip
    return Heun(process) if sampling.sampler == "heun" else Euler(process)


@build_sampler.register(Bernoulli)
def _(
    process: Bernoulli, sampling: SamplingConfig, step_noise: StepNoise, initial_noise: Tensor
) -> Sampler:
    return BernoulliStep(process, step_noise)


@build_sampler.register(ColdDiffusion)
def _(
    process: ColdDiffusion, sampling: SamplingConfig, step_noise: StepNoise, initial_noise: Tensor
) -> Sampler:
    return ColdDiffusionStep(process, initial_noise, sampling.naive)
