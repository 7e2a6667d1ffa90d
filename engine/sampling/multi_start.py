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
from ..diffusion.schedule import sampling_levels
from ..noise.noise import Noise, gaussian
from ..runtime.context import Interrupted, TrainingContext
from ..runtime.rng import Rng
from ..training.data_loading import evenly_spaced_indices
from .continuous_batching import run_chains
from .reconstruct import SamplingConfig, enumerate_chains, repeat_streams, reverse_process
from .solvers import Plms, SharedHistoryPlms

MAX_VALUES = 2**26
"""At most about so many values are restored at once; how many changes no result."""


class KeyedSample(Protocol):
    """What calibrating reads of a sample; the dataset room's Sample has more."""

    @property
    def x(self) -> Tensor: ...
    @property
    def key(self) -> str: ...


class KeyedSamples(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> KeyedSample: ...


class MultiStartDetection(NamedTuple):
    """score (L, N), map (L, N, *S), and what a sample was restored to, (L, N, C, *S): by the
    highest start, or in the mean of all."""

    score: Tensor
    map: Tensor
    reconstruction: Tensor


ReconstructionErrors = Callable[[Tensor, Rng, int], Iterator[tuple[Tensor, Tensor]]]
"""(x (N, C, *S), rng, K) -> of each of the lowest K starts in turn: how far a sample is from what
it is restored to, by each measure, (N, M, *S); and that, (N, C, *S)."""


class MultiStart(nn.Module):
    """sampling_steps: levels of the grid. skip: every so many of them a chain starts, from the
    second lowest up, none below min_level. lagged: MONAI's PLMS. shared_history: a chain takes
    over the
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
        shared_history: bool = False,
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
        self.shared_history = shared_history
        self.sampling = SamplingConfig(sampler="plms", stride=self.stride, lagged=lagged)
        self.final_levels = [1] if final_noise else [0]
        self.register_buffer("mean", torch.zeros(len(self.levels), measures))
        self.register_buffer("deviation", torch.ones(len(self.levels), measures))

    def reconstruct(
        self, denoiser: Denoiser, z: Tensor, rng: Rng, start_count: int, noise: Noise = gaussian
    ) -> Sequence[Tensor]:
        """z (N, C, *S) brought back from each of the lowest `start_count` starts, (N, C, *S)
        each."""
        index, level = enumerate_chains(self.levels[:start_count], len(z), 1)
        streams, level = repeat_streams(rng, 1).rows(index), level.to(z.device)
        drawn = noise(streams.fork("start"), z.shape[1:], level)
        noised = denoiser.process.add_noise(z[index.to(z.device)], level, drawn)
        ladders = [
            sampling_levels(at, stride=self.stride)[:-1] + self.final_levels
            for at in level.tolist()
        ]
        if not self.shared_history:
            return reverse_process(
                denoiser, noised, ladders, streams, sampling=self.sampling
            ).split(len(z))
        begun = noised.view(-1, *z.shape)
        ways, process = ladders[:: len(z)], denoiser.process
        assert isinstance(process, Gaussian)
        sampler = SharedHistoryPlms(
            Plms(process, self.sampling.lagged), ways, begun, torch.empty_like(begun)
        )
        run_chains(denoiser, sampler, begun[0], [ways[0]] * len(z))
        return sampler.reconstructions.unbind()

    def detect(
        self,
        errors_per_start: ReconstructionErrors,
        x: Tensor,
        levels: Sequence[int],
        rng: Rng,
        *,
        average_reconstructions: bool = False,
    ) -> MultiStartDetection:
        """In held-out deviations; a level takes the mean over all starts up to it. The map is not
        centred, and so at least 0. average_reconstructions: `normal` is the mean of what the
        starts made of it.
        """
        counts = [max(1, sum(start <= level for start in self.levels)) for level in levels]
        score = x.new_zeros(len(levels), len(x))
        found = x.new_zeros(len(levels), len(x), *x.shape[2:])
        normal = x.new_zeros(len(levels), *x.shape)
        for part in self._sample_chunks(x, max(counts)):
            z, heat = x.new_zeros(len(part)), x.new_zeros(len(part), *x.shape[2:])
            total = torch.zeros_like(x[part])
            for k, (fields, healed) in enumerate(
                errors_per_start(x[part], rng.rows(part), max(counts))
            ):
                for m in range(fields.shape[1]):  # one by one: sums then round alike in any batch
                    far = fields[:, m].flatten(1).mean(1)
                    z += (far - self.mean[k, m]) / self.deviation[k, m]
                    heat += fields[:, m] / self.deviation[k, m]
                total += healed
                for i in (i for i, count in enumerate(counts) if count == k + 1):
                    score[i, part], found[i, part] = z / (k + 1), heat / (k + 1)
                    normal[i, part] = total / (k + 1) if average_reconstructions else healed
        return MultiStartDetection(score, found, normal)

    def check_calibration_size(self, calibration: Sized) -> None:
        """Raises ValueError where there are too few held-out samples to calibrate on."""
        if len(calibration) < 2:
            raise ValueError(
                f"z-scores are taken from held-out samples; {len(calibration)} are too few"
            )

    @torch.no_grad()
    def calibrate(
        self,
        errors_per_start: ReconstructionErrors,
        calibration: KeyedSamples,
        context: TrainingContext,
        max_samples: int = 256,
    ) -> None:
        """Mean and deviation of every start and measure, from up to `max_samples` held-out
        samples."""
        self.check_calibration_size(calibration)
        samples = [calibration[i] for i in evenly_spaced_indices(len(calibration), max_samples)]
        x = torch.stack([s.x for s in samples]).to(context.device)
        rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
        far = x.new_zeros(*self.mean.shape, len(x), dtype=torch.float64)
        for part in self._sample_chunks(x, len(self.levels), maximum=8):
            if context.stop():
                raise Interrupted(f"stopped calibrating at held-out sample {part[0]}")
            looks = errors_per_start(x[part], rng.rows(part), len(self.levels))
            for k, (fields, _) in enumerate(looks):
                far[k, :, part] = fields.flatten(2).mean(2).T.double()
        self.mean.copy_(far.mean(2))
        self.deviation.copy_(far.std(2).clamp(min=1e-9))

    def _sample_chunks(
        self, x: Tensor, count: int, *, maximum: int | None = None
    ) -> Iterator[Tensor]:
        """Which samples to restore together, so that `count` chains of each fit into memory."""
        at_once = max(1, MAX_VALUES // (count * x[0].numel()))
        yield from torch.arange(len(x)).split(min(at_once, maximum or at_once))
