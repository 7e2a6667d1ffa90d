"""WaveNet-OOD: DDPM-OOD for signals, with a WaveNet that is conditioned on the noise level.

After the radio-signal variant of Graham et al., "Denoising diffusion models for out-of-distribution
detection", CVPR Workshops (VAND) 2023, arXiv 2211.07740:
https://github.com/ismaelmreno/ddpm-ood-signals (no paper), whose network is the starter WaveNet of
the RF Challenge (ICASSP 2024).

As there: T = 1000, Adam, noise predicted; PLMS from many starts, mean squared error over both
channels, z-scores. Differs, with the argument that restores theirs: the network is conditioned on
the timestep and has a receptive field of 6139 samples, theirs ignores the timestep and has 35
(`blind=True, layers=8, cycle=3, width=256`); amplitudes are in units of the training samples' root
mean square (`amplitude="none"`: as recorded; "sample": of each sample's own, so that loudness does
not count); z-scores are calibrated on calibration samples, theirs on those that are judged;
schedule as in DDPM-OOD, theirs of linear beta (`beta="linear_latent"`); the chains as well
(`lagged`, `leaking`, `final_noise`). A map is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule import ScheduleName, build_schedule
from ..engine.networks.wavenet import WaveNet
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Depth, Several
from ..engine.sampling.multi_start import MultiStart
from ..engine.training.loop import Training, train_module
from ..engine.transforms import spectral_distance as spectra
from ..engine.transforms.amplitude import (
    Amplitude,
    fit_unit,
    from_units,
    moving_average,
    to_units,
    unit_of,
)
from .base import Detection, Method

TRAINING = Training(steps=12_500, batch=40, lr=2.5e-5, clip=None, ema=None)


@dataclass(frozen=True)
class WaveNetOODQuirks:
    """What the code this follows does and this method does not by default.

    blind: the network ignores the noise level.
    lagged: the first step of PLMS is made once, so that all others lag behind.
    leaking: a chain begins with the history of the start below.
    final_noise: chains end at level 1.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.wavenet_ood import WaveNetOOD, WaveNetOODQuirks
    >>> quirks = WaveNetOODQuirks(final_noise=True)
    >>> WaveNetOOD(Spec(2, (64,)), width=4, layers=2, cycle=2, quirks=quirks).starts.final_levels
    [1]
    """

    blind: bool = False
    lagged: bool = False
    leaking: bool = False
    final_noise: bool = False


CORRECTED = WaveNetOODQuirks()


class WaveNetOOD(Method):
    """Reconstruct a signal from many levels, and score its errors in standard deviations.

    width, layers, cycle: of the WaveNet.
    beta: name of the schedule.
    amplitude: the unit of signals.
    sampling_steps, skip: levels of the grid, and every so many of them a start.
    spectral: the distance of short-time spectra is a second measure.
    calibration: number of calibration samples at most.
    smooth: samples of the signal that the map is averaged over.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.wavenet_ood import WaveNetOOD
    >>> method = WaveNetOOD(Spec(2, (64,)), width=4, layers=2, cycle=2, sampling_steps=10, skip=3)
    >>> method.starts.levels
    [101, 401, 701]
    """

    levels, published = (250, 500, 750, 1000), 1000
    ndims = frozenset({1})
    inference = frozenset({"smooth"})
    unit: Tensor  # (): the training samples' root mean square about silence

    def __init__(
        self, spec: Spec, *,
        width: Count = 64, layers: Depth = 30, cycle: Count = 10,
        beta: ScheduleName = "scaled_linear",
        amplitude: Amplitude = "train", training: Training = TRAINING,
        sampling_steps: Annotated[int, Meta(ge=2, le=1000)] = 100, skip: Count = 4,
        spectral: bool = False, calibration: Several = 256,
        smooth: Count = 32, quirks: WaveNetOODQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        net = WaveNet(spec.channels, width=width, layers=layers, cycle=cycle, blind=quirks.blind)
        about = f"amplitude by {amplitude}, {'blind ' * quirks.blind}WaveNet {layers} {cycle}"
        self.denoiser = Denoiser(net, build_schedule(beta), trained_on=about)
        self.starts = MultiStart(sampling_steps, skip, measures=1 + spectral, lagged=quirks.lagged,
            shared_history=quirks.leaking, final_noise=quirks.final_noise)  # fmt: skip
        self.plan = training
        self.amplitude: Amplitude = amplitude
        self.calibration, self.smooth = calibration, smooth
        self.spectral = spectral
        self.register_buffer("unit", torch.ones(()))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(to_units(x, self._amplitude_unit(x)), rng)

        self.starts.check_calibration_size(calibration)
        self.unit = fit_unit(self.amplitude, train).to(context.device)
        context.place(self)
        train_module(loss, self.denoiser, train, context, self.plan)
        retry_out_of_memory(
            lambda: self.starts.calibrate(
                self._measure_starts, calibration, context, self.calibration
            ),
            self, context, "calibrating", context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        score, map, normal = self.starts.detect(self._measure_starts, x, levels, rng)
        smooth = moving_average(map.flatten(0, 1), self.smooth).view_as(map)
        return Detection(score, smooth, normal)

    def _measure_starts(self, x: Tensor, rng: Rng, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        unit = self._amplitude_unit(x)
        z = to_units(x, unit)
        for restored in self.starts.reconstruct(self.denoiser, z, rng, count):
            fields = [(restored - z).square().mean(1)]
            if self.spectral:
                fields.append(spectra.spectral_distance(restored, z))
            yield torch.stack(fields, 1), from_units(restored, unit)

    def _amplitude_unit(self, x: Tensor) -> Tensor | None:
        return unit_of(self.amplitude, x, self.unit)
