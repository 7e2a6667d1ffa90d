"""Baselines for signals: one feature, and its distance from that of normal training samples.

RMS measures loudness, kurtosis bursts, spectral flatness the likeness to noise. A detector that
loses to one of them has learnt less than a single number says; where amplitudes are not normalised,
RMS alone separates many radio sources.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.transforms.amplitude import SILENCE, power
from .base import Detection, Method


class SignalFeature(Method):
    """Score a signal by the distance of its feature from the mean of the normal training samples,
    in their standard deviations. There is no map.

    >>> import torch
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.signal_baselines import SignalFeature
    >>> class Peak(SignalFeature):
    ...     def feature(self, x):
    ...         return x.double().flatten(1).amax(1)
    >>> method = Peak(Spec(1, (8,)))
    >>> train = [Sample(torch.full((1, 8), x), f"{x}", f"{x}", False) for x in (0.4, 0.5, 0.6)]
    >>> method.fit(train, [], TrainingContext())
    >>> method.score(torch.full((1, 1, 8), 0.7), Rng(["a"]))  # (0.7 - 0.5) / 0.1
    tensor([2.0000])
    """

    ndims = frozenset({1})
    mean: Tensor  # () of the feature, float64
    deviation: Tensor  # ()

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.shape[0] < 8:
            raise ValueError(f"{spec.shape[0]} samples say nothing of a signal; 8 are the fewest")
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))

    @abstractmethod
    def feature(self, x: Tensor) -> Tensor:
        """Of (N, C, L) in [0, 1], 0.5 being silence: (N,) float64."""

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if len(train) < 2:
            raise ValueError(f"a deviation is taken from training samples; {len(train)} is too few")
        rows = torch.cat([self.feature(train[i].x[None]) for i in range(len(train))])
        self.mean.copy_(rows.mean())
        self.deviation.copy_(rows.std().clamp(min=1e-9))

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        rows = torch.cat([self.feature(row[None]) for row in x])  # one by one: alike in any batch
        score = ((rows - self.mean) / self.deviation).abs().to(x.dtype)
        return Detection(score.expand(len(levels), -1))


class RMS(SignalFeature):
    """The root mean square over all channels, in decibels; independent of the phase.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.signal_baselines import RMS
    >>> loud, soft = (torch.full((1, 1, 8), 0.5 + a) for a in (0.4, 0.04))
    >>> (RMS(Spec(1, (8,))).feature(loud) - RMS(Spec(1, (8,))).feature(soft)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """

    def feature(self, x: Tensor) -> Tensor:
        return 10 * power(x).clamp(min=1e-12).log10()


class Kurtosis(SignalFeature):
    """The kurtosis of the envelope (the root sum of squares of the channels): its mean fourth power
    over the square of its mean square. 1 for a constant envelope, 2 for complex white noise, more
    for rare bursts.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.signal_baselines import Kurtosis
    >>> constant, burst = torch.full((1, 1, 8), 0.75), torch.full((1, 1, 8), 0.5)
    >>> burst[..., 0] = 1.0
    >>> method = Kurtosis(Spec(1, (8,)))
    >>> method.feature(constant).item(), method.feature(burst).item()
    (1.0, 8.0)
    """

    def feature(self, x: Tensor) -> Tensor:
        envelope = (x - SILENCE).double().square().sum(1)
        return envelope.square().mean(1) / envelope.mean(1).square().clamp(min=1e-24)


class SpectralFlatness(SignalFeature):
    """The spectral flatness: the geometric over the arithmetic mean of the power spectrum, in
    decibels; of the complex signal where there are two channels, else the mean over channels. Far
    below 0 for a tone, near -2.5 for white noise.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.signal_baselines import SpectralFlatness
    >>> tone = 0.5 + torch.arange(8).mul(torch.pi / 2).cos().view(1, 1, 8) / 4
    >>> impulse = torch.full((1, 1, 8), 0.5)
    >>> impulse[..., 0] = 1.0
    >>> method = SpectralFlatness(Spec(1, (8,)))
    >>> method.feature(impulse).abs().item() < 1e-6, method.feature(tone).item() < -20
    (True, True)
    """

    def feature(self, x: Tensor) -> Tensor:
        wave = (x - SILENCE).double()
        if wave.shape[1] == 2:
            wave = torch.complex(wave[:, :1], wave[:, 1:])
            spectrum = torch.fft.fft(wave, dim=2).abs().square()
        else:
            spectrum = torch.fft.rfft(wave, dim=2).abs().square()
        spectrum = spectrum.clamp(min=1e-18)
        return (10 * (spectrum.log10().mean(2) - spectrum.mean(2).log10())).mean(1)
