"""Continuous batching: chains of any length and level share one batch that is always full.

A chain is the walk of one sample down its levels. A slot whose chain has ended takes the next one,
so that a network computes one batch shape, and a sweep over levels wastes rows only when fewer
chains are left than slots. Longest chains go first, which makes that end short.

Our own because samplers of other libraries (diffusers' schedulers, MONAI's) hold one timestep for a
whole batch. Counted: a sweep over the levels 50, 100, 250 and 500 needs 900 rows of the network per
sample; a batch that runs until its longest chain has ended needs 2,000; one sweep per level needs
900, plus the padding of every batch that is not full.
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
"""How many steps of a chain a sampler can see in advance."""


class Step(NamedTuple):
    """One network call of a chain, and the step from one level to the next that it makes.

    network_level: the level that the network is called with
    start_level, end_level: of the step
    tag: what the sampler must know of it beyond that

    >>> from adbench.engine.sampling.continuous_batching import Step
    >>> Step(network_level=10, start_level=10, end_level=8).tag
    0
    """

    network_level: int
    start_level: int
    end_level: int
    tag: int = 0


@dataclass(frozen=True)
class ChainBatch:
    """The B chains that are in the batch.

    chain: the index of each, (B,), among those being sampled; for `reconstruct` in the order
        (L, N, R)
    sample: which sample it belongs to, (B,)
    tag: of its step, (B,); these three stay on the CPU
    network_level: the level that the network is called with, (B,)
    start_level, end_level: of the step, (B,)
    upcoming: the next steps of each, at most LOOKAHEAD, this one first

    >>> import torch
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch, one_step_per_level
    >>> chain, sample, tag = torch.tensor([3, 0]), torch.tensor([1, 0]), torch.tensor([0, 0])
    >>> start, end = torch.tensor([250, 100]), torch.tensor([200, 50])
    >>> steps = [one_step_per_level([250, 200]), one_step_per_level([100, 50])]
    >>> batch = ChainBatch(chain, sample, tag, start, start, end, steps)
    >>> batch.per_chain(torch.tensor([10.0, 20.0]))
    tensor([20., 10.])
    """

    chain: Tensor
    sample: Tensor
    tag: Tensor
    network_level: Tensor
    start_level: Tensor
    end_level: Tensor
    upcoming: Sequence[Sequence[Step]]

    def per_chain(self, values: Tensor) -> Tensor:
        """The value of each chain's sample, (N, ...) -> (B, ...)."""
        return values[self.sample.to(values.device)]

    def subset(self, index: Tensor) -> ChainBatch:
        """Some of the chains; index is on the CPU."""
        on_device = index.to(self.network_level.device)
        return ChainBatch(
            self.chain[index], self.sample[index], self.tag[index],
            self.network_level[on_device], self.start_level[on_device], self.end_level[on_device],
            [self.upcoming[i] for i in index.tolist()],
        )  # fmt: skip


Guide = Callable[[Tensor, Tensor, Tensor, ChainBatch], tuple[Tensor, Tensor]]
"""(x (B, C, *S), noise estimate, x_0 estimate, batch) -> the two estimates, guided.

It receives the chains of one batch, which are at many levels, each again at each of its steps:
`batch.network_level` is their level, `batch.per_chain(values)` what belongs to their samples, and
a state of a chain belongs under `batch.chain`. The step is made from both estimates by DDPM and
DDIM, from the noise by PLMS and inversion, from x_0 by DPM-Solver++ and cold diffusion; a guide
that changes one changes the other accordingly.
"""


