"""AnoFPDM: the errors of reconstructions guided to health, along the forward process alone.

Che et al., "AnoFPDM: Anomaly Segmentation with Forward Process of Diffusion Models for Brain MRI",
WACV Workshops 2025. https://arxiv.org/abs/2404.15683 https://github.com/SoloChe/AnoFPDM

As in the authors' code: one UNet, trained with image labels that are left out for every tenth
sample (classifier-free guidance, Ho and Salimans 2022). A sample is inverted along DDIM's ODE
without a label, up to level 600; at every step x_0 is estimated twice, without a label and guided
to health, (1 + w) eps(healthy) - w eps(none). There is no reverse process. The map is the mean of
the squared errors of the guided estimates over the steps up to that where the two estimates are
farthest apart, found for every sample and channel by itself; the mean over channels. The score is
how little the errors along the path of the one are like those of the other: 1 - their cosine. What
is set from image labels is the training and the guidance, w = 2 for BraTS and 20 for ATLAS.

Differs, with the argument that restores theirs: what is called unguided has no label
(`unguided="healthy"`: the label of health, without guidance); the path begins with the sample
(theirs with noise of level 1, one level late from then on); x_0 is estimated from the level where a
step begins; the step with the farthest estimates counts too, so that there always is one. Maps are
of all channels, theirs of FLAIR and T2. Their median filter and threshold are the protocol's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.per_sample_dropout import PerSampleDropout
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Decay, Fraction, NonNegative
from ..engine.sampling.continuous_batching import ChainBatch
from ..engine.sampling.reconstruct import SamplingConfig, ddim_invert
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NO_LABEL = -1
HEALTHY = 0


@dataclass(frozen=True)
class BalancedTraining(Training):
    """balanced: as many diseased samples are trained on as healthy ones.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.anofpdm import AnoFPDM, BalancedTraining
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> method = AnoFPDM(Spec(1, (16, 16), labels=True), size=None, network=network,
    ...     training=BalancedTraining(10, 2, 1e-4, balanced=True))
    >>> method.training_plans()[0].balanced
    True
    """

    balanced: bool = False


NETWORK = HeadsUNetConfig(128, (1, 1, 2, 3, 4), 2, attention=(False, False, True, True, True),
    heads=4)  # fmt: skip
SCHEDULE = ScheduleConfig()
TRAINING = BalancedTraining(steps=210_000, batch=128, lr=1e-4, clip=None)


class AnoFPDM(Method):
    """The mean squared error of guided estimates of x_0 along the inversion of a sample.

    dropout: probability.
    unlabelled: the share of training samples whose label is left out.
    guidance: w, of the label of health.
    sampling_steps: of the inversion, None for one per level.
    unguided: the label of the estimates that the guided ones are compared with.
    judged: the score is 1 - cosine of the two curves of errors, or the map's mean.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.anofpdm import AnoFPDM
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> method = AnoFPDM(Spec(2, (8, 8), labels=True), size=None, network=network,
    ...     sampling_steps=3).eval()
    >>> detection = method.detect(torch.zeros(3, 2, 8, 8), [300, 600], Rng(["a", "b", "c"]))
    >>> detection.map.shape, detection.reconstruction.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 2, 8, 8]))
    """

    supervision = "image-labels"
    levels, published = (200, 400, 600, 800), 600
    inference = frozenset({"guidance", "sampling_steps", "unguided", "judged"})

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True), guidance=Interval(0.5, 50, log=True)
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, network: HeadsUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, dropout: Decay = 0.1,
        training: BalancedTraining = TRAINING, unlabelled: Fraction = 0.1,
        guidance: NonNegative = 2.0, sampling_steps: Count | None = None,
        unguided: Literal["none", "healthy"] = "none",
        judged: Literal["curves", "map"] = "curves",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        net = network.build(len(spec.shape), spec.channels, labels=2, updown=True,
            scale_shift=True, eps=1e-5, zero_attention=True)  # fmt: skip
        about = f"gaussian on {self.canvas}, labels"
        self.denoiser = Denoiser(net, schedule.build(), trained_on=about)  # clipped in the guide
        self.dropout = PerSampleDropout(net, dropout)
        self.plan, self.chain = training, SamplingConfig(sampling_steps)
        self.unlabelled, self.guidance = unlabelled, guidance
        self.unguided, self.judged = unguided, judged

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            dropped = rng.fork("unlabelled").uniform() < self.unlabelled
            shown = torch.where(dropped.to(x.device), NO_LABEL, label.long())
            inner = self.canvas.forward(x)
            with self.dropout.with_streams(rng, inner):
                return self.denoiser.loss(inner, rng, conditioning=(shown,))

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")
        context.place(self)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, parts = self.canvas.forward(x), []
        none = torch.full((len(x),), NO_LABEL, device=x.device)
        for level in levels:
            path = _ErrorsAlongPath(self, inner)
            ddim_invert(
                self.denoiser, inner, [level], sampling=self.chain,
                guide=path.record_step, conditioning=(none,),
            )  # fmt: skip
            error = self.canvas.inverse(path.map() / self._span + self.canvas.low)
            parts.append((error.mean(1).clamp(min=0), path.dissimilarity(), path.nearest()))
        map, score, guided = (torch.stack(part) for part in zip(*parts, strict=True))
        detection = Detection.from_map(map, self.canvas.inverse(guided))
        if self.judged == "curves":
            detection = Detection(score.to(x.dtype), map, detection.reconstruction)
        return detection

    @property
    def _span(self) -> float:
        return self.canvas.high - self.canvas.low


class _ErrorsAlongPath:
    """The guide that clips estimates, and compares guided and unguided ones on the way."""

    def __init__(self, method: AnoFPDM, inner: Tensor) -> None:
        self.method, self.target = method, inner
        count, channels = inner.shape[:2]
        self.healthy = torch.full((count,), HEALTHY, device=inner.device)
        self.sum, self.best_sum = torch.zeros_like(inner), torch.zeros_like(inner)
        self.guided = torch.zeros_like(inner)
        self.steps = torch.zeros(count, device=inner.device)
        self.best_steps = torch.ones(count, channels, device=inner.device)
        self.distance = torch.full((count, channels), -1.0, device=inner.device)
        self.products = torch.zeros(count, 3, dtype=torch.float64, device=inner.device)

    def record_step(
        self, x: Tensor, noise: Tensor, clean: Tensor, batch: ChainBatch
    ) -> tuple[Tensor, Tensor]:
        method, at = self.method, batch.device_chain
        denoiser, level = method.denoiser, batch.network_level
        of_health = denoiser.estimate(x, level, batch.per_chain(self.healthy))
        eps = (1 + method.guidance) * of_health.noise - method.guidance * noise
        guided = denoiser.process.x0_from_noise(x, eps, level).clamp(*method.canvas.range)
        clean = clean.clamp(*method.canvas.range)
        unguided = clean
        if method.unguided == "healthy":
            unguided = of_health.clean.clamp(*method.canvas.range)
        target = self.target[at]
        error = (guided - target).square()
        distance = _mean_per_channel((guided - unguided).square())
        self.sum[at] += error
        self.steps[at] += 1
        farther = distance > self.distance[at]  # (B, C)
        self.distance[at] = torch.where(farther, distance, self.distance[at])
        self.best_steps[at] = torch.where(farther, self.steps[at][:, None], self.best_steps[at])
        here = farther.view(*farther.shape, *[1] * (x.ndim - 2))
        self.best_sum[at] = torch.where(here, self.sum[at], self.best_sum[at])
        self.guided[at] = torch.where(here, guided, self.guided[at])
        a = _mean_per_channel(error).double().mean(1)
        b = _mean_per_channel((unguided - target).square()).double().mean(1)
        self.products[at] += torch.stack([a * b, a * a, b * b], 1)
        return denoiser.process.noise_from_x0(x, clean, level), clean

    def map(self) -> Tensor:
        """The mean squared error up to the step with the farthest estimates, (N, C, *S)."""
        shape = (*self.best_steps.shape, *[1] * (self.target.ndim - 2))
        return self.best_sum / self.best_steps.view(shape)

    def nearest(self) -> Tensor:
        """The guided estimate of that step, (N, C, *S)."""
        return self.guided

    def dissimilarity(self) -> Tensor:
        """1 - the cosine of the two curves of errors, (N,)."""
        both, one, other = self.products.unbind(1)
        return 1 - both / (one * other).sqrt().clamp(min=1e-12)


def _mean_per_channel(values: Tensor) -> Tensor:
    """The mean of each channel of each sample, (B, C); one by one: it rounds alike in any batch."""
    means = torch.stack([one.mean() for one in values.flatten(0, 1)])
    return means.view(values.shape[:2])
