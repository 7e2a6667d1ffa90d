"""Reconstruction from many levels: how much larger a sample's error is than on calibration samples.

Graham et al., "Denoising diffusion models for out-of-distribution detection", CVPR Workshops 2023,
arXiv 2211.07740: PLMS on one grid of levels, from every so many of them with noise of its own; each
start's error in standard deviations, and the mean over starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Denoiser
from ..diffusion.schedule import Schedule, sampling_levels
from ..noise.noise import Noise, gaussian
from ..runtime.context import Interrupted, TrainingContext
from ..runtime.rng import Rng
from ..runtime.transfer import to_device
from ..training.data_loading import evenly_spaced_indices
from .continuous_batching import run_chains
from .reconstruct import enumerate_chains, repeat_streams, reverse_process
from .samplers import SamplingConfig, build_sampler
from .solvers import SharedHistoryPlms
from .step_noise import StepNoise

MAX_VALUES = 2**26
"""At most about so many values are reconstructed at once; how many changes no result."""


class KeyedSample(Protocol):
    """What calibration reads of a sample; the Sample of the package datasets has more.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.multi_start import KeyedSample
    >>> sample: KeyedSample = SimpleNamespace(x=torch.zeros(1, 4), key="patient-07/slice-41")
    >>> alone, second = Rng([sample.key]), Rng(["patient-06/slice-40", sample.key])
    >>> torch.equal(alone.normal(sample.x.shape)[0], second.normal(sample.x.shape)[1])
    True
    """

    @property
    def x(self) -> Tensor: ...
    @property
    def key(self) -> str: ...


class KeyedSamples(Protocol):
    """Samples with keys, read one at a time, by index.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.sampling.multi_start import KeyedSamples, MultiStart
    >>> data: KeyedSamples = [
    ...     SimpleNamespace(x=torch.full((1, 2), value), key=f"{value}") for value in (1.0, 3.0)]
    >>> starts = MultiStart(sampling_steps=2, skip=1)
    >>> starts.calibrate(lambda x, rng, count: [(x, x)] * count, data, TrainingContext())
    >>> starts.mean, starts.deviation  # of the errors 1 and 3
    (tensor([[2.]]), tensor([[1.4142]]))
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> KeyedSample: ...


class MultiStartDetection(NamedTuple):
    """What `MultiStart.detect` returns.

    score: (L, N)
    map: (L, N, *S)
    reconstruction: (L, N, C, *S), from the highest start, or the mean of all

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.multi_start import MultiStart
    >>> starts = MultiStart(sampling_steps=2, skip=1)
    >>> starts.mean.fill_(1.0), starts.deviation.fill_(0.5)
    (tensor([[1.]]), tensor([[0.5000]]))
    >>> errors = lambda x, rng, count: [(x, x)] * count
    >>> detection = starts.detect(errors, torch.full((1, 1, 2), 3.0), [501], Rng(["a"]))
    >>> detection.score, detection.map  # (3 - 1) / 0.5, and 3 / 0.5
    (tensor([[4.]]), tensor([[[6., 6.]]]))
    """

    score: Tensor
    map: Tensor
    reconstruction: Tensor


ReconstructionErrors = Callable[[Tensor, Rng, int], Iterator[tuple[Tensor, Tensor]]]
"""(x (N, C, *S), rng, K) -> for each of the lowest K starts in turn: the error of the
reconstruction by each measure, (N, M, *S); and the reconstruction, (N, C, *S)."""


