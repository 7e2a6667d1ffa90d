"""AnoDDPM: add simplex noise to a sample up to a level, and reconstruct it with a diffusion model.

Wyatt et al., "AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using
Simplex Noise", CVPR Workshops 2022. https://github.com/Julian-Wyatt/AnoDDPM

As in the authors' code: noise of standard deviation 0.5 both ways; levels 1..800 are trained;
attention at 32, 16 and 8 pixels; EMA weights are evaluated. Differs: noise is drawn per sample
(theirs crashes on a batch; `shared_noise` is the patch of its issues: one field, and in training
one level, for all of a batch); heads as trained (`eval_heads=1` is theirs); the whole of a sample
is trained on, where theirs crops the middle 235 pixels. Their other experiments: Gaussian noise in
the reverse steps (`reverse_noise="gaussian"`) after simplex noise of one of several wavelengths
(`detect_frequency`), begun one level too high (`index_shift`); noise added level by level
(`gradual`). With `process="flow"` the same is done by rectified flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import build_unet, set_heads
from ..engine.networks.unet_config import AttentionSidesUNetConfig, split_into_heads
from ..engine.noise.noise import Noise, NoiseName
from ..engine.noise.noise_config import MixedNoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Fraction, Level, Positive
from ..engine.runtime.transfer import to_device
from ..engine.sampling.process_config import GAUSSIAN_PROCESS, ProcessConfig
from ..engine.sampling.reconstruct import (
    SamplingConfig,
    enumerate_chains,
    reconstruct,
    repeat_streams,
    reverse_process,
)
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = AttentionSidesUNetConfig(128, (1, 1, 2, 2, 4, 4), 2, attention=(32, 16, 8), heads=2)
NOISE = MixedNoiseConfig("simplex")
TRAINING = Training(steps=300_100, batch=1, lr=1e-4)
SCHEDULE = ScheduleConfig()


@dataclass(frozen=True)
class DetectionNoise:
    """The noise at inference, where it is another one than in training.

    detect_noise, detect_frequency: kind and wavelength of the noise that is added to a sample; None
    as in training.
    reverse_noise: kind of the noise that reverse steps add; None as what was added to the sample.
    gradual: noise is added level by level.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import AttentionSidesUNetConfig
    >>> from adbench.methods.anoddpm import AnoDDPM, DetectionNoise
    >>> network = AttentionSidesUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> noise = DetectionNoise(detect_frequency=16.0)
    >>> method = AnoDDPM(Spec(1, (16, 16)), size=None, network=network, detection_noise=noise)
    >>> method.noise.frequency, method.detection_noise.frequency
    (64.0, 16.0)
    """

    detect_noise: NoiseName | Literal["random"] | None = None
    detect_frequency: Positive | None = None
    reverse_noise: NoiseName | Literal["random"] | None = None
    gradual: bool = False


@dataclass(frozen=True)
class AnoDDPMQuirks:
    """What the authors' code does and this method does not by default.

    shared_noise: one field, and in training one level, for all samples of a batch.
    eval_heads: attention heads at inference; None for as many as were trained, theirs has 1.
    index_shift: a sample is brought one level higher than the level where the chain begins.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import AttentionSidesUNetConfig
    >>> from adbench.methods.anoddpm import AnoDDPM, AnoDDPMQuirks
    >>> network = AttentionSidesUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> quirks = AnoDDPMQuirks(shared_noise=True)
    >>> AnoDDPM(Spec(1, (16, 16)), size=None, network=network, quirks=quirks).noise.shared
    True
    """

    shared_noise: bool = False
    eval_heads: Count | None = None
    index_shift: bool = False


SAME_NOISE = DetectionNoise()
CORRECTED = AnoDDPMQuirks()


class AnoDDPM(Method):
    """AnoDDPM: the squared error of a reconstruction from partial noise.

    attention: sides, in pixels, at which the UNet attends.
    max_level: the highest level that is trained, on the 1000-step scale.
    noise: kind of noise, or "random": simplex or Gaussian by the toss of a coin, for every sample
        and call.
    sampling_steps, eta, variance: of the reverse process.
    repeats: number of chains that are averaged.
    average: whether their reconstructions are averaged, or the maps.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import AttentionSidesUNetConfig
    >>> from adbench.methods.anoddpm import AnoDDPM
    >>> network = AttentionSidesUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> AnoDDPM(Spec(1, (16, 16)), size=None, network=network).canvas.range
    (-1.0, 1.0)
    """

    levels, published = (50, 100, 150, 200, 250, 300, 400, 500, 600), 250
    inference = frozenset(
        ["sampling_steps", "eta", "variance", "repeats", "average", "eval_heads", "detect_noise",
         "detect_frequency", "reverse_noise", "gradual", "index_shift", "solver"]
    )  # fmt: skip

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        frequency=Interval(8.0, 128.0, log=True),
        persistence=Interval(0.4, 1.0),
        noise=Choice("simplex", "gaussian"),
        eta=Interval(0.0, 1.0),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, network: AttentionSidesUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, max_level: Level = 800,
        noise: MixedNoiseConfig = NOISE, training: Training = TRAINING, augment: bool = True,
        sampling_steps: Count | None = None,
        eta: Fraction = 1.0, variance: Literal["small", "large"] = "large", repeats: Count = 1,
        average: Literal["reconstruction", "map"] = "reconstruction",
        detection_noise: DetectionNoise = SAME_NOISE, process: ProcessConfig = GAUSSIAN_PROCESS,
        quirks: AnoDDPMQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if process.is_flow and (detection_noise.gradual or quirks.index_shift):
            raise ValueError("gradual and index_shift are of Gaussian diffusion, not process=flow")
        widths, ndim = network.widths, len(spec.shape)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)

        def noise_of(name: str, frequency: float) -> Noise:
            if name == "random":
                simplex, gaussian = noise_of("simplex", frequency), noise_of("gaussian", frequency)
                return RandomChoiceNoise(simplex, gaussian, quirks.shared_noise)
            return noise.build(name, frequency=frequency, shared=quirks.shared_noise)

        name = detection_noise.detect_noise or noise.noise
        frequency = detection_noise.detect_frequency or noise.frequency
        self.noise = noise_of(noise.noise, noise.frequency)
        self.detection_noise = noise_of(name, frequency)
        self.reverse_noise = noise_of(detection_noise.reverse_noise or name, frequency)
        attend = network.attention_levels(self.canvas.padded_shape)
        self.ineffective_arguments |= network.attention_conflicts(self.canvas.padded_shape)
        split_into_heads(widths, quirks.eval_heads or network.heads, attend)  # or raise
        net = build_unet(ndim, spec.channels, widths, res_blocks=network.res_blocks, updown=True,
            attention=attend, head_channels=split_into_heads(widths, network.heads, attend),
            eps=1e-5, zero_attention=True, fold=network.fold,
            groups=network.groups)  # fmt: skip
        self.ineffective_arguments |= process.ineffective(
            "beta", "eta", "variance", "reverse_noise"
        )
        self.denoiser = process.build_denoiser(net, schedule.build(), clip=self.canvas.range,
            trained_on=f"{self.noise} on {self.canvas}")  # fmt: skip
        self.plan = training
        self.chain = process.sampling(SamplingConfig(sampling_steps, eta, variance, repeats))
        self.max_level = max_level
        self.augment, self.average, self.quirks = augment, average, quirks
        self.gradual = detection_noise.gradual

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = random_affine(x, rng, degrees=3, translate=(0.02, 0.09)) if self.augment else x
            inner, most = self.canvas.forward(x), self.max_level
            drawn = rng.shared() if self.quirks.shared_noise else rng
            return self.denoiser.loss(inner, drawn, noise=self.noise, max_level=most)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        if self.quirks.eval_heads:
            set_heads(self.denoiser.net_in_use(), self.quirks.eval_heads)
        inner = self.canvas.forward(x)
        normal = self.canvas.inverse(self._reconstruct(inner, levels, rng))  # (L, N, R, C, *S)
        compared = normal.mean(2, keepdim=True) if self.average == "reconstruction" else normal
        return Detection.from_map((compared - x[:, None]).square().mean((2, 3)), normal.mean(2))

    def _reconstruct(self, inner: Tensor, levels: Sequence[int], rng: Rng) -> Tensor:
        """Reconstructions from each level, (L, N, R, C, *outer)."""
        if not (self.gradual or self.quirks.index_shift):
            return reconstruct(
                self.denoiser, inner, levels, rng, sampling=self.chain, noise=self.detection_noise,
                reverse_noise=self.reverse_noise,
            )  # fmt: skip
        times, count = self.denoiser.schedule, self.chain.repeats
        index, level = enumerate_chains([times.to_level(at) for at in levels], len(inner), count)
        streams, sample = repeat_streams(rng, count), index % len(inner)
        there = torch.where(level > 0, (level + self.quirks.index_shift).clamp(max=times.T), 0)
        back = reverse_process(
            self.denoiser,
            self._add_noise(inner, index, there, streams),
            [sampling_levels(at, self.chain.steps) for at in level.tolist()],
            streams.rows(index).fork("step"),
            sampling=self.chain,
            noise=self.reverse_noise,
            samples=sample.tolist(),
        )
        return back.view(len(levels), len(inner), count, *inner.shape[1:])

    def _add_noise(self, inner: Tensor, index: Tensor, row_levels: Tensor, streams: Rng) -> Tensor:
        """Samples with noise up to their levels, one row for each of `index` among the streams."""
        process, shape = self.denoiser.process_as(Gaussian), inner.shape[1:]
        index_there, at = to_device(torch.stack([index, row_levels]), inner.device)
        sample = index_there % len(inner)
        if not self.gradual:
            drawn = self.detection_noise(streams.rows(index).fork("start"), shape, at.clamp(min=1))
            return process.add_noise(inner[sample], at, drawn)
        out = inner[sample]
        x, rises = inner.repeat(len(streams) // len(inner), *[1] * len(shape)), streams.fork("rise")
        for level in range(1, int(row_levels.max()) + 1):
            here = torch.full((len(x),), level, device=x.device)
            drawn = self.detection_noise(rises.at(level), shape, here)
            x = process.add_noise_step(x, here - 1, here, drawn)
            out = torch.where((at == level).view(-1, *[1] * len(shape)), x[index_there], out)
        return out


@dataclass(frozen=True)
class RandomChoiceNoise:
    """One noise or the other by the toss of a coin, for every sample and call.

    one, other: the noises, each drawn with probability 1/2.
    shared: one toss for all samples of a batch.

    >>> import torch
    >>> from adbench.engine.noise.noise import Gaussian, Simplex
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.anoddpm import RandomChoiceNoise
    >>> noise = RandomChoiceNoise(Simplex(), Gaussian(), shared=False)
    >>> noise(Rng(["a", "b"]), (1, 8, 8), torch.tensor([250, 250])).shape
    torch.Size([2, 1, 8, 8])
    """

    one: Noise
    other: Noise
    shared: bool

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        coin = (rng.shared() if self.shared else rng).fork("coin").uniform((1,) * len(shape))
        one, other = (noise(rng.fork("noise"), shape, level) for noise in (self.one, self.other))
        return torch.where(coin < 0.5, one, other)
