"""AnomalyFilter: a diffusion model trained with masked noise reconstructs a signal without noise.

Obata, Chen, Matsubara, Zhu and Sakurai, "Selective Denoising Diffusion Model for Time Series
Anomaly Detection", 2026. https://arxiv.org/abs/2602.23662
https://github.com/KoheiObata/AnomalyFilter (no licence: written from the paper's description alone)

As described there: in training, Gaussian noise is masked value by value, by the toss of a coin, so
that the network learns which values are noisy as well as what the noise is; at inference no noise
is added to the signal, nor in the reverse steps, so that the network removes what does not look
normal and leaves the rest. For an ideal network a normal signal is reconstructed exactly.

Not in the sources that were read, and chosen here: the network (a UNet), the schedule, the share of
values with noise (one half), the noise level, and that the signal is scaled as a sample of that
level whose noise is all masked. The paper's numbers are therefore not claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import build_unet, side_divisor
from ..engine.networks.unet_config import OptionalUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Fraction, PositiveFraction
from ..engine.sampling.reconstruct import reconstruct
from ..engine.sampling.samplers import SamplingConfig
from ..engine.training.loop import Training, train_module
from ..engine.transforms.amplitude import (
    Amplitude,
    fit_unit,
    from_units,
    moving_average,
    to_units,
    unit_of,
)
from ..engine.transforms.resizing import ResizePad
from ..engine.transforms.signal_windows import unet_arguments
from .base import Detection, Method

NETWORK = OptionalUNetConfig()
SCHEDULE = ScheduleConfig()
TRAINING = Training(steps=20_000, batch=64, lr=2e-4)


class AnomalyFilter(Method):
    """Denoise a signal without adding noise, by a network that knows noise on some of the values.

    network: of the UNet; None for the one of other methods on signals.
    noise_share: the probability that a value has noise in training; 1 is a plain diffusion model.
    sampling_steps: network calls from the level down, at most; None is one for every level.
    eta: 1 for the mean of DDPM's reverse step, 0 for DDIM's step; neither draws noise.
    amplitude: the unit of signals.
    smooth: samples of the signal that the map is averaged over.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import OptionalUNetConfig
    >>> from adbench.methods.anomalyfilter import AnomalyFilter
    >>> network = OptionalUNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> AnomalyFilter(Spec(2, (61,)), network=network).canvas.padded_shape
    (62,)
    """

    levels, published = (50, 100, 250, 500, 750), 250
    ndims = frozenset({1})
    inference = frozenset(["sampling_steps", "eta", "smooth"])
    unit: Tensor  # (): of the amplitude of training samples

    def __init__(
        self, spec: Spec, *,
        network: OptionalUNetConfig = NETWORK, schedule: ScheduleConfig = SCHEDULE,
        noise_share: PositiveFraction = 0.5, training: Training = TRAINING,
        sampling_steps: Count | None = 50, eta: Fraction = 1.0,
        amplitude: Amplitude = "train", smooth: Count = 1,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        net = unet_arguments(spec.shape, {}, **network.overrides())
        self.canvas = ResizePad(
            spec.shape, None, side_divisor(net["widths"], network.fold or 1), low=0.0
        )
        self.noise = MaskedNoise(noise_share)
        self.denoiser = Denoiser(
            build_unet(1, spec.channels, **net), schedule.build(),
            trained_on=f"{self.noise}, amplitude by {amplitude}",
        )  # fmt: skip
        self.plan, self.chain = training, SamplingConfig(sampling_steps, eta)
        self.amplitude: Amplitude = amplitude
        self.smooth = smooth
        self.register_buffer("unit", torch.ones(()))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self._normalise(x), rng, noise=self.noise)

        self.unit = fit_unit(self.amplitude, train).to(context.device)
        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        unit, z = unit_of(self.amplitude, x, self.unit), self._normalise(x)
        ends = reconstruct(
            self.denoiser, z, levels, rng, sampling=self.chain, noise=no_noise
        ).squeeze(2)  # (L, N, C, padded)
        error = self.canvas.inverse((ends - z).square().mean(2))  # (L, N, *S)
        smooth = moving_average(error.flatten(0, 1), self.smooth).view_as(error)
        return Detection.from_map(smooth, from_units(self.canvas.inverse(ends), unit))

    def _normalise(self, x: Tensor) -> Tensor:
        return to_units(self.canvas.forward(x), unit_of(self.amplitude, x, self.unit))


@dataclass(frozen=True)
class MaskedNoise:
    """Gaussian noise on some of the values and none on the others, by the toss of a coin for each.

    share: the probability that a value has noise

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.anomalyfilter import MaskedNoise
    >>> noise = MaskedNoise(0.5)(Rng(["a"]), (1, 10_000), torch.tensor([1]))
    >>> round((noise != 0).double().mean().item(), 2)
    0.5
    """

    share: float

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        noisy = rng.fork("mask").uniform(shape) < self.share
        return rng.fork("values").normal(shape) * noisy


def no_noise(rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
    """Return zeros in place of noise, (N, C, *S).

    rng: one stream per sample; nothing is drawn
    shape: (C, *S)
    level: unused, of every sample

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.anomalyfilter import no_noise
    >>> no_noise(Rng(["a"]), (1, 2), torch.tensor([1]))
    tensor([[[0., 0.]]])
    """
    return torch.zeros(len(rng), *shape, device=rng.device)
