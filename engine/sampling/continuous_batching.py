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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser, Estimate
from ..runtime.transfer import to_device

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
    tag: of its step, (B,); these three are on the CPU
    network_level: the level that the network is called with, (B,)
    start_level, end_level: of the step, (B,)
    upcoming: the next steps of each, at most LOOKAHEAD, this one first
    on_device: chain, sample and tag on the device of the levels, (3, B); None if not sent yet

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
    on_device: Tensor | None = None

    @property
    def device_chain(self) -> Tensor:
        """`chain` on the device of the levels, (B,)."""
        return self._sent()[0]

    @property
    def device_sample(self) -> Tensor:
        """`sample` on the device of the levels, (B,)."""
        return self._sent()[1]

    @property
    def device_tag(self) -> Tensor:
        """`tag` on the device of the levels, (B,)."""
        return self._sent()[2]

    def per_chain(self, values: Tensor) -> Tensor:
        """The value of each chain's sample, (N, ...) -> (B, ...)."""
        return values[self.sample if values.device.type == "cpu" else self.device_sample]

    def subset(self, index: Tensor) -> ChainBatch:
        """Some of the chains; index is on the CPU."""
        there = to_device(index, self.network_level.device)
        return ChainBatch(
            self.chain[index], self.sample[index], self.tag[index],
            self.network_level[there], self.start_level[there], self.end_level[there],
            [self.upcoming[i] for i in index.tolist()], self._sent()[:, there],
        )  # fmt: skip

    def _sent(self) -> Tensor:
        if self.on_device is not None:
            return self.on_device
        numbers = torch.stack([self.chain, self.sample, self.tag])
        return to_device(numbers, self.network_level.device)


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
    moves, result = _plan_moves(paths, slots or denoiser.batch), x.clone()
    state = memory = x[:0]
    for first, (move, batch, index) in enumerate(_send_moves(moves, samples, x.device)):
        if not first:
            state = x[batch.device_chain]
            memory = x.new_zeros(len(state), sampler.memory, *x.shape[1:])
        inputs = [batch.per_chain(value) for value in conditioning]
        estimate = denoiser.estimate(state, batch.network_level, *inputs)
        if guide is not None:
            noise, clean = guide(state, estimate.noise, estimate.clean, batch)
            estimate = Estimate(noise, clean, estimate.learned_variance)
        after = sampler.advance(state, memory, estimate, batch)
        state = after if region is None else torch.where(batch.per_chain(region), after, state)
        if not move.ended:
            continue
        result[index["ended_chains"]] = state[index["ended"]]
        if move.free:
            state[index["free"]] = x[index["started_chains"]]
            memory.index_fill_(0, index["free"], 0.0)
        if len(move.left) < len(move.chains):  # nothing waits any more: the batch shrinks
            state, memory = state[index["left"]], memory[index["left"]]
    return result


def one_step_per_level(levels: Sequence[int]) -> list[Step]:
    """Return the steps of a sampler that calls the network once per level.

    levels: that a chain visits, both ends included

    >>> from adbench.engine.sampling.continuous_batching import one_step_per_level
    >>> one_step_per_level([10, 5, 0])[1]
    Step(network_level=5, start_level=5, end_level=0, tag=0)
    """
    return [Step(start, start, end) for start, end in pairwise(levels)]


class _Move(NamedTuple):
    """One step of all chains of a batch, and what happens then.

    chains: that are in the slots
    upcoming: the next steps of each
    ended: slots whose chain has ended
    free: those of them that take another chain, started
    left: slots that are not given up
    """

    chains: list[int]
    upcoming: list[list[Step]]
    ended: list[int]
    free: list[int]
    started: list[int]
    left: list[int]


def _plan_moves(paths: Sequence[list[Step]], slots: int) -> Iterator[_Move]:
    """All moves of chains with these paths: which are known before anything is computed."""
    order = sorted((i for i, path in enumerate(paths) if path), key=lambda i: -len(paths[i]))
    waiting = deque(order)
    chains = [waiting.popleft() for _ in range(min(slots, len(order)))]
    position = [0] * len(chains)
    while chains:
        upcoming = [paths[c][k : k + LOOKAHEAD] for c, k in zip(chains, position, strict=True)]
        ended = [i for i, path in enumerate(upcoming) if len(path) == 1]
        free = ended[: len(waiting)]
        started = [waiting.popleft() for _ in free]
        left = sorted(set(range(len(chains))) - set(ended[len(free) :]))
        yield _Move(chains, upcoming, ended, free, started, left)
        position = [k + 1 for k in position]
        chains = list(chains)
        for i, chain in zip(free, started, strict=True):
            chains[i], position[i] = chain, 0
        chains, position = [chains[i] for i in left], [position[i] for i in left]


def _send_moves(
    moves: Iterable[_Move], samples: Sequence[int] | None, device: torch.device
) -> Iterator[tuple[_Move, ChainBatch, dict[str, Tensor]]]:
    """Moves with their batch and, by name, the indices of what happens then, on the device.

    The numbers of LOOKAHEAD moves are sent at once, so that the device waits for none of them.
    """
    moves = iter(moves)
    while some := list(islice(moves, LOOKAHEAD)):
        parts = [part for move in some for part in _move_numbers(move, samples)]
        host = torch.tensor([number for part in parts for number in part], dtype=torch.int64)
        sizes = [len(part) for part in parts]
        here, there = iter(host.split(sizes)), iter(to_device(host, device).split(sizes))
        for move in some:
            batch_here, batch_there = next(here).view(6, -1), next(there).view(6, -1)
            chain, sample, tag = batch_here[:3]
            network_level, start, end = batch_there[3:]
            batch = ChainBatch(
                chain, sample, tag, network_level, start, end, move.upcoming, batch_there[:3]
            )
            index = dict(zip(INDICES, islice(there, len(INDICES)), strict=True))
            deque(islice(here, len(INDICES)), maxlen=0)
            yield move, batch, index


INDICES: Sequence[str] = ("ended", "ended_chains", "free", "started_chains", "left")


def _move_numbers(move: _Move, samples: Sequence[int] | None) -> list[list[int]]:
    """chain, sample, tag and levels of every slot, one after the other; then INDICES."""
    chains, steps = move.chains, [path[0] for path in move.upcoming]
    numbers = [*chains, *(chains if samples is None else [samples[c] for c in chains])]
    numbers += [step.tag for step in steps]
    numbers += [step.network_level for step in steps]
    numbers += [step.start_level for step in steps]
    numbers += [step.end_level for step in steps]
    ended_chains = [chains[i] for i in move.ended]
    return [numbers, move.ended, ended_chains, move.free, move.started, move.left]