class MultiStart(nn.Module):
    """Reconstruction from a grid of start levels, calibrated to z-scores.

    A level below the lowest start stands for that start alone.

    sampling_steps: levels of the grid
    skip: every so many of them a chain starts, from the second lowest up; fewer than those
    measures: M, of the error
    sampler: of the denoiser's process; `lagged` and `shared_history` are of plms
    lagged: MONAI's PLMS
    shared_history: a chain takes over the history of the start below, and its first step is made
        once, as in ddpm-ood's code
    final_noise: chains end at level 1, not at a clean sample
    final_schedule: whose level 1 that is, the denoiser's if None
    min_level: no chain starts below it

    mean, deviation: (K, M), of each start's measures on normal calibration samples

    >>> from adbench.engine.sampling.multi_start import MultiStart
    >>> MultiStart(sampling_steps=10, skip=4).levels
    [101, 501, 901]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        sampling_steps: int = 100,
        skip: int = 4,
        *,
        measures: int = 1,
        sampler: Literal["plms", "euler", "heun"] = "plms",
        lagged: bool = False,
        shared_history: bool = False,
        final_noise: bool = False,
        final_schedule: Schedule | None = None,
        min_level: int = 0,
    ) -> None:
        super().__init__()
        if not 2 <= sampling_steps <= 1000 or skip < 1:
            raise ValueError(
                f"sampling_steps lie in 2..1000 and skip is at least 1: {sampling_steps}, {skip}"
            )
        if skip >= sampling_steps:
            raise ValueError(f"skip={skip} passes over all {sampling_steps} sampling_steps")
        self.stride = 1000 // sampling_steps
        grid = [1 + self.stride * k for k in range(1, sampling_steps, skip)]
        self.levels = [level for level in grid if level >= min_level]
        if not self.levels:
            raise ValueError(f"no start is at {min_level} or above; the highest is at {grid[-1]}")
        self.shared_history = shared_history
        if (lagged or shared_history) and sampler != "plms":
            raise ValueError(f"the sampler {sampler} has no history that could lag or be shared")
        self.sampling = SamplingConfig(sampler=sampler, stride=self.stride, lagged=lagged,
            final_schedule=final_schedule)  # fmt: skip
        self.final_levels = [1] if final_noise else [0]
        self.final_schedule = final_schedule  # here too, so that it moves to the device
        self.register_buffer("mean", torch.zeros(len(self.levels), measures))
        self.register_buffer("deviation", torch.ones(len(self.levels), measures))

    def reconstruct(
        self, denoiser: Denoiser, z: Tensor, rng: Rng, start_count: int, noise: Noise = gaussian
    ) -> Sequence[Tensor]:
        """Reconstruct z from each of the lowest `start_count` starts, (N, C, *S) each."""
        index, level = enumerate_chains(self.levels[:start_count], len(z), 1)
        streams = repeat_streams(rng, 1).rows(index)
        host_level, level = level, to_device(level, z.device)
        eps = noise(streams.fork("start"), z.shape[1:], level)
        noisy = denoiser.process.add_noise(z[to_device(index, z.device)], level, eps)
        paths = [
            sampling_levels(start, stride=self.stride)[:-1] + self.final_levels
            for start in host_level.tolist()
        ]
        if not self.shared_history:
            ends = reverse_process(denoiser, noisy, paths, streams, sampling=self.sampling)
            return ends.split(len(z))
        starts, start_paths = noisy.view(-1, *z.shape), paths[:: len(z)]
        plms = build_sampler(denoiser.process, self.sampling, StepNoise(streams, noise), eps)
        sampler = SharedHistoryPlms(plms, start_paths, starts, torch.empty_like(starts))
        run_chains(denoiser, sampler, starts[0], [start_paths[0]] * len(z))
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
        """Score x (N, C, *S) in standard deviations of the calibration samples.

        A level takes the mean over all starts up to it. The map is not centred, and so at least 0.

        average_reconstructions: the reconstruction is the mean over starts
        """
        counts = [max(1, sum(start <= level for start in self.levels)) for level in levels]
        score = x.new_zeros(len(levels), len(x))
        map = x.new_zeros(len(levels), len(x), *x.shape[2:])
        reconstruction = x.new_zeros(len(levels), *x.shape)
        for part in self._sample_chunks(x, max(counts)):
            host_part, part = part, to_device(part, x.device)
            z, heat = x.new_zeros(len(part)), x.new_zeros(len(part), *x.shape[2:])
            total = torch.zeros_like(x[part])
            starts = errors_per_start(x[part], rng.rows(host_part), max(counts))
            for k, outputs in enumerate(starts):
                errors, start_reconstruction = (value.to(x.dtype) for value in outputs)
                for m in range(errors.shape[1]):  # one by one: sums then round alike in any batch
                    error = errors[:, m].flatten(1).mean(1)
                    z += (error - self.mean[k, m]) / self.deviation[k, m]
                    heat += errors[:, m] / self.deviation[k, m]
                total += start_reconstruction
                for i in (i for i, count in enumerate(counts) if count == k + 1):
                    score[i, part], map[i, part] = z / (k + 1), heat / (k + 1)
                    reconstruction[i, part] = (
                        total / (k + 1) if average_reconstructions else start_reconstruction
                    )
        return MultiStartDetection(score, map, reconstruction)

    def check_calibration_size(self, calibration: Sized) -> None:
        """Raise ValueError where there are fewer than two calibration samples."""
        if len(calibration) < 2:
            raise ValueError(
                f"z-scores need at least 2 calibration samples; {len(calibration)} are too few"
            )

    @torch.no_grad()
    def calibrate(
        self,
        errors_per_start: ReconstructionErrors,
        calibration: KeyedSamples,
        context: TrainingContext,
        max_samples: int = 256,
    ) -> None:
        """Set mean and deviation of every start and measure from up to `max_samples` samples."""
        self.check_calibration_size(calibration)
        samples = [calibration[i] for i in evenly_spaced_indices(len(calibration), max_samples)]
        x = torch.stack([s.x for s in samples]).to(context.device)
        rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
        means = x.new_zeros(*self.mean.shape, len(x), dtype=torch.float64)
        for part in self._sample_chunks(x, len(self.levels), maximum=8):
            if context.stop():
                raise Interrupted(f"stopped calibrating at calibration sample {part[0]}")
            host_part, part = part, to_device(part, x.device)
            starts = errors_per_start(x[part], rng.rows(host_part), len(self.levels))
            for k, (errors, _) in enumerate(starts):
                means[k, :, part] = errors.flatten(2).mean(2).T.double()
        self.mean.copy_(means.mean(2))
        self.deviation.copy_(means.std(2).clamp(min=1e-9))

    def _sample_chunks(
        self, x: Tensor, count: int, *, maximum: int | None = None
    ) -> Iterator[Tensor]:
        """The samples to reconstruct together, so that `count` chains of each fit into memory."""
        size = max(1, MAX_VALUES // (count * x[0].numel()))
        yield from torch.arange(len(x)).split(min(size, maximum or size))
