"""Ways to disturb a sample and bring it back. Every row of a batch may stand at its own level.

Rows are the jobs (level, sample, repeat); what is drawn depends on the sample, the purpose, the
repeat and the level a step starts from, never on which other levels are swept. So all levels of a
sweep share their draws (common random numbers), and a sweep equals its levels run one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..diffusion.bernoulli import Bernoulli
from ..diffusion.cold import ColdDiffusion
from ..diffusion.denoiser import Denoiser
from ..diffusion.gaussian import Gaussian, Variance, add_noise_in_region
from ..diffusion.schedule import sampling_levels
from ..noise.noise import Noise
from ..runtime.rng import Rng
from .continuous_batching import Guide, Sampler, run_chains
from .discrete_solvers import BernoulliStep, ColdDiffusionStep
from .solvers import Ancestral, DdimOde, DpmSolver, Plms
from .step_noise import StepNoise

SAMPLERS = ("ddpm", "ddim", "plms", "dpm++")


@dataclass(frozen=True)
class SamplingConfig:
    """How a sample is brought back.

    steps: at most so many network calls a chain, evenly spaced; None is one for every level.
    eta: the share of DDPM's noise that a step of ddpm or ddim adds: 1 is ancestral DDPM (Ho et al.
    2020, algorithm 2), 0 is DDIM; None is what the sampler's name says. plms and dpm++ add none.
    repeats: chains per sample, each with its own noise. stride: levels a step, in place of steps.
    lagged: of plms, MONAI's slip. naive: of cold diffusion, its algorithm 1. The samplers that
    have names are for the Gaussian process; the others have one each.
    """

    steps: int | None = None
    eta: float | None = None
    variance: Variance = "small"
    repeats: int = 1
    sampler: Literal["ddpm", "ddim", "plms", "dpm++"] = "ddpm"
    stride: int | None = None
    lagged: bool = False
    naive: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"no sampler {self.sampler!r}; there are {', '.join(SAMPLERS)}")

    @property
    def effective_eta(self) -> float:
        """eta, whoever said it."""
        if self.eta is None or self.sampler not in ("ddpm", "ddim"):
            return float(self.sampler == "ddpm")
        return self.eta


def reconstruct(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    rng: Rng,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    noise: Noise | None = None,
    reverse_noise: Noise | None = None,
    guide: Guide | None = None,
    conditioning: Sequence[Tensor] = (),
    region: Tensor | None = None,
) -> Tensor:
    """Disturb x (N, C, *S) to each level and denoise it step by step, (L, N, R, C, *S).

    levels are steps on the 1000-step scale; level 0 returns x. noise: the process's own if None.
    reverse_noise: what the steps back add, `noise` if None. conditioning: what the network is told
    besides, per sample (N, ...). region: (N, 1, *S) bool; only there is anything disturbed and
    brought back.
    """
    levels = [denoiser.schedule.to_level(level) for level in levels]
    index, level = enumerate_chains(levels, len(x), sampling.repeats)
    streams = repeat_streams(rng, sampling.repeats).rows(index)
    ladders = [sampling_levels(value, sampling.steps, sampling.stride) for value in level.tolist()]
    sample, level = index % len(x), level.to(x.device)
    noise = noise or denoiser.process.default_noise
    drawn = noise(streams.fork("start"), x.shape[1:], level.clamp(min=1))
    within = None if region is None else region[sample.to(x.device)]
    noised = add_noise_in_region(denoiser.process, x[sample.to(x.device)], level, drawn, within)
    back = reverse_process(
        denoiser,
        noised,
        ladders,
        streams.fork("step"),
        sampling=sampling,
        noise=reverse_noise or noise,
        guide=guide,
        samples=sample.tolist(),
        conditioning=conditioning,
        region=region,
        initial_noise=drawn,
    )
    return _unflatten_chains(back, len(levels), len(x), sampling.repeats)


def reverse_process(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[Sequence[int]],
    rng: Rng,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    noise: Noise | None = None,
    guide: Guide | None = None,
    samples: Sequence[int] | None = None,
    conditioning: Sequence[Tensor] = (),
    region: Tensor | None = None,
    initial_noise: Tensor | None = None,
) -> Tensor:
    """Take every row (M, C, *S) down its own ladder of levels; a finished row costs nothing.

    rng: one stream per row; a step draws at the level that it starts from. samples, given, region:
    as `flow` has them. initial_noise: what a cold process disturbed the rows with.
    """
    process, noise = denoiser.process, noise or denoiser.process.default_noise
    sampler: Sampler
    if isinstance(process, Bernoulli):
        sampler = BernoulliStep(process, StepNoise(rng, noise))
    elif isinstance(process, ColdDiffusion):
        sampler = ColdDiffusionStep(
            process, torch.zeros_like(x) if initial_noise is None else initial_noise, sampling.naive
        )
    elif not isinstance(process, Gaussian):
        raise ValueError(f"no sampler goes back along a {process.name} process")
    elif sampling.sampler == "plms":
        sampler = Plms(process, sampling.lagged)
    elif sampling.sampler == "dpm++":
        sampler = DpmSolver(process)
    else:
        sampler = Ancestral(
            process, StepNoise(rng, noise), sampling.effective_eta, sampling.variance
        )
    return run_chains(
        denoiser,
        sampler,
        x,
        levels,
        samples=samples,
        guide=guide,
        conditioning=conditioning,
        region=region,
    )


def ddim_invert(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    *,
    sampling: SamplingConfig = SamplingConfig(),
    guide: Guide | None = None,
    conditioning: Sequence[Tensor] = (),
) -> Tensor:
    """Encode x (N, C, *S) to each level along DDIM's ODE, nothing drawn, (L, N, C, *S).

    Where a level's ladder is the beginning of a higher one's, as without respacing, the way is
    gone once. `descend` with sampler "ddim" decodes along the same ladder.
    """
    if not isinstance(denoiser.process, Gaussian):
        raise ValueError(f"there is no inversion along a {denoiser.process.name} process")
    ups = [
        sampling_levels(denoiser.schedule.to_level(at), sampling.steps, sampling.stride)[::-1]
        for at in levels
    ]
    out = x.new_empty(len(ups), *x.shape)
    reached, behind = x, [0]
    for i in sorted(range(len(ups)), key=lambda i: len(ups[i])):
        if ups[i][: len(behind)] != behind:
            reached, behind = x, [0]
        way = ups[i][len(behind) - 1 :]
        ode = DdimOde(denoiser.process)
        reached = run_chains(
            denoiser, ode, reached, [way] * len(x), guide=guide, conditioning=conditioning
        )
        out[i], behind = reached, ups[i]
    return out


def predict_x0(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    rng: Rng,
    *,
    noise: Noise | None = None,
    regions: Tensor | None = None,
    repeats: int = 1,
    conditioning: Sequence[Tensor] = (),
) -> Tensor:
    """Disturb x (N, C, *S) to each level and estimate x_0 in one step, (L, N, R, P, C, *S).

    regions: (P, 1, *S) bool; in row p only region p is disturbed. None is one region, all of S.
    A sample's noise field is the same for all its regions. conditioning: as in `restore`.
    """
    if regions is None:
        regions = torch.ones(1, 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    levels = [denoiser.schedule.to_level(level) for level in levels]
    index, level = enumerate_chains(levels, len(x), repeats)
    sample, level = (index % len(x)).to(x.device), level.to(x.device)
    noise = noise or denoiser.process.default_noise
    field = noise(repeat_streams(rng, repeats).rows(index).fork("start"), x.shape[1:], level)
    noised = denoiser.process.add_noise(x[sample], level, field)  # (M, C, *S)
    mixed = torch.where(regions, noised[:, None], x[sample][:, None])  # (M, P, C, *S)
    told = [value[sample].repeat_interleave(len(regions), 0) for value in conditioning]
    out = denoiser(mixed.flatten(0, 1), level.repeat_interleave(len(regions)), *told)
    return _unflatten_chains(out.view_as(mixed), len(levels), len(x), repeats)


def enumerate_chains(levels: Sequence[int], samples: int, repeats: int) -> tuple[Tensor, Tensor]:
    """Of the jobs in the order (L, N, R): which stream of `repeated` each uses, and its level."""
    per_level = torch.arange(samples * repeats).view(repeats, samples).T.flatten()
    level = torch.tensor(list(levels)).repeat_interleave(samples * repeats)
    return per_level.repeat(len(levels)), level


def repeat_streams(rng: Rng, repeats: int) -> Rng:
    """Streams of the N samples for repeat 0, then for repeat 1, and so on: (R * N)."""
    return Rng.cat([rng.fork("repeat", r) for r in range(repeats)])


def _unflatten_chains(flat: Tensor, levels: int, samples: int, repeats: int) -> Tensor:
    return flat.view(levels, samples, repeats, *flat.shape[1:])
