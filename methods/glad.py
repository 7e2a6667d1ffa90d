"""GLAD: a sample's code is denoised from a level of its own, and kept where it looks normal.

Yao, Liu, Wang, Yin, Yan, Hong and Zuo, "GLAD: Towards Better Reconstruction with Global and Local
Adaptive Diffusion Models for Unsupervised Anomaly Detection", ECCV 2024.
https://arxiv.org/abs/2406.07487 https://github.com/hyao1/GLAD

As in the authors' code. Training: codes of samples with a synthetic anomaly are mixed in, in
proportion to the level, and the noise to be predicted leads back to the code without it, so that it
need not be normal where the anomaly is. Inference: DDIM by 25 steps without noise. At every step
the image of the chain's estimate is compared with that of an estimate from the sample's own code,
with the noise that the chain began with and the same predicted noise. Where the largest distances
of features exceed a threshold, the sample's own estimate takes the place of the chain's, once, but
for the positions that differ; a sample that never exceeds it goes on from its own estimate at 0.7
of the level. The map is the distance of features between the sample and its reconstruction,
blurred; the score is the mean of its highest values.

Differs: autoencoder and UNet are trained here, theirs is Stable Diffusion 1.4, fine-tuned by 4000
steps at 512 pixels, whose UNet takes a text (its autoencoder can be imported); features of
EfficientNet-lite0, whose weights a package ships, are compared position by position, theirs of
DINO with the nearest position; anomalies are patches of other training samples, theirs of textures
(DTD); the threshold is what a share of calibration samples exceeds, theirs is set for every
category. The noise level is the highest that a sample is denoised from; theirs is 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.codec import Codec
from ..engine.codecs.kl_config import KLConfig
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.gaussian import Gaussian, alpha_bar_at
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.adapted import AdaptedFeatures
from ..engine.features.pretrained import FeaturesName
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.noise.noise import gaussian
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Fraction, NonNegative, PositiveFraction, Range
from ..engine.runtime.transfer import to_device
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.sampling.reconstruct import enumerate_chains
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.blur import gaussian_blur
from ..engine.transforms.patch_interpolation import PatchInterpolation
from ..engine.transforms.resizing import ResizePad, resize
from .base import Detection, Method


@dataclass(frozen=True)
class SyntheticAnomalies:
    """The anomalies of training.

    chance: probability of one.
    radius: its smallest and largest radius in terms of the side.
    bank: number of training samples that patches come from.

    >>> from adbench.methods.glad import SyntheticAnomalies
    >>> SyntheticAnomalies().chance
    0.5
    """

    chance: PositiveFraction = 0.5
    radius: Range[PositiveFraction] = (0.05, 0.25)
    bank: Count = 512


@dataclass(frozen=True)
class AdaptiveSteps:
    """Where the sample's own estimate takes the place of the chain's.

    lowest: of a chain's first level, where it does so at the latest.
    exceeding: share of the calibration samples whose estimates differ by more than the threshold.
    peak: share of the positions of a code whose mean distance is compared with the threshold.
    calibration: number of calibration samples at most.

    >>> from adbench.methods.glad import AdaptiveSteps
    >>> AdaptiveSteps().lowest
    0.7
    """

    lowest: Fraction = 0.7
    exceeding: Fraction = 0.05
    peak: PositiveFraction = 0.0025
    calibration: Count = 64


CODEC = KLConfig()
NETWORK = HeadsUNetConfig(256, (1, 2, 4), 2, attention=(True, True, True), heads=8)
SCHEDULE = ScheduleConfig(beta="scaled_linear")
ANOMALIES = SyntheticAnomalies()
ADAPTIVE = AdaptiveSteps()
TRAINING = Training(steps=100_000, batch=32, lr=1e-4, weight_decay=1e-2, ema=None)


class GLAD(Method):
    """GLAD: distance of features from a reconstruction whose steps are the sample's own.

    features: the frozen network.
    sampling_steps: of DDIM.
    blur: standard deviation of the map's blur, in pixels.
    top: share of the pixels whose mean is the score.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.codecs.kl_config import KLConfig
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.glad import GLAD
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, True), heads=1)
    >>> codec = KLConfig(coder_widths=(4, 8), latent_channels=2)
    >>> method = GLAD(Spec(1, (16, 16)), size=None, codec=codec, network=network,
    ...     features="effperc-random")
    >>> method.threshold.item()
    inf
    """

    levels, published = (300, 400, 500, 600, 700), 500
    ndims = frozenset({2})
    inference = frozenset({"blur", "top"})
    threshold: Tensor  # (), of the distance at which a sample's own estimate is taken over

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, codec: KLConfig = CODEC, network: HeadsUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, features: FeaturesName = "effperc",
        anomalies: SyntheticAnomalies = ANOMALIES, training: Training = TRAINING,
        sampling_steps: Count = 25, adaptive: AdaptiveSteps = ADAPTIVE, blur: NonNegative = 3.0,
        top: PositiveFraction = 0.001,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        divisor = side_divisor(codec.coder_widths) * network.side_divisor
        self.canvas = ResizePad(spec.shape, size, divisor)
        self.codec = codec.build(spec.channels, self.canvas)
        self.features = AdaptedFeatures(features)
        self.features.trunk.perceptual.check_sides(self.canvas.padded_shape)
        self.denoiser = Denoiser(network.build(2, self.codec.latent[0]), schedule.build(),
            trained_on=f"codes of {self.canvas}, {self.features.weights_id}")  # fmt: skip
        self.plan, self.codec_plan = training, codec.plan(training)
        self.anomalies, self.sampling_steps, self.adaptive = anomalies, sampling_steps, adaptive
        self.blur, self.top = blur, top
        self.register_buffer("threshold", torch.tensor(float("inf")))

    @property
    def process(self) -> Gaussian:
        return self.denoiser.process_as(Gaussian)

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if not len(calibration):
            raise ValueError("GLAD takes its threshold from calibration samples; there are none")
        config = self.anomalies
        CodecTraining(self.codec, self.codec_plan, self.canvas).train(train, context)
        chosen = [train[i].x for i in evenly_spaced_indices(len(train), config.bank)]
        bank = torch.stack(chosen).to(context.device)
        foreign = PatchInterpolation(bank, probability=config.chance, size=config.radius)

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            drawn = foreign(rng.fork("anomaly"), x.shape[1:], torch.zeros(len(x)))
            other, shape = drawn.split([x.shape[1], 1], 1)
            z = self.codec.encode(self.canvas.forward(x))
            abnormal = torch.where(shape > 0.5, other, x)
            return self.loss(z, self.codec.encode(self.canvas.forward(abnormal)), rng)

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")
        context.place(self)
        retry_out_of_memory(
            lambda: self._calibrate(calibration, context), self, context, "calibrating",
            context.on_event,
        )  # fmt: skip

    def loss(self, z: Tensor, abnormal: Tensor, rng: Rng) -> Tensor:
        """The error of the noise that leads back to the normal code, (N,).

        z, abnormal: (N, C, *S'), codes without and with an anomaly
        rng: one stream per sample
        """

        def noise(streams: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
            alpha_bar = alpha_bar_at(self.denoiser.schedule, level, z)
            share = level.view(alpha_bar.shape) / self.denoiser.schedule.T
            weight = share * (alpha_bar / (1 - alpha_bar)).sqrt()
            return streams.normal(shape) + weight.to(z.dtype) * (abnormal - z)

        return self.denoiser.loss(z, rng, noise=noise)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        sampler = self._reconstruct(self.codec.encode(inner), levels, rng, self.threshold)
        images = self.codec.decode(sampler.ends)
        like = inner.repeat(len(levels), 1, 1, 1)
        heat = self.features.distance(unit_range(like), unit_range(images), smooth=1)
        heat = gaussian_blur(heat, self.blur, mode="symmetric")
        lead = (len(levels), len(x))
        heat = heat.view(*lead, 1, *self.canvas.padded_shape)
        heat = replace(self.canvas, low=0.0, high=1.0).inverse(heat)[:, :, 0].clamp(min=0)
        count = max(1, round(self.top * heat[0, 0].numel()))
        highest = heat.flatten(2).sort(2, descending=True).values[..., :count].mean(2)
        normal = self.canvas.inverse(images.view(*lead, *images.shape[1:]))
        return Detection(highest, heat, normal.clamp(0, 1))

    def _reconstruct(
        self, z: Tensor, levels: Sequence[int], rng: Rng, threshold: Tensor
    ) -> AdaptiveStep:
        """The sampler after it has taken codes down from each level, (L * N)."""
        to = self.denoiser.schedule.to_level
        index, level = enumerate_chains([to(at) for at in levels], len(z), 1)
        paths = [sampling_levels(at, self.sampling_steps) for at in level.tolist()]
        noise = gaussian(rng.rows(index).fork("start"), z.shape[1:], level)
        index, level = to_device(torch.stack([index, level]), z.device)
        own = z[index]
        sampler = AdaptiveStep(
            self.process, self.codec, self.features, own, noise, threshold, self.adaptive
        )
        noisy = self.process.add_noise(own, level, noise)
        sampler.ends = run_chains(self.denoiser, sampler, noisy, paths)
        return sampler

    @torch.no_grad()
    def _calibrate(self, calibration: Split, context: TrainingContext) -> None:
        """Set the threshold to what a share of the calibration samples exceeds, at the published
        level, on a way down that never takes over their own estimate."""
        chosen = evenly_spaced_indices(len(calibration), self.adaptive.calibration)
        never, highest = torch.full_like(self.threshold, float("inf")), []
        for start in range(0, len(chosen), 8):
            if context.stop():
                raise Interrupted(f"stopped calibrating at calibration sample {start}")
            samples = [calibration[i] for i in chosen[start : start + 8]]
            x = self.canvas.forward(torch.stack([s.x for s in samples]).to(context.device))
            rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
            sampler = self._reconstruct(self.codec.encode(x), [self.published], rng, never)
            highest.append(sampler.highest)
        values = torch.cat(highest).double()
        self.threshold.copy_(values.quantile(1 - self.adaptive.exceeding))


class AdaptiveStep:
    """DDIM's step, in which the estimate from the sample's own code replaces the chain's once.

    process: of the denoiser.
    codec, features: to compare the images of two codes by.
    own: (M, C, *S'), the code of each chain's sample.
    noise: (M, C, *S'), that each chain began with.
    threshold: (), of the distance.
    config: when it is compared.

    highest: (M,), the largest distance so far.
    ends: (M, C, *S'), where the chains end, once they have.

    >>> import torch
    >>> from adbench.engine.codecs.codec import Identity
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.features.adapted import AdaptedFeatures
    >>> from adbench.methods.glad import ADAPTIVE, AdaptiveStep
    >>> x, process = torch.zeros(1, 1, 16, 16), Gaussian(linear_schedule())
    >>> parts = (process, Identity((1, 16, 16)), AdaptedFeatures("effperc-random"))
    >>> sampler = AdaptiveStep(*parts, x, x, torch.tensor(0.1), ADAPTIVE)
    >>> [step.tag for step in sampler.plan_steps([500, 400, 300, 200, 0])]
    [1, 1, 2, 0]
    """

    memory = 0

    def __init__(
        self, process: Gaussian, codec: Codec, features: AdaptedFeatures, own: Tensor,
        noise: Tensor, threshold: Tensor, config: AdaptiveSteps,
    ) -> None:  # fmt: skip
        self.process, self.codec, self.features = process, codec, features
        self.own, self.noise, self.threshold, self.config = own, noise, threshold, config
        self.replaced = torch.zeros(len(own), 1, 1, 1, dtype=torch.bool, device=own.device)
        self.highest, self.ends = own.new_zeros(len(own)), own

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: 1 where the estimates are compared, 2 where the sample's own is taken at last."""
        lowest, steps = self.config.lowest * levels[0], one_step_per_level(levels)
        tags = [1 if step.start_level >= lowest else 0 for step in steps]
        if 0 in tags:
            tags[tags.index(0)] = 2
        return [step._replace(tag=tag) for step, tag in zip(steps, tags, strict=True)]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        clean, eps = estimate.clean.clone(), estimate.noise
        index = to_device(batch.tag.nonzero().flatten(), x.device)
        if len(index):
            clean[index] = self._compared(clean, eps, batch, index)
        return self.process.combine(clean, eps, batch.end_level)

    def _compared(self, clean: Tensor, eps: Tensor, batch: ChainBatch, index: Tensor) -> Tensor:
        """The estimates of the rows of the index, or what takes their place."""
        chain, level = batch.device_chain[index], batch.start_level[index]
        chains, own, noise = clean[index], self.own[chain], self.noise[chain]
        own = self.process.x0_from_noise(
            self.process.add_noise(own, level, noise), eps[index], level
        )
        images = (unit_range(self.codec.decode(z)) for z in (own, chains))
        distance = self.features.distance(*images, smooth=1)[:, None]
        distance = resize(distance, chains.shape[2:])  # (B, 1, *S')
        values = distance.flatten(1)
        count = max(1, round(self.config.peak * values.shape[1]))
        peak = values.sort(1, descending=True).values[:, :count].mean(1)
        self.highest[chain] = self.highest[chain].maximum(peak)
        exceeds = (peak > self.threshold).view(-1, 1, 1, 1)
        last = (batch.device_tag[index] == 2).view(-1, 1, 1, 1)
        before = self.replaced[chain]
        self.replaced[chain] = before | exceeds | last
        abnormal = distance.double().sigmoid().to(chains.dtype)
        mixed = torch.where(exceeds, abnormal * chains + (1 - abnormal) * own, own)
        return torch.where(~before & (exceeds | last), mixed, chains)


def unit_range(x: Tensor) -> Tensor:
    """Bring images from [-1, 1] to [0, 1], what is beyond cut off.

    x: of any shape

    >>> import torch
    >>> from adbench.methods.glad import unit_range
    >>> unit_range(torch.tensor([-2.0, 0.0, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return ((x + 1) / 2).clamp(0, 1)
