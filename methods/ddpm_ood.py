"""DDPM-OOD: restore a sample from many levels, and see how much worse it goes than normal.

Graham et al., "Denoising diffusion models for out-of-distribution detection", CVPR Workshops (VAND)
2023. https://arxiv.org/abs/2211.07740 https://github.com/marksgraham/ddpm-ood

As in the authors' code: data in [0, 1]; PLMS on a grid of 100 levels, from every `skip`-th of them
with noise of its own; each start's squared error as standard deviations from that of held-out
normal samples; the mean over starts is the score. Differs, and named where an argument brings
theirs back: the first step is made twice, as PLMS has it (`lagged`); chains end at a clean sample
(`final_noise`: at level 1, which leaves an error of 0.0015); intensities are the data set's
(`rescale` stretches each sample to [0, 1]). Every chain starts without a history, where theirs
takes over that of the start below. A map is added, theirs are scores alone: the mean over starts
of the squared error in held-out deviations; for looking at there is the mean of what they restore.
The noise level is the highest start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.canvas import Canvas
from ..engine.denoiser import Denoiser
from ..engine.features import perceptual as network
from ..engine.nets import divisor, unet
from ..engine.noise import named
from ..engine.rng import Rng
from ..engine.run import Run
from ..engine.schedule import Schedule, schedule
from ..engine.starts import Starts
from ..engine.train import Training, minimise
from .base import Detection, Method


class DDPMOOD(Method):
    """sampling_steps: levels of the grid. skip: every so many of them a chain starts, from the
    second lowest up. bounded: estimates are clamped to [0, 1] on the way, which theirs are not but
    short trainings need. perceptual: features whose distance is added as a second measure, for
    images. snr_shift: how many times the schedule's signal-to-noise. calibration: held-out samples
    looked at. A level below the lowest start stands for that start alone.
    """

    levels, published = (250, 500, 750, 1000), 1000

    def __init__(
        self, spec: Spec, *,
        size: int | None = 32, widths: Sequence[int] = (128, 256, 256), res_blocks: int = 1,
        attention: Sequence[bool] = (False, False, True), head_channels: int = 256,
        beta: str = "scaled_linear", snr_shift: float = 1.0, noise: str = "gaussian",
        steps: int = 33_400, batch: int = 512, lr: float = 2.5e-5, clip: float | None = None,
        ema: float | None = None, ema_warm: bool = False,
        decay: Literal["none", "cosine"] = "none", rescale: bool = False,
        sampling_steps: int = 100, skip: int = 4, lagged: bool = False, final_noise: bool = False,
        bounded: bool = False, perceptual: str | None = None, calibration: int = 256,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if perceptual is not None and len(spec.shape) != 2:
            raise ValueError(f"perceptual distance is of images, not of {len(spec.shape)} axes")
        self.canvas = Canvas(spec.shape, size, divisor(widths), low=0.0)
        self.noise, self.network = named(noise), None if perceptual is None else network(perceptual)
        net = unet(len(spec.shape), spec.channels, widths, res_blocks=res_blocks,
            attention=attention, head_channels=head_channels)  # fmt: skip
        about = f"{self.noise} on {self.canvas}"
        if self.network is not None:
            about += f", z by {self.network.identity}"
        clamp = self.canvas.range if bounded else None
        self.denoiser = Denoiser(net, shifted(schedule(beta), snr_shift), clip=clamp, about=about)
        self.plan = Training(steps, batch, lr, clip=clip, ema=ema, ema_warm=ema_warm, decay=decay)
        self.starts = Starts(
            sampling_steps, skip, measures=1 + (self.network is not None), lagged=lagged,
            final_noise=final_noise,
        )  # fmt: skip
        self.rescale, self.calibration = rescale, calibration

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        self.starts.enough(held_out)

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self._entered(x), rng, noise=self.noise)

        minimise(loss, self.denoiser, train, run, self.plan)
        run.place(self)
        self.starts.calibrate(self._looks, held_out, run, self.calibration)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection(*self.starts.judge(self._looks, x, levels, rng, averaged=True))

    def _entered(self, x: Tensor) -> Tensor:
        if self.rescale:
            shape = (-1, *[1] * (x.ndim - 1))
            low, high = x.flatten(1).aminmax(dim=1)
            x = (x - low.view(shape)) / (high - low).clamp(min=1e-6).view(shape)
        return self.canvas.enter(x)

    def _looks(self, x: Tensor, rng: Rng, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        inner = self._entered(x)
        target = self.canvas.leave(inner)
        for back in self.starts.restored(self.denoiser, inner, rng, count, self.noise):
            healed = self.canvas.leave(back).clamp(0, 1)
            fields = [(healed - target).square().mean(1)]
            if self.network is not None:
                fields.append(self.network.distance(target.clamp(0, 1), healed))
            yield torch.stack(fields, 1), healed


def shifted(plain: Schedule, times: float) -> Schedule:
    """The schedule with so many times the signal-to-noise at every level."""
    if times == 1:
        return plain
    kept = times * plain.kept / (times * plain.kept + 1 - plain.kept)
    return Schedule(1 - kept[1:] / kept[:-1], f"{plain.name} snr {times}")
