"""Ways to disturb a sample and bring it back. Every row of a batch may stand at its own level.

Rows are the jobs (level, sample, repeat); what is drawn depends on the sample, the purpose, the
repeat and the level a step starts from, never on which other levels are swept. So all levels of a
sweep share their draws (common random numbers), and a sweep equals its levels run one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser
from .noise import Noise, gaussian
from .process import Variance
from .rng import Rng
from .schedule import ladder


@dataclass(frozen=True)
class Chain:
    """How a sample is brought back.

    steps: at most so many network calls a chain, evenly spaced; None is one for every level.
    eta: 1 is ancestral DDPM (Ho et al. 2020, algorithm 2), 0 is DDIM. repeats: chains per sample,
    each with its own noise.
    """

    steps: int | None = None
    eta: float = 1.0
    variance: Variance = "small"
    repeats: int = 1


Guide = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x, noise estimate, x_0 estimate, level) -> the two estimates, steered."""


def restore(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    rng: Rng,
    *,
    chain: Chain = Chain(),
    noise: Noise = gaussian,
    reverse_noise: Noise | None = None,
    guide: Guide | None = None,
) -> Tensor:
    """Disturb x (N, C, *S) to each level and denoise it step by step, (L, N, R, C, *S).

    levels are steps on the 1000-step scale; level 0 returns x. reverse_noise: what the steps back
    add, `noise` if None.
    """
    levels = [denoiser.schedule.level(level) for level in levels]
    index, level = rows(levels, len(x), chain.repeats)
    streams = repeated(rng, chain.repeats).rows(index)
    ladders = [ladder(value, chain.steps) for value in level.tolist()]
    level = level.to(x.device)
    start = noise(streams.fork("start"), x.shape[1:], level.clamp(min=1))
    noised = denoiser.process.disturb(x[index.to(x.device) % len(x)], level, start)
    back = descend(
        denoiser,
        noised,
        ladders,
        streams.fork("step"),
        chain=chain,
        noise=reverse_noise or noise,
        guide=guide,
    )
    return _folded(back, len(levels), len(x), chain.repeats)


def descend(
    denoiser: Denoiser,
    x: Tensor,
    ladders: Sequence[Sequence[int]],
    rng: Rng,
    *,
    chain: Chain = Chain(),
    noise: Noise = gaussian,
    guide: Guide | None = None,
) -> Tensor:
    """Take every row (M, C, *S) down its own ladder of levels to 0; a finished row costs nothing.

    rng: one stream per row; a step draws at the level that it starts from.
    """
    x, longest = x.clone(), max(map(len, ladders))
    padded = torch.tensor([[*steps, *[0] * (longest - len(steps))] for steps in ladders])
    for here, there in zip(padded.T[:-1], padded.T[1:], strict=True):
        live = (here > 0).nonzero().flatten()
        at, to, who = here[live].to(x.device), there[live].to(x.device), live.to(x.device)
        fresh = noise(rng.rows(live).at(at), x.shape[1:], at) if chain.eta > 0 else None
        x[who] = step(denoiser, x[who], at, to, fresh, chain=chain, guide=guide)
    return x


def step(
    denoiser: Denoiser,
    x: Tensor,
    here: Tensor,
    there: Tensor,
    noise: Tensor | None,
    *,
    chain: Chain = Chain(),
    guide: Guide | None = None,
) -> Tensor:
    """One step down, each row from its level `here` to its level `there`.

    The noise estimate is re-derived from the clipped x_0, as ancestral sampling does.
    """
    clean = denoiser(x, here)
    eps = denoiser.process.noise(x, clean, here)
    if guide is not None:
        eps, clean = guide(x, eps, clean, here)
    back = denoiser.process.back
    return back(clean, eps, here, there, noise, eta=chain.eta, variance=chain.variance)


def guess(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    rng: Rng,
    *,
    noise: Noise = gaussian,
    regions: Tensor | None = None,
    repeats: int = 1,
) -> Tensor:
    """Disturb x (N, C, *S) to each level and estimate x_0 in one step, (L, N, R, P, C, *S).

    regions: (P, 1, *S) bool; in row p only region p is disturbed. None is one region, all of S.
    A sample's noise field is the same for all its regions.
    """
    if regions is None:
        regions = torch.ones(1, 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    levels = [denoiser.schedule.level(level) for level in levels]
    index, level = rows(levels, len(x), repeats)
    level = level.to(x.device)
    field = noise(repeated(rng, repeats).rows(index).fork("start"), x.shape[1:], level)
    clean = x[index.to(x.device) % len(x)]
    noised = denoiser.process.disturb(clean, level, field)  # (M, C, *S)
    mixed = torch.where(regions, noised[:, None], clean[:, None])  # (M, P, C, *S)
    out = denoiser(mixed.flatten(0, 1), level.repeat_interleave(len(regions)))
    return _folded(out.view_as(mixed), len(levels), len(x), repeats)


def inpaint(
    denoiser: Denoiser,
    start: Tensor,
    known: Tensor,
    region: Tensor,
    level: int,
    rng: Rng,
    *,
    chain: Chain = Chain(),
    noise: Noise = gaussian,
    resamples: int = 1,
    shifted: bool = False,
    leave_last: bool = False,
) -> Tensor:
    """Fill `region` from the level down so that it fits its known surroundings, (N, C, *S).

    Lugmayr et al. 2022 (RePaint), algorithm 1, from a disturbed `start` instead of pure noise:
    every step joins the denoised region with the known rest, disturbed to the same level, and is
    repeated `resamples` times, noised up again in between. region: (N, 1, *S) bool or weights.
    Exactly `known` where the region is 0.

    Two quirks of autoDDPM's code: `shifted` noises up again by the step below the right one;
    `leave_last` spares the last network call and keeps the region as it is at level 1.
    """
    process, m, level = denoiser.process, region.float(), denoiser.schedule.level(level)

    def full(value: int) -> Tensor:
        return torch.full((len(start),), value, device=start.device)

    def draw(purpose: str, again: int, value: int) -> Tensor:
        streams = rng.fork(purpose, again).at(value)
        return noise(streams, start.shape[1:], full(max(value, 1)))

    y = process.disturb(start, full(level), draw("start", 0, level))
    for here, there in _moves(ladder(level, chain.steps)):
        if there == 0 and leave_last:
            return m * y + (1 - m) * known
        for again in range(resamples if there else 1):
            rest = process.disturb(known, full(there), draw("known", again, here))
            fresh = draw("region", again, here)
            filled = step(denoiser, y, full(here), full(there), fresh, chain=chain)
            y = m * filled + (1 - m) * rest
            if there and again + 1 < resamples:
                off = min(there, 1) if shifted else 0
                y = process.further(
                    y, full(there - off), full(here - off), draw("again", again, here)
                )
    return y


def rows(levels: Sequence[int], samples: int, repeats: int) -> tuple[Tensor, Tensor]:
    """Of the jobs in the order (L, N, R): which stream of `repeated` each uses, and its level."""
    per_level = torch.arange(samples * repeats).view(repeats, samples).T.flatten()
    level = torch.tensor(list(levels)).repeat_interleave(samples * repeats)
    return per_level.repeat(len(levels)), level


def repeated(rng: Rng, repeats: int) -> Rng:
    """Streams of the N samples for repeat 0, then for repeat 1, and so on: (R * N)."""
    return Rng.cat([rng.fork("repeat", r) for r in range(repeats)])


def _folded(out: Tensor, levels: int, samples: int, repeats: int) -> Tensor:
    return out.view(levels, samples, repeats, *out.shape[1:])


def _moves(steps: Sequence[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(steps))
