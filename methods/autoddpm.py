"""AutoDDPM: mask what a first reconstruction changes, and inpaint the mask by resampling.

Bercea et al., "Mask, Stitch, and Re-Sample: Enhancing Robustness and Generalizability in Anomaly
Detection through Automatic Diffusion Models", ICML 3rd Workshop on Interpretable Machine Learning
in Healthcare 2023. https://arxiv.org/abs/2305.19643

As in the authors' code: data in [0, 1]; Gaussian noise; levels 201 and 51 (their indices 200 and
50); five resamples; the final map is weighted with the first pass's soft map.
Differs, and named where an argument brings theirs back: the threshold is calibrated, so that 5 %
of the pixels of normal calibration samples exceed it (`threshold=0.13` is theirs, of their data and
network; -1 is each image's 95th percentile); the perceptual map is normalised once
(`double_normalise`); noise is added again with the step's own beta (`renoise_shifted`) and the last
step calls the network (`leave_last`); inpainting uses the noise that the network was trained with
(`inpaint_noise`); estimates are clipped to [0, 1] (`clip=(-1, 1)`); training images are not cut to
8 bits (`quantise`); noise is drawn per sample (`shared_noise` has one field for all, as theirs does
of simplex noise). The perceptual network is one that a package ships, so 0.13 would not carry over
to it; `features` names another, such as lpips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.pretrained import FeaturesName, build_perceptual
from ..engine.networks.unet_config import UNetConfig
from ..engine.noise.noise import NoiseName
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Fraction, Level, Natural, Range, Unbounded
from ..engine.runtime.transfer import to_device
from ..engine.sampling.reconstruct import (
    SamplingConfig,
    enumerate_chains,
    reconstruct,
    repeat_streams,
)
from ..engine.sampling.repaint import inpaint
from ..engine.training.loop import UnclippedTraining, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = UNetConfig((128, 256, 256), 1, (False, True, True), head_channels=256)
SCHEDULE = ScheduleConfig()
NOISE = NoiseConfig()
TRAINING = UnclippedTraining(steps=133_000, batch=16, lr=1e-4, ema=None)


@dataclass(frozen=True)
class AnomalyMask:
    """The mask of what is anomalous, cut from the soft map of the first pass.

    threshold: of the soft map; None for what 5 % of the calibration pixels exceed, below 0 for
    the 95th percentile of each sample.
    calibration: number of calibration samples.
    dilate: growth of the mask in pixels.

    >>> import torch
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.loop import UnclippedTraining
    >>> from adbench.methods.autoddpm import AnomalyMask, AutoDDPM
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> method = AutoDDPM(Spec(1, (16, 16)), size=None, network=network, features="effperc-random",
    ...     training=UnclippedTraining(1, 1, 1e-4), mask=AnomalyMask(threshold=0.13))
    >>> data = [Sample(torch.zeros(1, 16, 16), "a", "a", False)]
    >>> method.fit(data, data, TrainingContext())
    >>> method.tau
    tensor(0.1300)
    """

    threshold: Unbounded | None = None
    calibration: Count = 64
    dilate: Natural = 1


@dataclass(frozen=True)
class Inpainting:
    """The second pass, which inpaints what the mask covers.

    inpaint_level: on the 1000-step scale.
    resamples: how often every level is passed.
    inpaint_steps: network calls of one pass, None for every level.
    inpaint_noise: kind of noise; None for that of the first pass.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.autoddpm import AutoDDPM, Inpainting
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> method = AutoDDPM(Spec(1, (16, 16)), size=None, network=network, features="effperc-random",
    ...     inpainting=Inpainting(inpaint_steps=10), sampling_steps=50)
    >>> method.first_sampling.steps, method.second_sampling.steps
    (50, 10)
    """

    inpaint_level: Level = 51
    resamples: Count = 5
    inpaint_steps: Count | None = None
    inpaint_noise: NoiseName | None = None


@dataclass(frozen=True)
class AutoDDPMQuirks:
    """What the authors' code does and this method does not by default.

    quantise: training samples have 8 bits.
    double_normalise: samples are brought to [-1, 1] twice for the perceptual distance.
    renoise_shifted: noise is added again by the schedule's value of one level below.
    leave_last: the last step is left out, so that the noise of level 1 stays.
    shared_noise: one field of simplex noise for all samples of a batch.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.engine.noise.noise_config import NoiseConfig
    >>> from adbench.methods.autoddpm import AutoDDPM, AutoDDPMQuirks
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> method = AutoDDPM(Spec(1, (16, 16)), size=None, network=network, features="effperc-random",
    ...     noise=NoiseConfig("simplex"), quirks=AutoDDPMQuirks(shared_noise=True))
    >>> method.noise.shared
    True
    """

    quantise: bool = False
    double_normalise: bool = False
    renoise_shifted: bool = False
    leave_last: bool = False
    shared_noise: bool = False


MASK = AnomalyMask()
INPAINTING = Inpainting()
CORRECTED = AutoDDPMQuirks()


class AutoDDPM(Method):
    """AutoDDPM: the residual of an inpainted reconstruction, weighted with a soft map.

    clip: range of the estimates of x_0.
    features: the network of the perceptual distance, as `build_perceptual` has it.
    sampling_steps: network calls of the first pass, None for every level.
    eta: of both passes; 0 is DDIM, 1 is DDPM.
    repeats: number of chains that are averaged.
    map_weight: what the residual is multiplied with: the soft map of the first or of the second
        pass, or nothing.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.autoddpm import AutoDDPM
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> AutoDDPM(Spec(1, (16, 16)), size=None, network=network, features="effperc-random").tau
    tensor(0.)
    """

    levels, published = (101, 151, 201, 251, 301, 401), 201
    ndims = frozenset({2})
    inference = frozenset(  # what the first pass uses is not among them: tau depends on it
        ["inpaint_level", "resamples", "inpaint_steps", "map_weight", "dilate", "inpaint_noise",
         "renoise_shifted", "leave_last"]
    )  # fmt: skip
    tau: Tensor  # (): above it the soft map counts as anomalous

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        inpaint_level=Interval(20, 200),
        resamples=Interval(1, 8),
        dilate=Interval(0, 3),
        map_weight=Choice("first", "none"),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, network: UNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE,
        noise: NoiseConfig = NOISE, training: UnclippedTraining = TRAINING, augment: bool = True,
        clip: Range[Unbounded] = (0.0, 1.0), features: FeaturesName = "effperc",
        mask: AnomalyMask = MASK,
        inpainting: Inpainting = INPAINTING, sampling_steps: Count | None = None,
        eta: Fraction = 1.0,
        repeats: Count = 1, map_weight: Literal["first", "second", "none"] = "first",
        quirks: AutoDDPMQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor, low=0.0)
        self.noise, self.inpaint_noise = (
            noise.build(name, shared=quirks.shared_noise)
            for name in (None, inpainting.inpaint_noise)
        )
        net = network.build(2, spec.channels)
        self.perceptual = build_perceptual(features)
        self.perceptual.check_sides(self.canvas.padded_shape)
        about = f"{self.noise} on {self.canvas}, tau by {self.perceptual.weights_id}"
        low, high = clip
        self.denoiser = Denoiser(net, schedule.build(), clip=(low, high), trained_on=about)
        self.plan = training
        self.first_sampling = SamplingConfig(sampling_steps, eta, repeats=repeats)
        self.second_sampling = SamplingConfig(inpainting.inpaint_steps, eta)
        self.mask, self.inpainting, self.quirks = mask, inpainting, quirks
        self.augment, self.map_weight = augment, map_weight
        self.register_buffer("tau", torch.tensor(0.0))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            if self.augment:
                x = random_affine(
                    x, rng, degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), flip=0.5
                )
            x = (x * 255).round() / 255 if self.quirks.quantise else x
            return self.denoiser.loss(self.canvas.forward(x), rng, noise=self.noise)

        train_module(loss, self.denoiser, train, context, self.plan)
        context.place(self)
        self.tau.fill_(
            retry_out_of_memory(
                lambda: self._calibrated_threshold(calibration, context),
                self,
                context,
                "calibrating",
                context.on_event,
            )
            if self.mask.threshold is None
            else self.mask.threshold
        )

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        coarse, soft = self._coarse_reconstruction(inner, levels, rng)  # (L, N, R, C, *), (L, N, *)
        own = soft.flatten(2).quantile(0.95, dim=2)[..., None, None]
        cut = torch.where(self.tau < 0, own, self.tau)  # as a GPU decides: the host would wait
        region = max_pool2d((soft > cut).float(), 2 * self.mask.dilate + 1, 1, self.mask.dilate)
        repeats = coarse.shape[2]
        index, _ = enumerate_chains(levels, len(x), repeats)
        filled = inpaint(
            self.denoiser,
            coarse.flatten(0, 2),
            inner[to_device(index % len(x), x.device)],
            region[:, :, None, None].expand(-1, -1, repeats, -1, -1, -1).flatten(0, 2),
            self.inpainting.inpaint_level,
            repeat_streams(rng.fork("inpaint"), repeats).rows(index),
            sampling=self.second_sampling,
            noise=self.inpaint_noise,
            resamples=self.inpainting.resamples,
            shifted_renoise=self.quirks.renoise_shifted,
            skip_last_step=self.quirks.leave_last,
        )
        fine = filled.clamp(0, 1).view_as(coarse).mean(2)  # (L, N, C, *)
        if self.map_weight == "second":
            soft = self._soft_map(inner, fine)
        normal = self.canvas.inverse(fine)
        residual = (normal - x).abs().mean(2)  # (L, N, H, W)
        if self.map_weight != "none":
            residual = residual * self.canvas.inverse(soft[:, :, None])[:, :, 0].clamp(min=0)
        return Detection.from_map(residual, normal)

    def _coarse_reconstruction(
        self, inner: Tensor, levels: Sequence[int], rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """The coarse reconstructions (L, N, R, C, *) and the soft map (L, N, *) of their mean."""
        coarse = reconstruct(
            self.denoiser, inner, levels, rng, sampling=self.first_sampling, noise=self.noise
        )
        coarse = coarse.clamp(0, 1)
        return coarse, self._soft_map(inner, coarse.mean(2))

    def _soft_map(self, inner: Tensor, normal: Tensor) -> Tensor:
        """Perceptual distance times the residual over its 95th percentile, at most 1; (L, N, *)."""
        residual = (normal - inner).abs().mean(2)
        high = residual.flatten(2).quantile(0.95, dim=2)[..., None, None]
        share = (residual / high.clamp(min=1e-12)).clamp(max=1)
        distance = self.perceptual.distance(
            inner.repeat(len(normal), 1, 1, 1), normal.flatten(0, 1),
            rescale_twice=self.quirks.double_normalise,
        )  # fmt: skip
        return distance.view_as(share) * share

    @torch.no_grad()
    def _calibrated_threshold(self, calibration: Split, context: TrainingContext) -> float:
        """The soft map's value that 5 % of the calibration pixels (of the roi) exceed."""
        values = []
        for i in range(0, min(len(calibration), self.mask.calibration), 8):
            samples = [
                calibration[j]
                for j in range(i, min(i + 8, len(calibration), self.mask.calibration))
            ]
            x = torch.stack([s.x for s in samples]).to(context.device)
            rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
            soft = self._coarse_reconstruction(self.canvas.forward(x), [self.published], rng)[1]
            soft = self.canvas.inverse(soft[:, :, None])[0, :, 0].cpu()
            for s, m in zip(samples, soft, strict=True):
                values.append(m.flatten() if s.roi is None else m[s.roi])
        if not values:
            raise ValueError(
                "AutoDDPM calibrates its threshold on calibration samples; there are none"
            )
        return torch.cat(values).double().quantile(0.95).item()
