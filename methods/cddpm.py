"""cDDPM: one-step reconstruction of a noisy sample, conditioned on a short code of the sample.

Behrendt et al., "Guided Reconstruction with Conditioned Diffusion Models for Unsupervised Anomaly
Detection in Brain MRIs", 2023. https://arxiv.org/abs/2312.04215
https://github.com/FinnBehrendt/Conditioned-Diffusion-Models-UAD

As in the authors' code: pDDPM's process and network without its patches; a ResNet-50 encodes the
clean sample in 512 numbers, which are joined to the embedding of time and scale and shift every
block; both are trained together with the absolute error; at inference x_0 is predicted in one step
from each of three levels, and the mean of the three is compared with the sample. Training samples
have simulated faults of a scanner: another gamma, a bias field, blur, ghosts (`augment`).

Differs: the encoder is pre-trained on masked samples only where `pretrain_steps` is above 0
(theirs: 1200 epochs, 14 400 steps), and then as described in `engine.networks.masked_autoencoder`;
it normalises groups of channels, not batches, so that a sample's code depends on no other sample;
noise is drawn per sample (`shared_noise` is theirs). The paper's three levels, 250, 500 and 750,
each with noise of its own, are here the noise level times `ensemble`, so that it can be swept;
`ensemble=[1]` is one step.

The weights are those with the lowest loss on calibration samples, as theirs on healthy
validation samples (`select="last"`: those of the last step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.context_encoder import ContextEncoder
from ..engine.networks.masked_autoencoder import MaskedAutoencoder
from ..engine.networks.unet_config import MiddleAttentionUNetConfig
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Depth, Many, Natural, Positive
from ..engine.sampling.reconstruct import predict_x0
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import (
    random_bias_field,
    random_blur,
    random_gamma,
    random_ghosting,
)
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = MiddleAttentionUNetConfig(128, (1, 2, 2), 3, head_channels=64)
SCHEDULE = ScheduleConfig(beta="cosine")
NOISE = NoiseConfig("simplex", generator="2d")
TRAINING = Training(steps=14_400, batch=32, lr=1e-4, clip=None, ema=None, select="best")


@dataclass(frozen=True)
class CDDPMQuirks:
    """What the authors' code does and this method does not by default.

    shared_noise: one field of simplex noise for all samples of a batch.
    encoder_norm: over groups of channels, or over a batch, as the authors' encoder, for its
        weights.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> from adbench.methods.cddpm import CDDPM, CDDPMQuirks
    >>> network = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8)
    >>> method = CDDPM(Spec(1, (16, 16)), size=None, network=network, code=4,
    ...     encoder_layers=(1, 1, 1, 1), encoder_width=4, quirks=CDDPMQuirks(shared_noise=True))
    >>> method.noise.shared
    True
    """

    shared_noise: bool = False
    encoder_norm: Literal["group", "batch"] = "group"


@dataclass(frozen=True)
class Pretraining:
    """The training of the encoder on masked samples, before all else.

    pretrain_steps: of `pretrain_lr`, with the batch of the main training; 0 for none.
    pretrain_cell: side in pixels of the cells that are hidden or not; None for a third of the
    canvas's shortest side, which at 96 pixels is theirs, 32.
    pretrain_hidden: share of the cells that are hidden.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> from adbench.methods.cddpm import CDDPM, Pretraining
    >>> network = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8)
    >>> method = CDDPM(Spec(1, (16, 16)), size=None, network=network, code=4,
    ...     encoder_layers=(1, 1, 1, 1), encoder_width=4,
    ...     pretraining=Pretraining(pretrain_steps=100))
    >>> [plan.steps for plan in method.training_plans()]
    [14400, 100]
    """

    pretrain_steps: Natural = 0
    pretrain_lr: Positive = 1e-4
    pretrain_cell: Count | None = None
    pretrain_hidden: Annotated[float, Meta(gt=0, lt=1)] = 0.65


CORRECTED = CDDPMQuirks()
PRETRAINING = Pretraining()


class CDDPM(Method):
    """cDDPM: reconstruct a sample in one step, with a code of the sample as a condition.

    code: length of the encoder's output.
    encoder_layers, encoder_width: the encoder's blocks at each of four resolutions, and the
        channels inside the first.
    ensemble: factors of the noise level; one reconstruction at each, at most at level 1000, and
        their mean.
    power: of the absolute error in the loss.
    repeats, clip_clean: as in pDDPM.

    >>> from adbench.methods.cddpm import CDDPM
    >>> CDDPM.published, sorted(CDDPM.inference)
    (500, ['clip_clean', 'ensemble', 'repeats'])
    """

    levels, published = (100, 200, 300, 400, 500, 600), 500
    selects_best = True
    inference = frozenset({"ensemble", "repeats", "clip_clean"})

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        power=Choice(1, 2),
        frequency=Interval(8.0, 128.0, log=True),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 96, network: MiddleAttentionUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, code: Count = 512,
        encoder_layers: Annotated[Sequence[Depth], Meta(min_length=4, max_length=4)] = (3, 4, 6, 3),
        encoder_width: Count = 64, power: Literal[1, 2] = 1, noise: NoiseConfig = NOISE,
        training: Training = TRAINING, augment: bool = True,
        ensemble: Many[Positive] = (0.5, 1.0, 1.5), repeats: Count = 1,
        clip_clean: bool = False, pretraining: Pretraining = PRETRAINING,
        quirks: CDDPMQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if not ensemble or min(ensemble) <= 0:
            raise ValueError(f"ensemble is one or more numbers above 0, not {list(ensemble)}")
        ndim = len(spec.shape)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        self.noise = noise.build(shared=quirks.shared_noise)
        net = network.build(ndim, spec.channels, vector=code)
        self.encoder = ContextEncoder(
            ndim,
            spec.channels,
            code,
            layers=encoder_layers,
            width=encoder_width,
            norm=quirks.encoder_norm,
        )
        about = f"{self.noise} on {self.canvas}"
        self.denoiser = Denoiser(net, schedule.build(), prediction_type="clean", trained_on=about)
        self.plan = training
        self.pretraining_plan, self._masked = None, list[MaskedAutoencoder]()
        if pretraining.pretrain_steps:
            self.pretraining_plan = Training(pretraining.pretrain_steps, training.batch,
                pretraining.pretrain_lr, weight_decay=0.05, beta2=0.95, clip=None,
                ema=None)  # fmt: skip
            cell = pretraining.pretrain_cell or max(min(self.canvas.padded_shape) // 3, 1)
            masked = MaskedAutoencoder(
                self.encoder, spec.channels, cell=cell, hidden=pretraining.pretrain_hidden
            )
            self._masked.append(masked)  # in a list: it is no part of the method
        self.power: Literal[1, 2] = power
        self.augment, self.ensemble, self.repeats = augment, tuple(ensemble), repeats
        self.clip = self.canvas.range if clip_clean else None

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = simulate_scanner_artifacts(x, rng) if self.augment else x
            inner = self.canvas.forward(x)
            code = self.encoder(inner)
            return self.denoiser.loss(
                inner, rng, noise=self.noise, conditioning=[code], power=self.power
            )

        def masked_loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self._masked[0].loss(self.canvas.forward(x), rng)

        if self.pretraining_plan is not None:
            train_module(
                masked_loss, self._masked[0], train, context, self.pretraining_plan, "pretrain"
            )
        train_module(loss, self, train, context, self.plan, validation=calibration)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        code = self.encoder(inner)
        total = torch.zeros_like(inner).expand(len(levels), *inner.shape)
        for member, share in enumerate(self.ensemble):
            estimates = predict_x0(
                self.denoiser,
                inner,
                [min(1000, round(level * share)) for level in levels],
                rng.fork("member", member),
                noise=self.noise,
                repeats=self.repeats,
                conditioning=[code],
            )  # (L, N, R, 1, C, *outer)
            estimates = estimates if self.clip is None else estimates.clamp(*self.clip)
            total = total + estimates.mean((2, 3))
        normal = self.canvas.inverse(total / len(self.ensemble))
        return Detection.from_map((normal - x).abs().mean(2), normal)


def simulate_scanner_artifacts(x: Tensor, rng: Rng) -> Tensor:
    """Augment samples with faults of a scanner: gamma, a bias field, blur and ghosts, (N, C, *S).

    x: (N, C, *S) in [0, 1]
    rng: one stream per sample

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.cddpm import simulate_scanner_artifacts
    >>> simulate_scanner_artifacts(torch.rand(2, 1, 16, 16), Rng(["a", "b"])).shape
    torch.Size([2, 1, 16, 16])
    """
    x = random_gamma(x, rng.fork("gamma"), 0.5)
    x = random_bias_field(x, rng.fork("bias"), 0.25)
    x = random_blur(x, rng.fork("blur"), 0.25)
    return random_ghosting(x, rng.fork("ghosts"), 0.5)
