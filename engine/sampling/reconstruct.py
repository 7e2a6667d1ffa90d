"""Reconstruction: add noise to a sample and denoise it. Each row of a batch has its own level.

Rows are the chains (level, sample, repeat); what is drawn depends on the sample, the purpose, the
repeat and the level where a step starts, never on which other levels are swept. So all levels of a
sweep share their draws (common random numbers), and a sweep equals its levels run one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.flow import Flow
from ..diffusion.gaussian import Gaussian, add_noise_in_region
from ..diffusion.schedule import sampling_levels
from ..noise.noise import Noise
from ..runtime.rng import Rng
from ..runtime.transfer import to_device
from .continuous_batching import Guide, run_chains
from .flow_solvers import Euler
from .samplers import DEFAULT_SAMPLING, SamplingConfig, build_sampler
from .solvers import DdimOde
from .step_noise import StepNoise


def reconstruct(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    rng: Rng,
    *,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    noise: Noise | None = None,
    reverse_noise: Noise | None = None,
    guide: Guide | None = None,
    conditioning: Sequence[Tensor] = (),
    region: Tensor | None = None,
) -> Tensor:
    """Add noise to x up to each level and denoise it step by step, (L, N, R, C, *S).

    denoiser: in evaluation mode
    x: (N, C, *S), in the denoiser's range
    levels: on the 1000-step scale; level 0 returns x
    rng: one stream per sample
    sampling: sampler, steps, repeats R
    noise: what is added to x, the process's own if None
    reverse_noise: what the reverse steps add, `noise` if None
    guide: changes the estimates before each step
    conditioning: further inputs of the network, per sample (N, ...)
    region: (N, 1, *S) bool; x changes only there

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.reconstruct import reconstruct
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> reconstruct(denoiser, torch.ones(1, 1, 2), [0, 5], Rng(["a"])).flatten(1)
    tensor([[1., 1.],
            [0., 0.]])
    """
    levels = [denoiser.schedule.to_level(level) for level in levels]
    index, level = enumerate_chains(levels, len(x), sampling.repeats)
    streams = repeat_streams(rng, sampling.repeats).rows(index)
    paths = [sampling_levels(start, sampling.steps, sampling.stride) for start in level.tolist()]
    sample = index % len(x)
    on_device, level = to_device(torch.stack([sample, level]), x.device)
    noise = noise or denoiser.process.default_noise
    initial_noise = noise(streams.fork("start"), x.shape[1:], level.clamp(min=1))
    chain_region = None if region is None else region[on_device]
    noisy = add_noise_in_region(denoiser.process, x[on_device], level, initial_noise, chain_region)
    ends = reverse_process(
        denoiser,
        noisy,
        paths,
        streams.fork("step"),
        sampling=sampling,
        noise=reverse_noise or noise,
        guide=guide,
        samples=sample.tolist(),
        conditioning=conditioning,
        region=region,
        initial_noise=initial_noise,
    )
    return _unflatten_chains(ends, len(levels), len(x), sampling.repeats)


def reverse_process(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[Sequence[int]],
    rng: Rng,
    *,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    noise: Noise | None = None,
    guide: Guide | None = None,
    samples: Sequence[int] | None = None,
    conditioning: Sequence[Tensor] = (),
    region: Tensor | None = None,
    initial_noise: Tensor | None = None,
) -> Tensor:
    """Denoise every row along its own levels, (M, C, *S); a row that has ended costs nothing.

    denoiser: in evaluation mode
    x: (M, C, *S), each at the first of its levels
    levels: of each row, in descending order
    rng: one stream per row; a step draws at the level where it starts
    sampling: sampler of the process
    noise: what the steps add, the process's own if None
    guide, samples, conditioning, region: as in `run_chains`
    initial_noise: what cold diffusion degraded the rows with

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.reconstruct import reverse_process
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> reverse_process(denoiser, torch.ones(1, 1, 2), [[5, 3, 0]], Rng(["a"]))
    tensor([[[0., 0.]]])
    """
    step_noise = StepNoise(rng, noise or denoiser.process.default_noise)
    initial_noise = torch.zeros_like(x) if initial_noise is None else initial_noise
    sampler = build_sampler(denoiser.process, sampling, step_noise, initial_noise)
    return run_chains(
        denoiser, sampler, x, levels,
        samples=samples, guide=guide, conditioning=conditioning, region=region,
    )  # fmt: skip


def ddim_invert(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    *,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    guide: Guide | None = None,
    conditioning: Sequence[Tensor] = (),
) -> Tensor:
    """Encode x to each level along DDIM's ODE or that of a flow, without noise, (L, N, C, *S).

    Where a level's path is the beginning of a higher one's, as without respacing, it is computed
    once. `reverse_process` with sampler "ddim" or "euler" decodes along the same levels.

    denoiser: of a Gaussian process or a flow; ValueError for another
    x: (N, C, *S), in the denoiser's range
    levels: on the 1000-step scale
    sampling: steps or stride
    guide, conditioning: as in `run_chains`

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.sampling.reconstruct import ddim_invert
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule()).eval()
    >>> ddim_invert(denoiser, torch.ones(1, 1, 2), [0, 2]).flatten(1)
    tensor([[1.0000, 1.0000],
            [0.9999, 0.9999]])
    """
    process = denoiser.process
    if isinstance(process, Flow):
        ode = Euler(process)
    elif isinstance(process, Gaussian):
        ode = DdimOde(process)
    else:
        raise ValueError(f"there is no inversion along a {process.name} process")
    schedule = denoiser.schedule
    paths = [
        sampling_levels(schedule.to_level(level), sampling.steps, sampling.stride)[::-1]
        for level in levels
    ]
    result = x.new_empty(len(paths), *x.shape)
    encoded, last_path = x, [0]
    for i in sorted(range(len(paths)), key=lambda i: len(paths[i])):
        if paths[i][: len(last_path)] != last_path:
            encoded, last_path = x, [0]
        rest = [paths[i][len(last_path) - 1 :]] * len(x)
        encoded = run_chains(denoiser, ode, encoded, rest, guide=guide, conditioning=conditioning)
        result[i], last_path = encoded, paths[i]
    return result


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
    """Add noise to x up to each level and estimate x_0 in one step, (L, N, R, P, C, *S).

    A sample's noise is the same for all its regions.

    denoiser: in evaluation mode
    x: (N, C, *S), in the denoiser's range
    levels: on the 1000-step scale
    rng: one stream per sample
    noise: the process's own if None
    regions: (P, 1, *S) bool; noise is added to estimate p only in region p; None is one region,
        all of S
    repeats: R
    conditioning: further inputs of the network, per sample (N, ...)

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.reconstruct import predict_x0
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> predict_x0(denoiser, torch.ones(3, 1, 2), [5, 250], Rng(["a", "b", "c"])).shape
    torch.Size([2, 3, 1, 1, 1, 2])
    """
    if regions is None:
        regions = torch.ones(1, 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    levels = [denoiser.schedule.to_level(level) for level in levels]
    index, level = enumerate_chains(levels, len(x), repeats)
    sample, level = to_device(torch.stack([index % len(x), level]), x.device)
    noise = noise or denoiser.process.default_noise
    eps = noise(repeat_streams(rng, repeats).rows(index).fork("start"), x.shape[1:], level)
    noisy = denoiser.process.add_noise(x[sample], level, eps)  # (M, C, *S)
    partly = torch.where(regions, noisy[:, None], x[sample][:, None])  # (M, P, C, *S)
    inputs = [value[sample].repeat_interleave(len(regions), 0) for value in conditioning]
    clean = denoiser(partly.flatten(0, 1), level.repeat_interleave(len(regions)), *inputs)
    return _unflatten_chains(clean.view_as(partly), len(levels), len(x), repeats)


def enumerate_chains(levels: Sequence[int], samples: int, repeats: int) -> tuple[Tensor, Tensor]:
    """List the chains in the order (L, N, R): the stream of `repeat_streams` of each, and its
    level.

    levels: L levels
    samples: N
    repeats: R

    >>> from adbench.engine.sampling.reconstruct import enumerate_chains
    >>> enumerate_chains([100, 250], samples=2, repeats=1)
    (tensor([0, 1, 0, 1]), tensor([100, 100, 250, 250]))
    """
    per_level = torch.arange(samples * repeats).view(repeats, samples).T.flatten()
    level = torch.tensor(list(levels)).repeat_interleave(samples * repeats)
    return per_level.repeat(len(levels)), level


def repeat_streams(rng: Rng, repeats: int) -> Rng:
    """Fork the streams of the N samples for repeat 0, then for repeat 1, and so on: (R * N).

    rng: one stream per sample
    repeats: R

    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.reconstruct import repeat_streams
    >>> len(repeat_streams(Rng(["a", "b"]), 3))
    6
    """
    return Rng.cat([rng.fork("repeat", r) for r in range(repeats)])


def _unflatten_chains(flat: Tensor, levels: int, samples: int, repeats: int) -> Tensor:
    return flat.view(levels, samples, repeats, *flat.shape[1:])
