"""AE-1D: the reconstruction error of a small convolutional autoencoder of signals; no diffusion.

The autoencoder baseline of https://github.com/ismaelmreno/ddpm-ood-signals (no paper), whose
network is MONAI's AutoEncoder: three convolutions of stride 2 and back, instance norms, PReLU.

As there: channels (16, 32, 64), plain squared error. Differs: amplitudes are in units of the
training samples' root mean square (`amplitude="none"`: as they come; "sample": of each its own);
the error is in standard deviations of calibration samples, and reaches the table (theirs is dropped
by a filter for noise levels); a map is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ..datasets.base import Spec, Split
from ..engine.runtime.context import BatchedModule, TrainingContext
from ..engine.runtime.fixed_batches import apply_in_batches
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Several
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.amplitude import SILENCE, moving_average, rms, rms_unit
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

TRAINING = Training(steps=10_000, batch=40, lr=2.5e-5, clip=None, ema=None)


class AE1D(Method):
    """AE-1D: z-scores of an autoencoder's squared error, for signals.

    widths: channels after each halving.
    amplitude: the unit of signals: the training samples' root mean square, each sample's own, or
        none.
    calibration: number of calibration samples that the z-scores are taken from.
    smooth: length of the map's moving average, in samples of the signal.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.ae1d import AE1D
    >>> AE1D(Spec(2, (64,)), widths=(4, 8)).canvas.padded_shape
    (64,)
    """

    ndims = frozenset({1})
    inference = frozenset({"smooth"})
    unit: Tensor  # (): the training samples' root mean square about silence
    mean: Tensor  # () of the squared error of calibration samples
    deviation: Tensor  # ()

    def __init__(
        self, spec: Spec, *,
        widths: Many[Count] = (16, 32, 64), training: Training = TRAINING,
        amplitude: Literal["train", "sample", "none"] = "train",
        calibration: Several = 256, smooth: Count = 32,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, None, 2 ** len(widths), low=0.0)
        shortest = self.canvas.padded_shape[0] // 2 ** len(widths)
        if shortest < 2:
            raise ValueError(
                f"{spec.shape[0]} samples are too short to be halved {len(widths)} times"
            )
        self.coder = SignalAutoencoder(spec.channels, widths)
        self.plan = training
        self.amplitude, self.calibration, self.smooth = amplitude, calibration, smooth
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            z = self._normalise(x, self._amplitude_unit(x))
            return (self.coder(z) - z).square().flatten(1).mean(1)

        indices = evenly_spaced_indices(len(calibration), self.calibration)
        if len(indices) < 2:
            raise ValueError(
                f"AE-1D takes z-scores from calibration samples; {len(indices)} are too few"
            )
        if self.amplitude == "train":
            self.unit.copy_(rms_unit(train))
        context.place(self)
        train_module(loss, self.coder, train, context, self.plan)
        x = torch.stack([calibration[i].x for i in indices]).to(context.device)
        with torch.no_grad():
            errors = self._reconstruction_error(x)[0].double().mean(1)
        self.mean.copy_(errors.mean())
        self.deviation.copy_(errors.std().clamp(min=1e-9))

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        error, normal = self._reconstruction_error(x)
        score = (error.mean(1) - self.mean) / self.deviation
        error_map = moving_average(error, self.smooth) / self.deviation
        count = len(levels)
        return Detection(
            score.expand(count, -1),
            error_map.expand(count, *error_map.shape),
            normal.expand(count, *normal.shape),
        )

    def _normalise(self, x: Tensor, amplitude: Tensor) -> Tensor:
        return (self.canvas.forward(x) - SILENCE) / amplitude

    def _reconstruction_error(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The squared error (N, L) in units of power, and the reconstruction (N, C, L)."""
        unit = self._amplitude_unit(x)
        normal = self.canvas.inverse(self.coder(self._normalise(x, unit)) * unit + SILENCE)
        return ((normal - x) / unit).square().mean(1), normal

    def _amplitude_unit(self, x: Tensor) -> Tensor:
        if self.amplitude == "sample":
            return rms(x)
        return self.unit.to(x.device)


class SignalAutoencoder(BatchedModule):
    """MONAI's AutoEncoder of kernel 3 and stride 2, written out: (N, C, L) -> (N, C, L).

    channels: C.
    widths: channels after each halving.

    >>> import torch
    >>> from adbench.methods.ae1d import SignalAutoencoder
    >>> SignalAutoencoder(2, (4, 8))(torch.zeros(3, 2, 64)).shape
    torch.Size([3, 2, 64])
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in pairwise([channels, *widths]):
            parts += [nn.Conv1d(before, after, 3, 2, 1), nn.InstanceNorm1d(after), nn.PReLU()]
        for before, after in pairwise([*reversed(widths), channels]):
            parts += [
                nn.ConvTranspose1d(before, after, 3, 2, 1, 1),
                nn.InstanceNorm1d(after),
                nn.PReLU(),
            ]
        self.net = nn.Sequential(*parts[:-2])

    def forward(self, x: Tensor) -> Tensor:
        return (
            self._apply_net(x)
            if self.training
            else apply_in_batches(self._apply_net, self.batch, x)
        )

    def _apply_net(self, x: Tensor) -> Tensor:
        return self.call_net(lambda net, rows: net(rows), x)
