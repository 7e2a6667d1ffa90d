"""LDM-OOD: DDPM-OOD on the latent codes of a VQ-VAE, for samples too large for diffusion itself.

Graham et al., "Unsupervised 3D Out-of-Distribution Detection with Latent Diffusion Models", MICCAI
2023. https://arxiv.org/abs/2307.03777 https://github.com/marksgraham/ddpm-ood

As in the authors' code: quantised codes, PLMS from every `skip`-th of 100 levels, decoded and
compared with the input in [0, 1] by squared error, z-scores, their mean. Differs, with the argument
that restores theirs: codes have unit variance (`scaled=False`) and the codebook begins at encodings
of the data; z-scores are of calibration samples that are not trained on; chains as in DDPM-OOD
(`lagged`, `leaking`, `final_noise`); codes are divided by `b_scale` before they are decoded
(`late_division`: what is decoded is). The perceptual loss of the autoencoder uses
EfficientNet-lite0, whose weights a package ships, not LPIPS of AlexNet (`features="lpips"`: of
SqueezeNet); scores use no perceptual distance unless `perceptual` names its network, of volumes all
planes across each axis, where their code uses the last axis alone. A map is added: the mean over
starts of the squared error in standard deviations of calibration samples.

Signals are not resized, get the network `signal_windows.SIGNAL_UNET`, and their autoencoder is
trained by its error alone, as in https://github.com/ismaelmreno/ddpm-ood-signals; it sees them
about 0, in the unit that `amplitude` names, as in DDPM-OOD, and reconstructions are not clamped.

The diffusion network's weights are those with the lowest loss on calibration samples
(`select="last"`: those of the last step). Theirs are of the epoch with the lowest mean training
loss, which is approximated so: a step's own loss depends on the levels it draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.autoencoder import VQ
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule import ScheduleName, build_schedule, shift_snr
from ..engine.features.pretrained import FeaturesName
from ..engine.features.pretrained import build_perceptual as perceptual_network
from ..engine.networks.diffusion_unet import build_unet, side_divisor
from ..engine.networks.discriminator import adversary_options
from ..engine.networks.unet_config import OptionalUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Decay,
    Many,
    Natural,
    NonNegative,
    Positive,
    Several,
)
from ..engine.sampling.multi_start import MultiStart
from ..engine.training.loop import Training, train_module
from ..engine.transforms.amplitude import Amplitude, fit_unit, from_units, to_units, unit_of
from ..engine.transforms.resizing import ResizePad
from ..engine.transforms.signal_windows import unet_arguments
from .base import Detection, Method

UNET_DEFAULTS = {"widths": (128, 256, 256), "res_blocks": 1, "attention": (False, False, True),
        "head_channels": 256}  # fmt: skip


@dataclass(frozen=True)
class CodecConfig:
    """The VQ-VAE.

    coder_widths: channels after each halving.
    latent_channels, codes, code_decay: of its codebook.
    latent_kind: whether diffusion is on quantised codes, or on codes that decoding quantises.
    looks, spectrum, adversary: weights of a perceptual, a spectral and an adversarial loss, of
    images and volumes.
    features: network of the perceptual loss.
    adversary_start: the step from which on the adversarial loss counts.
    adversary_warmup: steps from there in which its weight rises linearly; theirs, where it is
    switched on, 50 of 300 epochs: 2500.
    adversary_lr: learning rate of the discriminator.
    coder_steps, coder_batch, coder_lr: of its training.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ldm_ood import LDMOOD, CodecConfig
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> codec = CodecConfig(coder_widths=(4, 8), latent_channels=2, codes=16, looks=0.0)
    >>> LDMOOD(Spec(1, (16, 16)), size=None, codec=codec, network=network).codec.latent
    (2, 4, 4)
    """

    coder_widths: Many[Count] = (256, 256, 256, 256)
    latent_channels: Count = 128
    codes: Count = 2048
    code_decay: Decay = 0.9
    latent_kind: Literal["quantised", "continuous"] = "quantised"
    looks: NonNegative = 0.001
    features: FeaturesName = "effperc"
    spectrum: NonNegative = 1.0
    adversary: NonNegative = 0.01
    adversary_start: Natural = 0
    adversary_warmup: Natural = 0
    adversary_lr: Positive = 5e-4
    coder_steps: Count = 15_000
    coder_batch: Count = 8
    coder_lr: Positive = 3e-5


@dataclass(frozen=True)
class LDMOODQuirks:
    """What the authors' code does and this method does not by default.

    scaled: whether codes are brought to unit variance; theirs are not.
    late_division: what is decoded is divided by `b_scale`, not the code.
    lagged: the first step of PLMS is made once, so that all others lag behind.
    leaking: a chain begins with the history of the start below.
    final_noise: chains end at level 1, of the schedule before `snr_shift`.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ldm_ood import LDMOOD, CodecConfig, LDMOODQuirks
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> codec = CodecConfig(coder_widths=(4, 8), latent_channels=2, codes=16, looks=0.0)
    >>> method = LDMOOD(Spec(1, (16, 16)), size=None, codec=codec, network=network,
    ...     quirks=LDMOODQuirks(final_noise=True))
    >>> method.starts.final_levels
    [1]
    """

    scaled: bool = True
    late_division: bool = False
    lagged: bool = False
    leaking: bool = False
    final_noise: bool = False


CODEC = CodecConfig()
NETWORK = OptionalUNetConfig()
TRAINING = Training(steps=776_000, batch=6, lr=2.5e-5, clip=None, ema=None, select="best")
CORRECTED = LDMOODQuirks()


class LDMOOD(Method):
    """Reconstruct a latent code from many levels, and score its errors in standard deviations.

    codec: of the VQ-VAE.
    b_scale: factor of the codes.
    network: None for widths (128, 256, 256), one residual block, attention at the lowest resolution
    with 256 channels a head.
    snr_shift: factor of the schedule's signal-to-noise ratio.
    sampling_steps, skip: levels of the grid, and every so many of them a start.
    min_level: no chain starts below it.
    perceptual: name of the network whose distance is a second measure.
    calibration: number of calibration samples at most.
    amplitude: the unit of signals.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ldm_ood import LDMOOD, CodecConfig
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> codec = CodecConfig(coder_widths=(4, 8), latent_channels=2, codes=16, looks=0.0)
    >>> method = LDMOOD(Spec(1, (16, 16)), size=None, codec=codec, network=network,
    ...     sampling_steps=10, skip=3, min_level=200)
    >>> method.starts.levels
    [401, 701]
    """

    levels, published = (250, 500, 750, 1000), 1000
    selects_best = True
    unit: Tensor | None  # (), of the amplitude of signals

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, codec: CodecConfig = CODEC, b_scale: Positive = 1.0,
        network: OptionalUNetConfig = NETWORK, beta: ScheduleName = "scaled_linear",
        snr_shift: Positive = 1.0,
        training: Training = TRAINING, sampling_steps: Annotated[int, Meta(ge=2, le=1000)] = 100,
        skip: Count = 2,
        min_level: Annotated[int, Meta(ge=0, le=1000)] = 0, perceptual: FeaturesName | None = None,
        calibration: Several = 256, amplitude: Amplitude = "train",
        quirks: LDMOODQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        axes = len(spec.shape)
        if perceptual is not None and axes == 1:
            raise ValueError("perceptual is of images and volumes, not of signals")
        net = unet_arguments(spec.shape, UNET_DEFAULTS, **network.overrides())
        whole = 2 ** len(codec.coder_widths) * side_divisor(net["widths"], network.fold or 1)
        self.canvas = ResizePad(spec.shape, size, whole, low=0.0)
        self.amplitude: Amplitude | None = amplitude if axes == 1 else None
        self.register_buffer("unit", torch.ones(()) if axes == 1 else None)
        losses: dict[str, Any] = {}
        if axes > 1:
            losses = {"looks": codec.looks, "spectrum": codec.spectrum}
        if codec.looks and axes > 1:
            losses["features"] = codec.features
        self.plan = training
        self.codec_plan = Training(codec.coder_steps, codec.coder_batch, codec.coder_lr,
            clip=training.clip, ema=None, decay=training.decay)  # fmt: skip
        if axes > 1:
            losses["adversary"] = adversary_options(codec.adversary, codec.adversary_lr,
                self.codec_plan, starts=codec.adversary_start,
                warmup=codec.adversary_warmup)  # fmt: skip
        self.codec = VQ(
            (spec.channels, *self.canvas.padded_shape), latent_channels=codec.latent_channels,
            widths=codec.coder_widths, codes=codec.codes, decay=codec.code_decay,
            kind=codec.latent_kind, **losses,
        )  # fmt: skip
        about = f"codes of {self.canvas}{'' if quirks.scaled else ', as they come'}"
        if axes == 1:
            about += f", amplitude by {amplitude}"
        if b_scale != 1:
            about += f", times {b_scale}"
        self.network = None if perceptual is None else perceptual_network(perceptual)
        if self.network is not None:
            self.network.check_sides(self.canvas.padded_shape)
            about += f", z by {self.network.weights_id}"
        schedule = build_schedule(beta)
        self.denoiser = Denoiser(build_unet(axes, codec.latent_channels, **net),
            shift_snr(schedule, snr_shift), trained_on=about)  # fmt: skip
        self.starts = MultiStart(
            sampling_steps, skip, measures=1 + (perceptual is not None), lagged=quirks.lagged,
            shared_history=quirks.leaking, min_level=min_level,
            final_noise=quirks.final_noise,
            final_schedule=schedule if snr_shift != 1 else None,
        )  # fmt: skip
        self.b_scale, self.calibration, self.quirks = b_scale, calibration, quirks

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        self.starts.check_calibration_size(calibration)

        def denoised(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.codec.encode(self._normalise(x)) * self.b_scale, rng)

        if self.amplitude is not None:
            self.unit = fit_unit(self.amplitude, train).to(context.device)
        CodecTraining(self.codec, self.codec_plan, self.canvas, fit_scale=self.quirks.scaled,
            amplitude=self.amplitude, unit=self.unit).train(train, context)  # fmt: skip
        train_module(
            denoised, self.denoiser, train, context, self.plan, "diffusion", validation=calibration
        )
        context.place(self)
        retry_out_of_memory(
            lambda: self.starts.calibrate(
                self._measure_starts, calibration, context, self.calibration
            ),
            self, context, "calibrating", context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection(*self.starts.detect(self._measure_starts, x, levels, rng))

    def _normalise(self, x: Tensor) -> Tensor:
        return to_units(self.canvas.forward(x), unit_of(self.amplitude, x, self.unit))

    @torch.no_grad()
    def _measure_starts(self, x: Tensor, rng: Rng, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        inner = self._normalise(x)
        target, unit = self.canvas.inverse(inner), unit_of(self.amplitude, x, self.unit)
        z = self.codec.encode(inner) * self.b_scale
        early, late = (1.0, self.b_scale) if self.quirks.late_division else (self.b_scale, 1.0)
        for restored in self.starts.reconstruct(self.denoiser, z, rng, count):
            normal = self.canvas.inverse(self.codec.decode(restored / early)) / late
            if unit is None:
                normal = normal.clamp(0, 1)
            fields = [(normal - target).square().mean(1)]
            if self.network is not None:
                fields.append(self.network.distance_any_axes(target.clamp(0, 1), normal))
            yield torch.stack(fields, 1), from_units(normal, unit)
