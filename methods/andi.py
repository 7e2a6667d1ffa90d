"""ANDi: how far off the network's own step down is, at many levels at once, without any chain.

Frotscher et al., "Unsupervised Anomaly Detection using Aggregated Normative Diffusion", 2023.
https://arxiv.org/abs/2312.01904 https://github.com/AlexanderFrotscher/ANDi

As in the authors' code: a network trained on pyramid noise, but shown Gaussian noise at inference;
at every level from 76 to 200 the squared difference of the predicted and of the true mean of the
step down; the geometric mean over levels; the largest over channels. Differs: noise of every sample
has unit variance by itself, where theirs divides by a whole batch's deviation, and its grids halve
every time, theirs shrink by random factors, ever faster; averaged weights are used, with MONAI's
UNet; the learning rate rises from 0 and falls to 0, theirs from and to a fifth of its peak; all
levels are trained, theirs without the lowest. The noise level is the highest of those looked at,
which costs one evaluation each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.unet_config import UNetConfig
from ..engine.noise.noise import NoiseName
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

EPSILON = 1e-16
"""Added to a squared difference, so that one that is exactly 0 has a logarithm."""


NETWORK = UNetConfig((64, 128, 256, 256), 2, (False, False, True, True), head_channels=64)
SCHEDULE = ScheduleConfig()
NOISE = NoiseConfig("pyramid")
TRAINING = Training(steps=90_000, batch=128, lr=1e-4, weight_decay=0.01, clip=None, ema=0.995,
    decay="cosine", warmup=4_500)  # fmt: skip


class ANDi(Method):
    """lowest: the level above which levels are looked at. every: so many levels apart, down from
    the highest. aggregate: over levels. channels: the largest or the mean over them.
    inference_noise: what a sample is disturbed with when it is looked at."""

    levels, published = (100, 150, 200, 250, 300), 200
    inference = frozenset({"lowest", "every", "aggregate", "channels", "inference_noise"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, network: UNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE,
        noise: NoiseConfig = NOISE, inference_noise: NoiseName = "gaussian",
        training: Training = TRAINING, lowest: Annotated[int, Meta(ge=0, le=999)] = 75,
        every: Count = 1,
        aggregate: Literal["geometric", "mean"] = "geometric",
        channels: Literal["max", "mean"] = "max",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if every < 1 or not 0 <= lowest < 1000:
            raise ValueError(f"every is at least 1 and lowest in 0..999, not {every} and {lowest}")
        self.canvas = ResizePad(spec.shape, size, side_divisor(network.widths))
        self.noise, self.inference_noise = noise.build(), noise.build(inference_noise)
        net = network.build(len(spec.shape), spec.channels)
        self.denoiser = Denoiser(net, schedule.build(), trained_on=f"{self.noise} on {self.canvas}")
        self.plan = training
        self.lowest, self.every = lowest, every
        self.aggregate, self.channels = aggregate, channels

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.canvas.forward(x), rng, noise=self.noise)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        asked = [self.evaluated_levels(level) for level in levels]
        total = [torch.zeros_like(inner) for _ in levels]
        for at in sorted(set().union(*asked)):
            off = self._squared_mean_difference(inner, at, rng)
            off = (off + EPSILON).log() if self.aggregate == "geometric" else off
            for i in (i for i, those in enumerate(asked) if at in those):
                total[i] += off
        found = torch.stack([t / len(a) for t, a in zip(total, asked, strict=True)])
        found = found.exp() - EPSILON if self.aggregate == "geometric" else found
        found = found.amax(2) if self.channels == "max" else found.mean(2)  # (L, N, *outer)
        unit = replace(self.canvas, low=0.0, high=1.0)
        found = unit.inverse(found[:, :, None])[:, :, 0]
        return Detection.from_map(found.clamp(min=0))

    def evaluated_levels(self, level: int) -> list[int]:
        """The process's levels down from one on the 1000-step scale; itself at least."""
        to = self.denoiser.schedule.to_level
        return list(range(to(level), min(to(self.lowest), to(level) - 1), -self.every))

    def _squared_mean_difference(self, x: Tensor, step: int, rng: Rng) -> Tensor:
        """The squared difference of the means of the step down from a level, like x."""
        process = self.denoiser.process_as(Gaussian)
        level = torch.full((len(x),), step, device=x.device)
        noise = self.inference_noise(rng.fork("look").at(step), x.shape[1:], level)
        x_l = process.add_noise(x, level, noise)
        guess = self.denoiser(x_l, level)
        true, made = (process.posterior_mean(x_l, clean, level, level - 1) for clean in (x, guess))
        return (true - made).square()
