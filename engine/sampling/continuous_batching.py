"""Continuous batching: chains of any length and level share one batch that is always full.

A chain is a walk of one sample down its ladder of levels. A slot whose chain has ended takes the
next one, so that a network sees one batch shape, and a sweep over levels wastes rows only when
fewer chains are left than slots. Longest chains go first, which makes that end short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser, Estimate

LOOKAHEAD = 64
"""How many moves of a chain are told beforehand."""


class Step(NamedTuple):
    """One network call of a chain, and the step that it makes.

    network_level: the level that the network is told; here, end_level: the levels the step leads
    from and to
    tag: what the sampler wants to know of it beyond that
    """

    network_level: int
    start_level: int
    end_level: int
    tag: int = 0


@dataclass(frozen=True)
class ChainBatch:
    """The B chains that are in the batch.

    chain: which chain each is, (B,): its place among what is being sampled, for `restore` in the
        order (L, N, R)
    sample: which sample it belongs to, (B,)
    tag: of its move, (B,); these three stay on the CPU
    network_level: what the network was told, (B,); here, end_level: of the move, (B,)
    upcoming: the next moves of each, at most AHEAD, this one first
    """

    chain: Tensor
    sample: Tensor
    tag: Tensor
    network_level: Tensor
    start_level: Tensor
    end_level: Tensor
    upcoming: Sequence[Sequence[Step]]

    def per_chain(self, values: Tensor) -> Tensor:
        """What belongs to these rows' samples, (N, ...) -> (B, ...)."""
        return values[self.sample.to(values.device)]

    def subset(self, index: Tensor) -> ChainBatch:
        """Some of them; index is on the CPU."""
        on = index.to(self.network_level.device)
        return ChainBatch(
            self.chain[index],
            self.sample[index],
            self.tag[index],
            self.network_level[on],
            self.start_level[on],
            self.end_level[on],
            [self.upcoming[i] for i in index.tolist()],
        )


Guide = Callable[[Tensor, Tensor, Tensor, ChainBatch], tuple[Tensor, Tensor]]
"""(x (B, C, *S), noise estimate, x_0 estimate, rows) -> the two estimates, steered.

It sees the rows of one batch, and chains of many levels in it, each again at each of its moves:
`rows.level` is what they stand at, `rows.of(values)` what belongs to their samples, and what it
wants to remember of a chain it keeps under `rows.job`. The step down is made from both estimates
by DDPM and DDIM, from the noise by PLMS and inversion, from x_0 by DPM-Solver++ and cold
diffusion; a guide that moves one moves the other along.
"""


class Sampler(Protocol):
    """How a chain goes from one level to the next, for many chains at once.

    memory: how many tensors like x a chain carries along, zeros at first
    """

    memory: int

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """The network calls of a chain along a ladder of levels."""
        ...

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        """x (B, C, *S) after the move; memory (B, memory, C, *S) is changed in place."""
        ...


@torch.no_grad()
def run_chains(
    denoiser: Denoiser,
    sampler: Sampler,
    x: Tensor,
    levels: Sequence[Sequence[int]],
    *,
    samples: Sequence[int] | None = None,
    guide: Guide | None = None,
    conditioning: Sequence[Tensor] = (),
    region: Tensor | None = None,
    slots: int | None = None,
) -> Tensor:
    """Take every chain (M, C, *S) along its ladder; in fp32 on a CPU the same to the bit for a
    chain by itself and in any company, order and number.

    samples: the sample of each chain, 0..M-1 if None. conditioning: what the network is told
    besides,
    per sample (N, ...). region: (N, 1, *S) bool, per sample; a chain changes only there. slots: how
    many chains at a time, at most and by default denoiser.batch; the network's batch is filled up
    with copies where there are fewer, which costs time (on a CPU, all of theirs) but no evaluation.
    """
    plans = {tuple(ladder): sampler.plan_steps(ladder) for ladder in {tuple(at) for at in levels}}
    paths = [plans[tuple(ladder)] for ladder in levels]
    order = sorted((job for job, path in enumerate(paths) if path), key=lambda j: -len(paths[j]))
    out, waiting = x.clone(), deque(order)
    jobs = [waiting.popleft() for _ in range(min(slots or denoiser.batch, len(order)))]
    done = [0] * len(jobs)
    state = x[jobs]
    memory = x.new_zeros(len(jobs), sampler.memory, *x.shape[1:])
    while jobs:
        ahead = [paths[j][k : k + LOOKAHEAD] for j, k in zip(jobs, done, strict=True)]
        rows = _chain_batch(jobs, ahead, samples, x)
        estimate = denoiser.estimate(
            state, rows.network_level, *[rows.per_chain(value) for value in conditioning]
        )
        if guide is not None:
            noise, clean = guide(state, estimate.noise, estimate.clean, rows)
            estimate = Estimate(noise, clean, estimate.learned_variance)
        after = sampler.advance(state, memory, estimate, rows)
        state = after if region is None else torch.where(rows.per_chain(region), after, state)
        done = [k + 1 for k in done]
        ended = [i for i, j in enumerate(jobs) if done[i] == len(paths[j])]
        if not ended:
            continue
        out[[jobs[i] for i in ended]] = state[ended]
        free = ended[: len(waiting)]
        for i in free:
            jobs[i], done[i] = waiting.popleft(), 0
        if free:
            state[free], memory[free] = x[[jobs[i] for i in free]], 0.0
        if len(free) < len(ended):  # the end: the batch runs empty
            left = sorted(set(range(len(jobs))) - set(ended[len(free) :]))
            state, memory = state[left], memory[left]
            jobs, done = [jobs[i] for i in left], [done[i] for i in left]
    return out


def one_step_per_level(levels: Sequence[int]) -> list[Step]:
    """One call a rung."""
    return [Step(here, here, there) for here, there in pairwise(levels)]


def _chain_batch(
    chains: Sequence[int],
    upcoming: Sequence[Sequence[Step]],
    samples: Sequence[int] | None,
    x: Tensor,
) -> ChainBatch:
    asked, here, there, mark = torch.tensor([path[0] for path in upcoming]).T
    job = torch.tensor(chains)
    sample = job if samples is None else torch.tensor([samples[j] for j in chains])
    level, here, there = torch.stack([asked, here, there]).to(x.device)
    return ChainBatch(job, sample, mark, level, here, there, upcoming)