class Sampler(Protocol):
    """How chains go from one level to the next, many at once.

    memory: how many tensors like x a chain carries along, zeros at first

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.continuous_batching import (
    ...     Sampler, one_step_per_level, run_chains)
    >>> class Jump:
    ...     memory = 0
    ...     def plan_steps(self, levels):
    ...         return one_step_per_level([levels[0], levels[-1]])
    ...     def advance(self, x, memory, estimate, batch):
    ...         return estimate.clean
    >>> class Half(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return x / 2
    >>> denoiser = Denoiser(Half(), linear_schedule(), prediction_type="clean").eval()
    >>> sampler: Sampler = Jump()  # one step to x_0, whatever lies between
    >>> run_chains(denoiser, sampler, torch.ones(1, 1, 2), [[100, 50, 0]])
    tensor([[[0.5000, 0.5000]]])
    """

    memory: int

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """The network calls of a chain along its levels."""
        ...

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        """x (B, C, *S) after the step; memory (B, memory, C, *S) is changed in place."""
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
    """Take every chain along its levels and return where it ends, (M, C, *S).

    In fp32 on a CPU the same to the bit for a chain alone and in any batch, order and number.

    denoiser: in evaluation mode
    sampler: of the denoiser's process
    x: where each chain starts, (M, C, *S)
    levels: of each chain, from its start to its end
    samples: the sample of each chain, 0..M-1 if None
    guide: changes the estimates before each step
    conditioning: further inputs of the network, per sample (N, ...)
    region: (N, 1, *S) bool, per sample; a chain changes only there
    slots: how many chains at a time, at most and by default denoiser.batch; the network's batch is
        padded with copies where there are fewer, which costs time (on a CPU, all of theirs) but no
        evaluation

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.sampling.continuous_batching import run_chains
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.solvers import DdimOde
    >>> class Half(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.full_like(x, 0.5)
    >>> denoiser = Denoiser(Half(), linear_schedule(), prediction_type="clean").eval()
    >>> x = torch.zeros(2, 1, 3)
    >>> run_chains(denoiser, DdimOde(denoiser.process), x, [[100, 50, 0], [8, 0]]).flatten()
    tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000])
    """
    steps = {tuple(path): sampler.plan_steps(path) for path in {tuple(path) for path in levels}}
    paths = [steps[tuple(path)] for path in levels]
    order = sorted((i for i, path in enumerate(paths) if path), key=lambda i: -len(paths[i]))
    result, waiting = x.clone(), deque(order)
    chains = [waiting.popleft() for _ in range(min(slots or denoiser.batch, len(order)))]
    position = [0] * len(chains)
    state = x[chains]
    memory = x.new_zeros(len(chains), sampler.memory, *x.shape[1:])
    while chains:
        upcoming = [paths[c][k : k + LOOKAHEAD] for c, k in zip(chains, position, strict=True)]
        batch = _chain_batch(chains, upcoming, samples, x)
        inputs = [batch.per_chain(value) for value in conditioning]
        estimate = denoiser.estimate(state, batch.network_level, *inputs)
        if guide is not None:
            noise, clean = guide(state, estimate.noise, estimate.clean, batch)
            estimate = Estimate(noise, clean, estimate.learned_variance)
        after = sampler.advance(state, memory, estimate, batch)
        state = after if region is None else torch.where(batch.per_chain(region), after, state)
        position = [k + 1 for k in position]
        ended = [i for i, chain in enumerate(chains) if position[i] == len(paths[chain])]
        if not ended:
            continue
        result[[chains[i] for i in ended]] = state[ended]
        free = ended[: len(waiting)]
        for i in free:
            chains[i], position[i] = waiting.popleft(), 0
        if free:
            state[free], memory[free] = x[[chains[i] for i in free]], 0.0
        if len(free) < len(ended):  # nothing waits any more: the batch shrinks
            left = sorted(set(range(len(chains))) - set(ended[len(free) :]))
            state, memory = state[left], memory[left]
            chains, position = [chains[i] for i in left], [position[i] for i in left]
    return result


def one_step_per_level(levels: Sequence[int]) -> list[Step]:
    """Return the steps of a sampler that calls the network once per level.

    levels: that a chain visits, both ends included

    >>> from adbench.engine.sampling.continuous_batching import one_step_per_level
    >>> one_step_per_level([10, 5, 0])[1]
    Step(network_level=5, start_level=5, end_level=0, tag=0)
    """
    return [Step(start, start, end) for start, end in pairwise(levels)]


def _chain_batch(
    chains: Sequence[int],
    upcoming: Sequence[Sequence[Step]],
    samples: Sequence[int] | None,
    x: Tensor,
) -> ChainBatch:
    network_level, start, end, tag = torch.tensor([path[0] for path in upcoming]).T
    chain = torch.tensor(chains)
    sample = chain if samples is None else torch.tensor([samples[c] for c in chains])
    network_level, start, end = torch.stack([network_level, start, end]).to(x.device)
    return ChainBatch(chain, sample, tag, network_level, start, end, upcoming)
