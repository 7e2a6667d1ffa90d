"""Restoring from many levels: how much worse it goes with a sample than with those held out.

Graham et al., "Denoising diffusion models for out-of-distribution detection", CVPR Workshops 2023,
arXiv 2211.07740: PLMS on one grid of levels, from every so many of them with noise of its own; each
start's error in standard deviations, and the mean over starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Denoiser
from ..diffusion.gaussian import Gaussian
from ..diffusion.schedule import ladder
from ..noise.noise import Noise, gaussian
from ..runtime.rng import Rng
from ..runtime.run import Interrupted, Run
from ..training.data_loading import evenly
from .continuous_batching import flow
from .reconstruct import Chain, descend, repeated, rows
from .solvers import Leaking, Plms

VALUES = 2**26
"""At most about so many values are restored at once; how many changes no result."""


class Keyed(Protocol):
    """What calibrating reads of a sample; the dataset room's Sample has more."""

    @property
    def x(self) -> Tensor: ...
    @property
    def key(self) -> str: ...


class Named(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Keyed: ...


class Judged(NamedTuple):
    """score (L, N), map (L, N, *S), and what a sample was restored to, (L, N, C, *S): by the
    highest start, or in the mean of all."""

    score: Tensor
    map: Tensor
    normal: Tensor


Look = Callable[[Tensor, Rng, int], Iterator[tuple[Tensor, Tensor]]]
"""(x (N, C, *S), rng, K) -> of each of the lowest K starts in turn: how far a sample is from what
it is restored to, by each measure, (N, M, *S); and that, (N, C, *S)."""


class Starts(nn.Module):
    """sampling_steps: levels of the grid. skip: every so many of them a chain starts, from the
    second lowest up, none below min_level. lagged: MONAI's PLMS. leaking: a chain takes over the
    history of the start below, and its first step is made once. final_noise: chains end at level 1,
    not at a clean sample. A level below the lowest start stands for that start alone."""

    mean: Tensor  # (K, M) of each start's measures on held-out normal samples
    deviation: Tensor  # (K, M)

    def __init__(
        self,
        sampling_steps: int = 100,
        skip: int = 4,
        *,
        measures: int = 1,
        lagged: bool = False,
        leaking: bool = False,
        final_noise: bool = False,
        min_level: int = 0,
    ) -> None:
        super().__init__()
        if not 2 <= sampling_steps <= 1000 or skip < 1:
            raise ValueError(
                f"sampling_steps lie in 2..1000 and skip is at least 1: {sampling_steps}, {skip}"
            )
        self.stride = 1000 // sampling_steps
        grid = [1 + self.stride * k for k in range(1, sampling_steps, skip)]
        self.levels = [level for level in grid if level >= min_level]
        if not self.levels:
            raise ValueError(f"no start is at {min_level} or above; the highest is at {grid[-1]}")
        self.leaking = leaking
        self.chain = Chain(sampler="plms", stride=self.stride, lagged=lagged)
        self.end = [1] if final_noise else [0]
        self.register_buffer("mean", torch.zeros(len(self.levels), measures))
        self.register_buffer("deviation", torch.ones(len(self.levels), measures))

    def restored(
        self, denoiser: Denoiser, z: Tensor, rng: Rng, count: int, noise: Noise = gaussian
    ) -> Sequence[Tensor]:
        """z (N, C, *S) brought back from each of the lowest `count` starts, (N, C, *S) each."""
        index, level = rows(self.levels[:count], len(z), 1)
        streams, level = repeated(rng, 1).rows(index), level.to(z.device)
        drawn = noise(streams.fork("start"), z.shape[1:], level)
        noised = denoiser.process.disturb(z[index.to(z.device)], level, drawn)
        ladders = [ladder(at, stride=self.stride)[:-1] + self.end for at in level.tolist()]
        if not self.leaking:
            return descend(denoiser, noised, ladders, streams, chain=self.chain).split(len(z))
        begun = noised.view(-1, *z.shape)
        ways, process = ladders[:: len(z)], denoiser.process
        assert isinstance(process, Gaussian)
        sampler = Leaking(Plms(process, self.chain.lagged), ways, begun, torch.empty_like(begun))
        flow(denoiser, sampler, begun[0], [ways[0]] * len(z))
        return sampler.made.unbind()

    def judge(
        self, look: Look, x: Tensor, levels: Sequence[int], rng: Rng, *, averaged: bool = False
    ) -> Judged:
        """In held-out deviations; a level takes the mean over all starts up to it. The map is not
        centred, and so at least 0. averaged: `normal` is the mean of what the starts made of it.
        """
        counts = [max(1, sum(start <= level for start in self.levels)) for level in levels]
        score = x.new_zeros(len(levels), len(x))
        found = x.new_zeros(len(levels), len(x), *x.shape[2:])
        normal = x.new_zeros(len(levels), *x.shape)
        for part in self._parts(x, max(counts)):
            z, heat = x.new_zeros(len(part)), x.new_zeros(len(part), *x.shape[2:])
            total = torch.zeros_like(x[part])
            for k, (fields, healed) in enumerate(look(x[part], rng.rows(part), max(counts))):
                for m in range(fields.shape[1]):  # one by one: sums then round alike in any batch
                    far = fields[:, m].flatten(1).mean(1)
                    z += (far - self.mean[k, m]) / self.deviation[k, m]
                    heat += fields[:, m] / self.deviation[k, m]
                total += healed
                for i in (i for i, count in enumerate(counts) if count == k + 1):
                    score[i, part], found[i, part] = z / (k + 1), heat / (k + 1)
                    normal[i, part] = total / (k + 1) if averaged else healed
        return Judged(score, found, normal)

    def enough(self, held_out: Sized) -> None:
        """Raises ValueError where there are too few held-out samples to calibrate on."""
        if len(held_out) < 2:
            raise ValueError(
                f"z-scores are taken from held-out samples; {len(held_out)} are too few"
            )

    @torch.no_grad()
    def calibrate(self, look: Look, held_out: Named, run: Run, most: int = 256) -> None:
        """Mean and deviation of every start and measure, from up to `most` held-out samples."""
        self.enough(held_out)
        samples = [held_out[i] for i in evenly(len(held_out), most)]
        x = torch.stack([s.x for s in samples]).to(run.device)
        rng = Rng([s.key for s in samples], run.seed, run.device).fork("calibrate")
        far = x.new_zeros(*self.mean.shape, len(x), dtype=torch.float64)
        for part in self._parts(x, len(self.levels), most=8):
            if run.stop():
                raise Interrupted(f"stopped calibrating at held-out sample {part[0]}")
            looks = look(x[part], rng.rows(part), len(self.levels))
            for k, (fields, _) in enumerate(looks):
                far[k, :, part] = fields.flatten(2).mean(2).T.double()
        self.mean.copy_(far.mean(2))
        self.deviation.copy_(far.std(2).clamp(min=1e-9))

    def _parts(self, x: Tensor, count: int, *, most: int | None = None) -> Iterator[Tensor]:
        """Which samples to restore together, so that `count` chains of each fit into memory."""
        at_once = max(1, VALUES // (count * x[0].numel()))
        yield from torch.arange(len(x)).split(min(at_once, most or at_once))
