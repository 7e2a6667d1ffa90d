"""LDM: add noise to the latent code of a sample, and inpaint it where it is improbable.

Pinaya et al., "Fast Unsupervised Brain Anomaly Detection and Segmentation with Diffusion Models",
MICCAI 2022. https://arxiv.org/abs/2206.03461 The authors' pipeline was never released; parts of it
are in https://github.com/Project-MONAI/GenerativeModels.

`healing="masked"` is the paper's: the divergence of the reverse steps between levels 400 and 600
says which positions of the code are improbable; those above the 97.5th percentile of calibration
samples are inpainted from level 500, the others do not change. These numbers are from descriptions
of the paper, not from its code. `healing="plain"`, a baseline of Wolleb et al., arXiv 2403.11667,
adds noise to the whole code up to level 300 of 1000 and reconstructs it.

UNet and learning rates are those of MONAI's 2-D tutorial, on the VQ-VAE of that baseline (on the
tutorial's autoencoder: `coder="kl", beta="linear_latent", looks=0.001, adversary=0.01`, whose
discriminator then learns at 5e-4 and counts after a tenth of the training). Differs from the pieces
in MONAI, with the argument that restores theirs: latents are not clamped to -1..1 (`clamped`), and
have unit variance by a factor that is measured on 512 samples and stored (`measured`: theirs on the
first batch of 64); noise is drawn anew for every level of the divergence (`one_noise`); the
autoencoder is trained by its error alone unless `looks` and `adversary` have a weight. Signals are
not resized and get the network `signal_windows.SIGNAL_UNET`; the autoencoder sees them about 0, in
the unit that `amplitude` names, and residuals are measured in it, as in DDPM-OOD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.autoencoder import KL, VQ, VQGAN
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import build_unet, side_divisor
from ..engine.networks.discriminator import adversary_options
from ..engine.networks.unet_config import OptionalUNetConfig
from ..engine.noise.noise import gaussian
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Decay,
    Fraction,
    Level,
    Many,
    Natural,
    NonNegative,
    Positive,
)
from ..engine.sampling.reconstruct import SamplingConfig, reconstruct
from ..engine.sampling.repaint import inpaint
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.amplitude import Amplitude, fit_unit, from_units, to_units, unit_of
from ..engine.transforms.blur import gaussian_blur
from ..engine.transforms.resizing import ResizePad, resize
from ..engine.transforms.signal_windows import unet_arguments
from .base import Detection, Method

UNET_DEFAULTS = {"widths": (128, 256, 512), "res_blocks": 2, "attention": (False, True, True),
        "head_channels": (0, 256, 512)}  # fmt: skip


@dataclass(frozen=True)
class CodecConfig:
    """The autoencoder.

    coder: a VQ-VAE; an autoencoder with a Kullback-Leibler term; or one of its design around a
    codebook ("vqgan").
    coder_widths: channels after each halving of the VQ-VAE, or at each resolution of the others;
    None for (128, 256) or (128, 128, 256).
    coder_activation: an activation before the last convolutions of the KL autoencoder, which makes
    it one that diffusers can open.
    latent_channels: None for 8 or 3.
    codes, code_decay: of a codebook.
    latent_kind: whether diffusion is on quantised codes, or on codes that decoding quantises.
    looks, adversary: weights of a perceptual and of an adversarial loss.
    adversary_lr: learning rate of the discriminator.
    adversary_start: the step from which on the adversarial loss counts; the tutorial's condition
    `epoch > 10`, of epochs counted from 0, leaves out 11 of 100, 2563 of 23300 steps.
    adversary_warmup: steps from there in which its weight rises linearly.
    coder_steps, coder_lr: of its training, whose batch is the UNet's.
    measured: number of samples that the unit variance of the latents is measured on.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ldm import LDM, CodecConfig
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> codec = CodecConfig(coder="kl", coder_widths=(4, 8), latent_channels=2)
    >>> LDM(Spec(1, (16, 16)), size=None, codec=codec, network=network).codec.latent
    (2, 8, 8)
    """

    coder: Literal["vq", "kl", "vqgan"] = "vq"
    coder_widths: Many[Count] | None = None
    coder_activation: bool = False
    latent_channels: Count | None = None
    codes: Count = 256
    code_decay: Decay = 0.99
    latent_kind: Literal["quantised", "continuous"] = "quantised"
    looks: NonNegative = 0.0
    adversary: NonNegative = 0.0
    adversary_lr: Positive = 5e-4
    adversary_start: Natural = 2_563
    adversary_warmup: Natural = 0
    coder_steps: Count = 23_300
    coder_lr: Positive = 1e-4
    measured: Count = 512


@dataclass(frozen=True)
class LDMQuirks:
    """What the pieces in MONAI do and this method does not by default.

    clamped: estimates of latents are clamped to -1..1.
    one_noise: the divergence takes the same noise at every level.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ldm import LDM, CodecConfig, LDMQuirks
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> codec = CodecConfig(coder_widths=(4, 8), latent_channels=2)
    >>> method = LDM(Spec(1, (16, 16)), size=None, codec=codec, network=network,
    ...     quirks=LDMQuirks(clamped=True))
    >>> method.denoiser.clip
    (-1.0, 1.0)
    """

    clamped: bool = False
    one_noise: bool = False


@dataclass(frozen=True)
class MapConfig:
    """How the map and the score are made.

    shown: the map: the residual of the input, or of the decoded code ("decoded"); "weighted", that
    of the input times `weight`, the mask or the divergence, after a blur with standard deviation
    `blur` in pixels; "divergence", the divergence itself.
    judged: the score is the mean of the map, or of the divergence.

    >>> from adbench.methods.ldm import LDM, MapConfig
    >>> set(vars(MapConfig(shown="divergence"))) <= LDM.inference  # no other training is needed
    True
    """

    shown: Literal["input", "decoded", "weighted", "divergence"] = "input"
    weight: Literal["mask", "kappa"] = "mask"
    blur: NonNegative = 2.0
    judged: Literal["map", "divergence"] = "map"


CODEC = CodecConfig()
MAP = MapConfig()
NETWORK = OptionalUNetConfig()
SCHEDULE = ScheduleConfig(beta="scaled_linear")
TRAINING = Training(steps=46_600, batch=24, lr=1e-4, clip=None, ema=None)
CORRECTED = LDMQuirks()


class LDM(Method):
    """Inpaint improbable positions of a latent code, or reconstruct all of it; the map is the
    absolute residual, mean over channels.

    codec: of the autoencoder.
    network: None for widths (128, 256, 512), two residual blocks, attention at the lower two
    resolutions with 256 and 512 channels a head.
    divergence: the lowest and the highest level of it, and how many, evenly spaced.
    quantile: of the divergence of calibration samples, above which a position is inpainted.
    calibration: number of calibration samples at most.
    healing: inpaint improbable positions ("masked"), or reconstruct the whole code ("plain").
    sampling_steps: network calls of a chain, None for one per level.
    maps: how the map and the score are made.
    amplitude: the unit of signals.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ldm import LDM, CodecConfig
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> codec = CodecConfig(coder_widths=(4, 8), latent_channels=2)
    >>> method = LDM(Spec(1, (16, 16)), size=None, codec=codec, network=network,
    ...     divergence=(400, 600, 3))
    >>> method.divergence_levels, method.tau.shape  # a threshold for each position of the code
    ([400, 500, 600], torch.Size([1, 4, 4]))
    """

    levels, published = (100, 200, 300, 400, 500, 600, 750), 500
    inference = frozenset(["healing", "sampling_steps", "shown", "weight", "blur", "judged"])
    tau: Tensor  # (1, *S'): above it a place of the code is improbable
    unit: Tensor | None  # (), of the amplitude of signals

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, codec: CodecConfig = CODEC, network: OptionalUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, training: Training = TRAINING,
        divergence: Annotated[Sequence[Level], Meta(min_length=3, max_length=3)] = (400, 600, 11),
        quantile: Fraction = 0.975,
        calibration: Count = 256, healing: Literal["plain", "masked"] = "masked",
        sampling_steps: Count | None = None,
        maps: MapConfig = MAP, amplitude: Amplitude = "train",
        quirks: LDMQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        low, high, count = divergence
        if not (2 <= low <= high <= 1000 and count >= 1):
            raise ValueError(
                f"divergence is taken at 2 <= low <= high <= 1000, at least once: {divergence}"
            )
        net = unet_arguments(spec.shape, UNET_DEFAULTS, **network.overrides())
        wide = codec.coder_widths or ((128, 256) if codec.coder == "vq" else (128, 128, 256))
        halved = 2 ** len(wide) if codec.coder == "vq" else side_divisor(wide)
        self.canvas = ResizePad(
            spec.shape, size, halved * side_divisor(net["widths"], network.fold or 1), low=0.0
        )
        signals = len(spec.shape) == 1
        self.amplitude: Amplitude | None = amplitude if signals else None
        self.register_buffer("unit", torch.ones(()) if signals else None)
        inner = (spec.channels, *self.canvas.padded_shape)
        self.plan = training
        self.codec_plan = Training(codec.coder_steps, training.batch, codec.coder_lr,
            clip=training.clip, ema=None, decay=training.decay)  # fmt: skip
        adversary = adversary_options(codec.adversary, codec.adversary_lr, self.codec_plan,
            starts=codec.adversary_start, warmup=codec.adversary_warmup)  # fmt: skip
        if codec.coder == "vq":
            self.codec = VQ(inner, latent_channels=codec.latent_channels or 8, widths=wide,
                codes=codec.codes, decay=codec.code_decay, kind=codec.latent_kind,
                looks=codec.looks, adversary=adversary)  # fmt: skip
        elif codec.coder == "vqgan":
            self.codec = VQGAN(inner, latent_channels=codec.latent_channels or 3, widths=wide,
                codes=codec.codes, decay=codec.code_decay, kind=codec.latent_kind,
                looks=codec.looks, adversary=adversary)  # fmt: skip
        else:
            self.codec = KL(inner, latent_channels=codec.latent_channels or 3, widths=wide,
                activation=codec.coder_activation, looks=codec.looks,
                adversary=adversary)  # fmt: skip
        self.denoiser = Denoiser(
            build_unet(len(spec.shape), self.codec.latent[0], **net), schedule.build(),
            clip=(-1.0, 1.0) if quirks.clamped else None, 
            trained_on=f"codes of {self.canvas}" + f", amplitude by {amplitude}" * signals,
        )  # fmt: skip
        self.divergence_levels = [
            round(low + (high - low) * i / max(count - 1, 1)) for i in range(count)
        ]
        self.one_noise, self.quantile, self.calibration = quirks.one_noise, quantile, calibration
        self.healing, self.sampling_steps = healing, sampling_steps
        self.shown, self.weight, self.blur, self.judged = (
            maps.shown,
            maps.weight,
            maps.blur,
            maps.judged,
        )
        self.measured = codec.measured
        self.register_buffer("tau", torch.zeros(1, *self.codec.latent[1:]))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if (self.healing == "masked" or self.shown == "weighted") and not len(calibration):
            raise ValueError("what is improbable is told by held-out samples; there are none")

        def denoised(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.codec.encode(self._normalise(x)), rng)

        if self.amplitude is not None:
            self.unit = fit_unit(self.amplitude, train).to(context.device)
        CodecTraining(self.codec, self.codec_plan, self.canvas, max_samples=self.measured,
            amplitude=self.amplitude, unit=self.unit).train(train, context)  # fmt: skip
        train_module(denoised, self.denoiser, train, context, self.plan, "diffusion")
        context.place(self)
        retry_out_of_memory(
            lambda: self._calibrate(calibration, context), self, context, "calibrating",
            context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, unit = self._normalise(x), unit_of(self.amplitude, x, self.unit)
        z = self.codec.encode(inner)
        uses = {self.healing, self.shown, self.judged}
        kappa = self.divergence(z, rng) if uses - {"plain", "input", "decoded", "map"} else None
        chain = SamplingConfig(self.sampling_steps)
        if self.healing == "plain" or kappa is None:
            healed = reconstruct(self.denoiser, z, levels, rng, sampling=chain)[:, :, 0]
        else:
            region = (kappa > self.tau)[:, None]
            each = [inpaint(self.denoiser, z, z, region, at, rng, sampling=chain) for at in levels]
            healed = torch.stack(each)
        back = self.codec.decode(healed.flatten(0, 1)).view(len(levels), *inner.shape)
        normal = self.canvas.inverse(back)  # (L, N, C, *S)
        decoded = self.shown == "decoded"
        target = self.canvas.inverse(self.codec.decode(z)) if decoded else to_units(x, unit)
        map = (normal - target).abs().mean(2)
        if kappa is not None and self.shown in ("weighted", "divergence"):
            alone = self.shown == "divergence"
            weight = kappa if alone or self.weight == "kappa" else (kappa > self.tau).to(x.dtype)
            wide = self.canvas.inverse(resize(weight[:, None], self.canvas.padded_shape))[:, 0]
            map = wide.expand_as(map) if alone else map * gaussian_blur(wide, self.blur)
        detection = Detection.from_map(map, from_units(normal, unit))
        if kappa is None or self.judged == "map":
            return detection
        score = kappa.flatten(1).mean(1)
        return replace(detection, score=score.expand(len(levels), -1))

    def _normalise(self, x: Tensor) -> Tensor:
        return to_units(self.canvas.forward(x), unit_of(self.amplitude, x, self.unit))

    def divergence(self, z: Tensor, rng: Rng) -> Tensor:
        """Of the reverse steps, in nats, summed over a code's channels, mean over levels, (N, *S'):
        how improbable each place is."""
        process, total = self.denoiser.process_as(Gaussian), torch.zeros_like(z[:, 0])
        for at in self.divergence_levels:
            here = torch.full((len(z),), process.schedule.to_level(at), device=z.device)
            stream = rng.fork("divergence").at(torch.ones_like(here) if self.one_noise else here)
            noise = gaussian(stream, z.shape[1:], here)
            guess = self.denoiser(process.add_noise(z, here, noise), here)
            apart = process.posterior_kl(z, guess, here, here - 1)
            for channel in range(z.shape[1]):  # in this order, in any batch
                total = total + apart[:, channel] / len(self.divergence_levels)
        return total

    @torch.no_grad()
    def _calibrate(self, calibration: Split, context: TrainingContext) -> None:
        """tau per place where there are samples enough to tell, else of all places together."""
        chosen = [calibration[i] for i in evenly_spaced_indices(len(calibration), self.calibration)]
        if not chosen:
            return
        x = torch.stack([s.x for s in chosen]).to(context.device)
        rng = Rng([s.key for s in chosen], context.seed, context.device).fork("calibrate")
        kappa = self.divergence(self.codec.encode(self._normalise(x)), rng).double()
        if len(chosen) * (1 - self.quantile) >= 1:
            parts = kappa.flatten(1).split(4096, 1)  # torch takes quantiles of so many at once
            tau = torch.cat([part.quantile(self.quantile, dim=0) for part in parts])
            self.tau.copy_(tau.view_as(self.tau))
        else:
            at = min(int(self.quantile * kappa.numel()), kappa.numel() - 1)
            self.tau.fill_(kappa.flatten().sort().values[at])


class PlainLDM(LDM):
    """The round trip of `healing="plain"`, whose published level is another.

    >>> from adbench.methods.ldm import LDM, PlainLDM
    >>> LDM.published, PlainLDM.published
    (500, 300)
    """

    published = 300
