"""DDAD: reconstruct a sample with guidance towards itself; compare pixels and adapted features.

Mousakhan, Brox and Tayyub, "Anomaly Detection with Conditioned Denoising Diffusion Models", 2023.
https://arxiv.org/abs/2305.15956 https://github.com/arimousa/DDAD

As in the authors' code: the summed squared error with half of 0.05 times the squared weights (Adam
with weight decay); ten reverse steps from index 225, each guided towards the sample with weight w;
features adapted on pairs of different normal samples; feature distance plus v times pixel distance
at a common scale, blurred; the score is the map's maximum. Differs, and named where an argument
brings theirs back: the scale is the mean of the maxima of calibration samples (`norm="batch"`: of
the batch at hand); noise is added up to the level that the network is called with first
(`start_offset`: one step higher); nothing is cropped. The features are EfficientNet-lite0's, whose
weights a package ships, not WideResNet-101's; while they adapt, its norms keep the statistics that
they came with (`student_batch_statistics`: they take the batch's, so that a sample's loss depends
on the other samples of its batch and on how many fit into memory). The paper's w and lengths of
training were chosen for every category on its test set; here one setting serves all.
DDAD-S is `width=32, heads=2, dropout=0.3, batch=16`. With `process="flow"` the same is done by
rectified flow, whose steps add no noise.

`conditioning="linear_mix"` and `combine="thresholds"` are those of the re-implementation
Diffusion-Based-AD: the sample itself is mixed in, the estimate clipped and its noise not; each map
is divided by its threshold, by default what 0.1 % of calibration pixels exceed, and 1 is the
threshold of `contributions`' weighted sum. Its network is `width=128, mults=(1, 1, 2, 3, 4),
attention=(16,), head_channels=8, updown=False` at 128 pixels and with `mults=(1, 1, 2, 2, 4, 4)` at
256, its optimiser `lr=1e-4, momentum=0.95, weight_decay=1e-6, decoupled=True, warmup=500,
decay="cosine"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.adapted import AdaptedFeatures
from ..engine.features.pretrained import FeaturesName
from ..engine.networks.diffusion_unet import build_unet
from ..engine.networks.per_sample_dropout import PerSampleDropout
from ..engine.networks.unet_config import AttentionSidesUNetConfig, split_into_heads
from ..engine.noise.noise import Noise
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import (
    Count,
    Decay,
    Fraction,
    Natural,
    NonNegative,
    Odd,
    Pair,
    Positive,
)
from ..engine.runtime.transfer import to_device
from ..engine.sampling.continuous_batching import run_chains
from ..engine.sampling.guidance import image_conditioned_guidance
from ..engine.sampling.process_config import GAUSSIAN_PROCESS, ProcessConfig
from ..engine.sampling.reconstruct import (
    SamplingConfig,
    enumerate_chains,
    repeat_streams,
    reverse_process,
)
from ..engine.sampling.step_noise import StepNoise
from ..engine.sampling.target_mixing import TargetMixing
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.training.weight_penalty import squared_norm
from ..engine.transforms.blur import gaussian_blur
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


class DistanceMaps(NamedTuple):
    """Pixel and feature distance of M rows, (M, H, W), and their reconstruction (M, C, H, W).

    >>> import torch
    >>> from adbench.engine.features.adapted import AdaptedFeatures
    >>> from adbench.methods.ddad import DistanceMaps
    >>> x, y = torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    >>> feature = AdaptedFeatures("effperc-random").distance(x, y)
    >>> maps = DistanceMaps((x - y).abs().mean(1), feature, y)
    >>> maps.pixel.shape, maps.feature.shape
    (torch.Size([2, 16, 16]), torch.Size([2, 16, 16]))
    """

    pixel: Tensor
    feature: Tensor
    reconstruction: Tensor


@dataclass(frozen=True)
class ChannelSharedNoise:
    """Noise of one field for all channels, which are slices of a volume of noise.

    noise: of volumes.

    >>> import torch
    >>> from adbench.engine.noise.noise import Simplex
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.ddad import ChannelSharedNoise
    >>> ChannelSharedNoise(Simplex())(Rng(["a"]), (3, 8, 8), torch.tensor([250])).shape
    torch.Size([1, 3, 8, 8])
    """

    noise: Noise

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        return self.noise(rng, (1, *shape), level)[:, 0]


@dataclass(frozen=True)
class DDADUNetConfig(AttentionSidesUNetConfig):
    """DDAD's UNet.

    head_channels: of each attention head, at every width, in place of `heads`.
    updown: whether residual blocks resample.
    dropout: probability.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, Adaptation, DDADUNetConfig
    >>> network = DDADUNetConfig(8, (1, 2), 1, attention=(8,), heads=1, dropout=0.3)
    >>> adaptation = Adaptation(features="effperc-random")
    >>> DDAD(Spec(1, (16, 16)), size=None, network=network, adaptation=adaptation).dropout.rate
    0.3
    """

    head_channels: Count | None = None
    updown: bool = True
    dropout: Decay = 0.0


@dataclass(frozen=True)
class DDADNoiseConfig(NoiseConfig):
    """z: where images lie in simplex noise; "channel" is one field for all channels, each so many
    pixels deep in it.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, Adaptation, DDADNoiseConfig, DDADUNetConfig
    >>> network = DDADUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> adaptation = Adaptation(features="effperc-random")
    >>> method = DDAD(Spec(1, (16, 16)), size=None, network=network, adaptation=adaptation,
    ...     noise=DDADNoiseConfig("simplex", z="channel"))
    >>> type(method.noise).__name__
    'ChannelSharedNoise'
    """

    z: Literal["t", "zero", "random", "channel"] = "t"


@dataclass(frozen=True)
class DDADTraining(Training):
    """decoupled: weight decay is AdamW's; otherwise half the squared weights times it are part of
    the loss, as in the authors' code.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, Adaptation, DDADTraining, DDADUNetConfig
    >>> network = DDADUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> adaptation = Adaptation(features="effperc-random")
    >>> training = DDADTraining(steps=10, batch=1, lr=1e-4, weight_decay=0.05)
    >>> method = DDAD(Spec(1, (16, 16)), size=None, network=network, adaptation=adaptation,
    ...     training=training)
    >>> method.plan.weight_decay, method.penalty  # of AdamW, and of the loss
    (0.0, 0.05)
    """

    decoupled: bool = False


@dataclass(frozen=True)
class Adaptation:
    """The adaptation of features to reconstructions of normal samples.

    features: the frozen network.
    adapt_steps, adapt_batch, adapt_lr: of this training; no step leaves the features as they are.
    distillation_weight: of the distance from the frozen features.
    w_adapt: weight of the guidance towards the target.
    bank: number of training samples that are targets.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, Adaptation, DDADUNetConfig
    >>> network = DDADUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> adaptation = Adaptation(features="effperc-random", adapt_steps=16)
    >>> method = DDAD(Spec(1, (16, 16)), size=None, network=network, adaptation=adaptation)
    >>> [plan.steps for plan in method.training_plans()]
    [15000, 16]
    """

    features: FeaturesName = "effperc"
    adapt_steps: Natural = 64
    adapt_batch: Count = 8
    adapt_lr: Positive = 1e-4
    distillation_weight: NonNegative = field(default=0.1, metadata={"former_names": ("kept",)})
    w_adapt: NonNegative = 3.0
    bank: Count = 256


@dataclass(frozen=True)
class ConditionedSampling:
    """The reverse steps, which are guided towards the sample.

    w: weight of the guidance.
    stride: levels of a step.
    eta: of DDIM.
    conditioning: DDAD's, or "linear_mix" of the re-implementation.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, Adaptation, ConditionedSampling, DDADUNetConfig
    >>> network = DDADUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> adaptation = Adaptation(features="effperc-random")
    >>> method = DDAD(Spec(1, (16, 16)), size=None, network=network, adaptation=adaptation,
    ...     sampling=ConditionedSampling(conditioning="linear_mix"))
    >>> method.denoiser.clip  # of DDAD's own conditioning: None
    (-1.0, 1.0)
    """

    w: NonNegative = 2.0
    stride: Count = 25
    eta: Fraction = 1.0
    conditioning: Literal["ddad", "linear_mix"] = "ddad"


@dataclass(frozen=True)
class MapFusion:
    """One map of the pixel and the feature distance.

    v: weight of the pixel distance.
    blur: deviation in pixels of the canvas.
    smooth: side of the square that features are averaged over before they are compared, 1 for
    none.
    combine: "ratio" at a common scale, "thresholds" as the re-implementation.
    contributions, thresholds: of pixel and feature distance with "thresholds"; None for what 0.1 %
    of the calibration pixels exceed.
    calibration: number of calibration samples.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, MapFusion
    >>> try:
    ...     DDAD(Spec(1, (16, 16)), fusion=MapFusion(smooth=2))
    ... except ValueError as error:
    ...     print(error)
    smooth is odd, not 2
    """

    v: NonNegative = 1.0
    blur: NonNegative = 4.0
    smooth: Odd = 3
    combine: Literal["ratio", "thresholds"] = "ratio"
    contributions: Pair[NonNegative] = (0.7, 0.7)
    thresholds: Pair[Positive] | None = None
    calibration: Count = 64


@dataclass(frozen=True)
class DDADQuirks:
    """What the authors' code does and this method does not by default.

    start_offset: noise is added up to one step above the level that the network is called with.
    norm: "batch" takes the scale of the two distances from the batch at hand, so that a sample's
    map depends on its batch; "calibrated" from calibration samples.
    student_batch_statistics: norms take a batch's statistics while features adapt.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ddad import DDAD, Adaptation, DDADQuirks, DDADUNetConfig
    >>> network = DDADUNetConfig(8, (1, 2), 1, attention=(8,), heads=1)
    >>> adaptation = Adaptation(features="effperc-random")
    >>> method = DDAD(Spec(1, (16, 16)), size=None, network=network, adaptation=adaptation,
    ...     quirks=DDADQuirks(student_batch_statistics=True))
    >>> method.student.batch_statistics
    True
    """

    start_offset: bool = False
    norm: Literal["calibrated", "batch"] = "calibrated"
    student_batch_statistics: bool = False


NETWORK = DDADUNetConfig(64, (1, 1, 2, 2, 4, 4), 2, attention=(32, 16, 8), heads=4)
SCHEDULE = ScheduleConfig()
NOISE = DDADNoiseConfig(persistence=0.6, frequency=32.0)
TRAINING = DDADTraining(steps=15_000, batch=32, lr=3e-4, weight_decay=0.05, clip=None, ema=None)
ADAPTATION = Adaptation()
SAMPLING = ConditionedSampling()
FUSION = MapFusion()
CORRECTED = DDADQuirks()


class DDAD(Method):
    """DDAD: pixel and feature distance of a sample and its guided reconstruction.

    The groups of arguments, `network` to `quirks`, say what their fields are.

    >>> from adbench.methods.ddad import DDAD
    >>> DDAD.published, sorted(DDAD.ndims)
    (226, [2])
    """

    levels, published = (76, 126, 176, 226, 276, 326), 226
    ndims = frozenset({2})
    inference = frozenset({"v", "blur", "norm", "contributions", "thresholds"})
    largest: Tensor  # (2,) mean of the maxima of pixel and feature distance, calibration samples
    exceeded: Tensor  # (2,) what one calibration pixel of 1000 exceeds in either

    search_space = SearchSpace(
        lr=Interval(5e-5, 1e-3, log=True),
        w=Interval(0.5, 8.0, log=True),
        v=Interval(0.25, 8.0, log=True),
        blur=Interval(1.0, 6.0),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, network: DDADUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, noise: DDADNoiseConfig = NOISE,
        training: DDADTraining = TRAINING, adaptation: Adaptation = ADAPTATION,
        sampling: ConditionedSampling = SAMPLING, fusion: MapFusion = FUSION,
        process: ProcessConfig = GAUSSIAN_PROCESS,
        quirks: DDADQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.batch_dependent = quirks.norm == "batch"
        stride, thresholds, smooth = sampling.stride, fusion.thresholds, fusion.smooth
        if stride < 1 or (thresholds is not None and min(thresholds) <= 0):
            raise ValueError(
                f"stride is at least 1 and thresholds are above 0, not {stride} and {thresholds}"
            )
        if smooth < 1 or smooth % 2 == 0:
            raise ValueError(f"smooth is odd, not {smooth}")
        widths = network.widths
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        fields = noise.build(z="t" if noise.z == "channel" else noise.z)
        self.noise = ChannelSharedNoise(fields) if noise.z == "channel" else fields
        attend = network.attention_levels(self.canvas.padded_shape)
        self.ineffective_arguments |= network.attention_conflicts(self.canvas.padded_shape)
        head_channels = network.head_channels or split_into_heads(widths, network.heads, attend)
        net = build_unet(2, spec.channels, widths, res_blocks=network.res_blocks,
            updown=network.updown, attention=attend, head_channels=head_channels,
            eps=1e-5, zero_attention=True, fold=network.fold,
            groups=network.groups)  # fmt: skip
        self.dropout, linear_mix = (
            PerSampleDropout(net, network.dropout),
            sampling.conditioning == "linear_mix",
        )
        self.student = AdaptedFeatures(
            adaptation.features, batch_statistics=quirks.student_batch_statistics
        )
        self.student.trunk.perceptual.check_sides(self.canvas.padded_shape)
        about = f"{self.noise} on {self.canvas}, {self.student.weights_id} adapted"
        if process.is_flow and linear_mix:
            raise ValueError("conditioning=linear_mix is of Gaussian diffusion, not process=flow")
        self.ineffective_arguments |= process.ineffective("beta", "eta")
        self.process_config = process
        self.denoiser = process.build_denoiser(
            net, schedule.build(), clip=self.canvas.range if linear_mix else None,
            rederive_noise=not linear_mix, trained_on=about,
        )  # fmt: skip
        self.plan = training if training.decoupled else replace(training, weight_decay=0.0)
        self.adaptation_plan = Training(adaptation.adapt_steps, adaptation.adapt_batch,
            adaptation.adapt_lr, weight_decay=0.01, clip=None, ema=None)  # fmt: skip
        self.penalty = 0.0 if training.decoupled else training.weight_decay
        self.adaptation, self.sampling, self.linear_mix = adaptation, sampling, linear_mix
        self.fusion, self.quirks = fusion, quirks
        self.register_buffer("largest", torch.ones(2))
        self.register_buffer("exceeded", torch.ones(2))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if not len(calibration):
            raise ValueError(
                "DDAD takes the scale of its maps from calibration samples; there are none"
            )

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner = self.canvas.forward(x)
            with self.dropout.with_streams(rng, inner):
                error = self.denoiser.loss(inner, rng, noise=self.noise) * inner[0].numel()
            if not self.penalty:
                return error
            return error + self.penalty / 2 * squared_norm(self.denoiser.parameters())

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")
        context.place(self)
        if self.adaptation_plan.steps:
            self._adapt(train, context)
        retry_out_of_memory(
            lambda: self._calibrate(calibration, context), self, context, "calibrating",
            context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        maps = self._distance_maps(inner, inner, levels, rng, self.sampling.w)
        pixel, feature = (m.view(len(levels), *x.shape[:1], *m.shape[1:]) for m in maps[:2])
        combined = self._combine_maps(pixel, feature)
        normal = self.canvas.inverse(maps.reconstruction.view(len(levels), *inner.shape))
        combined = replace(self.canvas, low=0.0, high=1.0).inverse(combined[:, :, None])[:, :, 0]
        return Detection(combined.flatten(2).amax(2), combined.clamp(min=0), normal.clamp(0, 1))

    def _combine_maps(self, pixel: Tensor, feature: Tensor) -> Tensor:
        """One map of the two, (L, N, H, W) each, blurred."""
        if self.fusion.combine == "thresholds":
            scale = (
                self.exceeded
                if self.fusion.thresholds is None
                else torch.tensor(self.fusion.thresholds)
            )
            weights = self.fusion.contributions
            scale = scale.to(pixel.device)
            total = weights[0] * pixel / scale[0] + weights[1] * feature / scale[1]
        else:
            most = self.largest[:, None]  # (2, 1)
            if self.quirks.norm == "batch":
                most = torch.stack([m.flatten(1).amax(1) for m in (pixel, feature)])  # (2, L)
            ratio = (most[1] / most[0].clamp(min=1e-12)).view(-1, 1, 1, 1)
            total = feature + self.fusion.v * ratio * pixel
        return gaussian_blur(total.flatten(0, 1), self.fusion.blur).view_as(total)

    def _distance_maps(
        self, x: Tensor, target: Tensor, levels: Sequence[int], rng: Rng, w: float
    ) -> DistanceMaps:
        normal = self._reconstruct(x, target, levels, rng, w)  # (L * N, C, *outer)
        one = target.repeat(len(levels), 1, 1, 1)
        error = (normal - one).abs() / 2
        pixel = error.square().amax(1) if self.fusion.combine == "thresholds" else error.mean(1)
        images = ((y + 1) / 2 for y in (one, normal))
        return DistanceMaps(
            pixel, self.student.distance(*images, smooth=self.fusion.smooth), normal
        )

    def _reconstruct(
        self, x: Tensor, target: Tensor, levels: Sequence[int], rng: Rng, w: float
    ) -> Tensor:
        """Reconstruct x (N, C, *outer) from each level, guided to target, (L * N, C, *outer)."""
        process = self.denoiser.process
        to = process.schedule.to_level
        index, level = enumerate_chains([to(at) for at in levels], len(x), 1)
        streams = repeat_streams(rng, 1).rows(index)
        paths = [sampling_levels(at, stride=self.sampling.stride) for at in level.tolist()]
        samples = index.tolist()
        index, level = to_device(torch.stack([index, level]), x.device)
        higher = (level + self.sampling.stride * self.quirks.start_offset).clamp(
            max=process.schedule.T
        )
        noise = self.noise(streams.fork("start"), x.shape[1:], level)
        noisy = process.add_noise(x[index], higher, noise)
        if self.linear_mix:
            draws = StepNoise(streams.fork("step"), self.noise)
            gaussian = self.denoiser.process_as(Gaussian)
            sampler = TargetMixing(gaussian, draws, target, w, self.sampling.eta)
            return run_chains(self.denoiser, sampler, noisy, paths, samples=samples)
        return reverse_process(
            self.denoiser,
            noisy,
            paths,
            streams.fork("step"),
            sampling=self.process_config.sampling(SamplingConfig(eta=self.sampling.eta)),
            noise=self.noise,
            guide=image_conditioned_guidance(process, target, w),
            samples=samples,
        )

    def _adapt(self, train: Split, context: TrainingContext) -> None:
        chosen = [train[i].x for i in evenly_spaced_indices(len(train), self.adaptation.bank)]
        bank = torch.stack(chosen).to(context.device)

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            target = self.canvas.forward(draw_other_samples(x, bank, rng.fork("target")))
            normal = self._reconstruct(
                self.canvas.forward(x), target, [self.published], rng, self.adaptation.w_adapt
            )
            pair, weight = ((normal + 1) / 2, (target + 1) / 2), self.adaptation.distillation_weight
            return self.student.loss(*pair, weight)

        train_module(loss, self.student, train, context, self.adaptation_plan, "adapt")

    @torch.no_grad()
    def _calibrate(self, calibration: Split, context: TrainingContext) -> None:
        chosen = evenly_spaced_indices(len(calibration), self.fusion.calibration)
        distances: list[Tensor] = []
        for start in range(0, len(chosen), 8):
            if context.stop():
                raise Interrupted(f"stopped calibrating at calibration sample {start}")
            samples = [calibration[i] for i in chosen[start : start + 8]]
            x = self.canvas.forward(torch.stack([s.x for s in samples]).to(context.device))
            rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
            maps = self._distance_maps(x, x, [self.published], rng, self.sampling.w)
            distances.append(torch.stack(maps[:2]).flatten(2))
        both = torch.cat(distances, 1)  # (2, M, H * W)
        self.largest.copy_(both.amax(2).mean(1))
        values = both.flatten(1).sort(1).values
        self.exceeded.copy_(values[:, int(0.999 * (values.shape[1] - 1))])


def draw_other_samples(x: Tensor, bank: Tensor, rng: Rng) -> Tensor:
    """Draw a sample of the bank for each of x, or the next one where that is x itself, (N, ...).

    x: (N, ...)
    bank: (K, ...)
    rng: one stream per sample

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.ddad import draw_other_samples
    >>> bank = torch.tensor([[1.0], [2.0]])
    >>> draw_other_samples(bank, bank, Rng(["a", "b"]))
    tensor([[2.],
            [1.]])
    """
    index = rng.integers(len(bank)).to(bank.device)
    same = (bank[index] == x).flatten(1).all(1)
    return bank[(index + same) % len(bank)]
