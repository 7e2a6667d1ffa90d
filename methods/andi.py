"""ANDi: how far the network's reverse step is from the true one, at many levels, without any chain.

Frotscher et al., "Unsupervised Anomaly Detection using Aggregated Normative Diffusion", 2023.
https://arxiv.org/abs/2312.01904 https://github.com/AlexanderFrotscher/ANDi

As in the authors' code: a network trained with pyramid noise and applied to Gaussian noise; at
every level from 76 to 200 the squared difference of the predicted and of the true mean of the
reverse step; the geometric mean over levels; the largest over channels. EMA weights are evaluated.
Differs: noise of every sample has unit variance by itself, where theirs divides by the standard
deviation of the whole batch, and its grids halve every time, theirs shrink by random factors, ever
faster; the network is MONAI's UNet; the learning rate rises from 0 and falls to 0, theirs from and
to a fifth of its peak; all levels are trained, theirs without the lowest. The noise level is the
highest of the levels that are evaluated, one network call each.
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
    """ANDi: squared differences of reverse steps, aggregated over levels.

    inference_noise: kind of the noise that is added to a sample at inference.
    lowest: levels above it are evaluated.
    every: distance of the levels that are evaluated, down from the highest.
    aggregate: geometric or arithmetic mean over levels.
    channels: the largest or the mean over channels.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.andi import ANDi
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> ANDi(Spec(1, (16, 16)), size=None, network=network, every=50).evaluated_levels(200)
    [200, 150, 100]
    """

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
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        self.noise, self.inference_noise = noise.build(), noise.build(inference_noise)
        net = network.build(len(spec.shape), spec.channels)
        self.denoiser = Denoiser(net, schedule.build(), trained_on=f"{self.noise} on {self.canvas}")
        self.plan = training
        above = schedule.T - self.denoiser.schedule.to_level(lowest)
        if every > max(above, 1):
            self.ineffective_arguments["every", "lowest", "T"] = (
                f"every={every} evaluates one level: no two of the {above} above lowest are so far "
                "apart"
            )
        self.lowest, self.every = lowest, every
        self.aggregate, self.channels = aggregate, channels

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.canvas.forward(x), rng, noise=self.noise)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        evaluated = [self.evaluated_levels(level) for level in levels]
        total = [torch.zeros_like(inner) for _ in levels]
        for at in sorted(set().union(*evaluated)):
            difference = self._squared_mean_difference(inner, at, rng)
            if self.aggregate == "geometric":
                difference = (difference + EPSILON).log()
            for i in (i for i, steps in enumerate(evaluated) if at in steps):
                total[i] += difference
        mean = torch.stack([t / len(steps) for t, steps in zip(total, evaluated, strict=True)])
        mean = mean.exp() - EPSILON if self.aggregate == "geometric" else mean
        mean = mean.amax(2) if self.channels == "max" else mean.mean(2)  # (L, N, *outer)
        unit = replace(self.canvas, low=0.0, high=1.0)
        return Detection.from_map(unit.inverse(mean[:, :, None])[:, :, 0].clamp(min=0))

    def evaluated_levels(self, level: int) -> list[int]:
        """Return the process's levels that are evaluated for a noise level, in descending order.

        level: on the 1000-step scale; it is evaluated itself even if not above `lowest`
        """
        to = self.denoiser.schedule.to_level
        return list(range(to(level), min(to(self.lowest), to(level) - 1), -self.every))

    def _squared_mean_difference(self, x: Tensor, step: int, rng: Rng) -> Tensor:
        """The squared difference of the true and the predicted mean of a reverse step, like x."""
        process = self.denoiser.process_as(Gaussian)
        level = torch.full((len(x),), step, device=x.device)
        noise = self.inference_noise(rng.fork("look").at(step), x.shape[1:], level)
        x_l = process.add_noise(x, level, noise)
        true, predicted = (
            process.posterior_mean(x_l, clean, level, level - 1)
            for clean in (x, self.denoiser(x_l, level))
        )
        return (true - predicted).square()
