"""DDPM-OOD: reconstruct a sample from many levels, and score its errors in standard deviations.

Graham et al., "Denoising diffusion models for out-of-distribution detection", CVPR Workshops (VAND)
2023. https://arxiv.org/abs/2211.07740 https://github.com/marksgraham/ddpm-ood

As in the authors' code: data in [0, 1]; PLMS on a grid of 100 levels, from every `skip`-th of them
with noise of its own; the squared error of each start in standard deviations of calibration
samples; the score is the mean over starts. Differs, with the argument that restores theirs: the
first step is made twice, as in PLMS (`lagged`); chains end at a clean sample (`final_noise`: at
level 1, which leaves an error of 0.0015); intensities are the data set's (`rescale` stretches each
image to [0, 1]); every chain starts without a history (`leaking`: with that of the start below);
images smaller than `size` are not enlarged. Theirs are scores alone; the map here is the mean over
starts of the squared error in the same standard deviations, the reconstruction the mean over
starts. The noise level is the highest start.

Signals follow the radio-signal variant, https://github.com/ismaelmreno/ddpm-ood-signals: they are
not resized, the network sees them about 0, reconstructions are not clamped, and the network has no
norm before its last convolution. Differs: the network attends at its lowest resolution alone and
the schedule is that of images (theirs: `attention=(True, True, True), beta="linear_latent"`);
amplitudes are in units of the training samples' root mean square, as in WaveNet-OOD
(`amplitude="none"`: as recorded, theirs; "sample": of each sample's own), and so are errors.

The weights are those with the lowest loss on calibration samples (`select="last"`: those of the
last step). Theirs are of the epoch with the lowest mean training loss, which is approximated so: a
step's own loss depends on the levels it draws. With `process="flow"` the same is done by rectified
flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.schedule import ScheduleName, build_schedule, shift_snr
from ..engine.features.pretrained import FeaturesName
from ..engine.features.pretrained import build_perceptual as perceptual_network
from ..engine.networks.diffusion_unet import build_unet, side_divisor
from ..engine.networks.unet_config import OptionalUNetConfig
from ..engine.noise.noise import NoiseName, build_noise
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Positive, Several
from ..engine.sampling.multi_start import MultiStart
from ..engine.sampling.process_config import GAUSSIAN_PROCESS, ProcessConfig
from ..engine.training.loop import Training, train_module
from ..engine.transforms import spectral_distance as spectra
from ..engine.transforms.amplitude import (
    PEAK,
    SILENCE,
    Amplitude,
    fit_unit,
    from_units,
    to_units,
    unit_of,
)
from ..engine.transforms.resizing import ResizePad
from ..engine.transforms.signal_windows import unet_arguments
from .base import Detection, Method

UNET_DEFAULTS = {"widths": (128, 256, 256), "res_blocks": 1, "attention": (False, False, True),
        "head_channels": 256}  # fmt: skip


NETWORK = OptionalUNetConfig()
TRAINING = Training(steps=33_400, batch=512, lr=2.5e-5, clip=None, ema=None, select="best")


@dataclass(frozen=True)
class DDPMOODQuirks:
    """What the authors' code does and this method does not by default.

    rescale: each image or volume is stretched to [0, 1].
    lagged: the first step of PLMS is made once, so that all others lag behind.
    leaking: a chain begins with the history of the start below.
    final_noise: chains end at level 1, of the schedule before `snr_shift`.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ddpm_ood import DDPMOOD, DDPMOODQuirks
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> quirks = DDPMOODQuirks(final_noise=True)
    >>> DDPMOOD(Spec(1, (16, 16)), network=network, quirks=quirks).starts.final_levels
    [1]
    """

    rescale: bool = False
    lagged: bool = False
    leaking: bool = False
    final_noise: bool = False


CORRECTED = DDPMOODQuirks()


class DDPMOOD(Method):
    """Reconstruct a sample from many levels, and score its errors in standard deviations.

    network: None for widths (128, 256, 256), one residual block, attention at the lowest resolution
    with 256 channels a head; of signals (64, 128, 192), two, at the lowest with 64.
    snr_shift: factor of the schedule's signal-to-noise ratio.
    sampling_steps: levels of the grid.
    skip: a chain starts at every so many of them, from the second lowest up; a noise level below
    the lowest start stands for that start.
    bounded: estimates are clamped to [0, 1] in the chain, those of signals to +-6 units (of
    `amplitude="none"` to the range of the data); theirs are not, but short trainings need it.
    perceptual: name of the network whose distance is a second measure, of volumes by planes.
    spectral: the distance of short-time spectra is a second measure, of signals.
    calibration: number of calibration samples at most.
    amplitude: the unit of signals.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.ddpm_ood import DDPMOOD
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> DDPMOOD(Spec(1, (16, 16)), network=network, sampling_steps=10, skip=3).starts.levels
    [101, 401, 701]
    """

    levels, published = (250, 500, 750, 1000), 1000
    selects_best = True
    unit: Tensor | None  # (), of the amplitude of signals

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 32, network: OptionalUNetConfig = NETWORK,
        beta: ScheduleName = "scaled_linear",
        snr_shift: Positive = 1.0, noise: NoiseName = "gaussian", training: Training = TRAINING,
        sampling_steps: Annotated[int, Meta(ge=2, le=1000)] = 100, skip: Count = 4,
        bounded: bool = False,
        perceptual: FeaturesName | None = None, spectral: bool = False, calibration: Several = 256,
        amplitude: Amplitude = "train", process: ProcessConfig = GAUSSIAN_PROCESS,
        quirks: DDPMOODQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        axes = len(spec.shape)
        if (perceptual is not None and axes == 1) or (spectral and axes != 1):
            raise ValueError("perceptual is of images and volumes, spectral of signals")
        net = unet_arguments(spec.shape, UNET_DEFAULTS, **network.overrides())
        largest = None if size is None else min(size, max(spec.shape))
        self.canvas = ResizePad(
            spec.shape, largest, side_divisor(net["widths"], network.fold or 1), low=0.0
        )
        self.noise, self.network = (
            build_noise(noise),
            None if perceptual is None else perceptual_network(perceptual),
        )
        self.spectral = spectral
        self.amplitude: Amplitude | None = amplitude if axes == 1 else None
        self.register_buffer("unit", torch.ones(()) if axes == 1 else None)
        about = f"{self.noise} on {self.canvas}"
        if axes == 1:
            about += f", amplitude by {amplitude}"
        if self.network is not None:
            self.network.check_sides(self.canvas.padded_shape)
            about += f", z by {self.network.weights_id}"
        peak = SILENCE if amplitude == "none" else PEAK
        clamp = (-peak, peak) if axes == 1 else self.canvas.range
        schedule = build_schedule(beta)
        self.ineffective_arguments |= process.ineffective("beta", "snr_shift")
        self.denoiser = process.build_denoiser(
            build_unet(axes, spec.channels, **net), shift_snr(schedule, snr_shift),
            clip=clamp if bounded else None, trained_on=about,
        )  # fmt: skip
        self.plan = training
        self.starts = MultiStart(
            sampling_steps, skip, measures=1 + (perceptual is not None) + spectral,
            sampler=process.solver if process.is_flow else "plms",
            lagged=quirks.lagged, shared_history=quirks.leaking, final_noise=quirks.final_noise,
            final_schedule=None if snr_shift == 1 or process.is_flow else schedule,
        )  # fmt: skip
        self.rescale, self.calibration = quirks.rescale and axes > 1, calibration

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        self.starts.check_calibration_size(calibration)

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self._normalise(x), rng, noise=self.noise)

        if self.amplitude is not None:
            self.unit = fit_unit(self.amplitude, train).to(context.device)
        train_module(loss, self.denoiser, train, context, self.plan, validation=calibration)
        context.place(self)
        retry_out_of_memory(
            lambda: self.starts.calibrate(
                self._measure_starts, calibration, context, self.calibration
            ),
            self, context, "calibrating", context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection(
            *self.starts.detect(self._measure_starts, x, levels, rng, average_reconstructions=True)
        )

    def _normalise(self, x: Tensor) -> Tensor:
        if self.rescale:
            shape = (-1, *[1] * (x.ndim - 1))
            low, high = x.flatten(1).aminmax(dim=1)
            x = (x - low.view(shape)) / (high - low).clamp(min=1e-6).view(shape)
        return to_units(self.canvas.forward(x), unit_of(self.amplitude, x, self.unit))

    def _measure_starts(self, x: Tensor, rng: Rng, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        inner = self._normalise(x)
        target, unit = self.canvas.inverse(inner), unit_of(self.amplitude, x, self.unit)
        for back in self.starts.reconstruct(self.denoiser, inner, rng, count, self.noise):
            restored = self.canvas.inverse(back)
            if unit is None:
                restored = restored.clamp(0, 1)
            fields = [(restored - target).square().mean(1)]
            if self.network is not None:
                fields.append(self.network.distance_any_axes(target.clamp(0, 1), restored))
            if self.spectral:
                fields.append(spectra.spectral_distance(restored, target))
            yield torch.stack(fields, 1), from_units(restored, unit)
