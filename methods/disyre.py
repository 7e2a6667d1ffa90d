"""DISYRE: cold diffusion from samples with a patch of another sample back to samples without one.

Naval Marimont et al., "DISYRE: Diffusion-Inspired SYnthetic REstoration for Unsupervised Anomaly
Detection", ISBI 2024. https://arxiv.org/abs/2311.15453 https://github.com/snavalm/disyre

As in the authors' code: a soft shape of another sample is blended in, the more the higher the
level, by the square root of what a linear schedule of 100 levels keeps, in reverse; the network has
the level as an input and predicts the sample before, with the squared error; five reverse steps of
cold diffusion from the highest level, and the mean of |sample - estimate| over them is the map.
`way="single"` calls the network at all levels with the sample itself. Differs: a level means the
same blend in training and at inference, theirs counts levels in the opposite direction in training
(`reversed_levels`); levels are drawn evenly, theirs from blends drawn evenly, and a sample without
an anomaly may be of any level, theirs is of one alone; shapes are drawn here, theirs come with the
code; patches come from a bank of training samples; the network is MONAI's UNet; what is black in
the sample counts like all else, theirs is 0 there. This is the first version; the second has more
kinds of synthetic anomalies. The noise level is where the reverse process begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.cold import ColdDiffusion
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.schedule import Schedule, sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.unet_config import UNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, NonNegative, PositiveFraction, Range
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.patch_interpolation import PatchInterpolation
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = UNetConfig((32, 64, 96, 128, 256, 256), 2, (False, False, False, False, True, False),
    head_channels=8)  # fmt: skip
SCHEDULE = ScheduleConfig(T=100)
TRAINING = Training(steps=100_000, batch=96, lr=1e-4, weight_decay=1e-6, clip=1.0, ema=None,
    decay="cosine", warmup=500, momentum=0.95)  # fmt: skip


@dataclass(frozen=True)
class DISYREQuirks:
    """What the authors' code does and this method does not by default.

    reversed_levels: training counts levels in the opposite direction, 1 as nearly all of the patch.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.disyre import DISYRE, DISYREQuirks
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> quirks = DISYREQuirks(reversed_levels=True)
    >>> DISYRE(Spec(1, (16, 16)), size=None, network=network, quirks=quirks).denoiser.process.name
    'cold foreign patches, levels reversed'
    """

    reversed_levels: bool = False


CORRECTED = DISYREQuirks()


class DISYRE(Method):
    """DISYRE: the mean error of the estimates on the way from a level to 0.

    chance: probability of a synthetic anomaly in training.
    radius: its smallest and largest radius in terms of the side.
    shift: standard deviation of what is added to a patch's brightness, 0.1 in the authors' option
        for it.
    bank: number of training samples that patches come from.
    sampling_steps: the most network calls of a chain, None for every level.
    way: "multi" goes down from the level, "single" calls the network at each level with the sample
        itself.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.disyre import DISYRE
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> DISYRE(Spec(1, (16, 16)), size=None, network=network).denoiser.process.name
    'cold foreign patches'
    """

    levels, published = (250, 500, 750, 1000), 1000
    inference = frozenset({"sampling_steps", "way"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, network: UNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE,
        chance: PositiveFraction = 0.3, radius: Range[PositiveFraction] = (0.05, 0.25),
        shift: NonNegative = 0.0,
        bank: Count = 512, training: Training = TRAINING, sampling_steps: Count | None = 5,
        way: Literal["multi", "single"] = "multi", quirks: DISYREQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        low, high = radius
        if not 0 < chance <= 1 or not 0 < low <= high or bank < 1:
            raise ValueError(
                f"chance lies in 0..1, radii rise from above 0 and a bank has samples: {chance}, "
                f"{radius}, {bank}"
            )
        self.canvas = ResizePad(spec.shape, size, network.side_divisor, low=0.0)
        net = network.build(len(spec.shape), spec.channels, eps=1e-5)
        self.denoiser = Denoiser(
            net,
            schedule.build(),
            prediction_type="clean",
            process=partial(patch_blending_process, reversed_levels=quirks.reversed_levels),
            trained_on=f"foreign patches on {self.canvas}",
        )
        self.plan = training
        self.chance, self.radius, self.bank = chance, (low, high), bank
        self.shift = shift
        self.sampling_steps, self.way = sampling_steps, way

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        samples = [train[i].x for i in evenly_spaced_indices(len(train), self.bank)]
        if not samples:
            raise ValueError("DISYRE takes patches from training samples; there are none")
        bank = self.canvas.forward(torch.stack(samples).to(context.device))
        foreign = PatchInterpolation(
            bank, probability=self.chance, size=self.radius, shift=self.shift
        )

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.canvas.forward(x), rng, noise=foreign)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, to = self.canvas.forward(x), self.denoiser.schedule.to_level
        paths = [sampling_levels(to(level), self.sampling_steps) for level in levels for _ in x]
        sampler = PatchRemovalStep(
            self.denoiser.schedule,
            inner.repeat(len(levels), *[1] * (x.ndim - 1)),
            stay=self.way == "single",
        )
        ends = run_chains(self.denoiser, sampler, sampler.start, paths)
        normal, error = (
            self.canvas.inverse(y.view(len(levels), *inner.shape)) for y in (ends, sampler.mean)
        )
        return Detection.from_map(error.mean(2).clamp(min=0), normal.clamp(0, 1))


class PatchRemovalStep:
    """Cold diffusion's step where the other sample is unknown: the difference from the estimate of
    x_0 shrinks in proportion to its weight in the blend.

    schedule: of the blend.
    start: (M, C, *S), the samples.
    stay: the network is called with the samples themselves at every level.

    mean: (M, C, *S), of |x - estimate| over the steps.

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.methods.disyre import PatchRemovalStep
    >>> x, zero = torch.tensor([[[1.0, 0.5]]]), torch.tensor([0])
    >>> sampler = PatchRemovalStep(linear_schedule(100), x, stay=False)
    >>> steps = sampler.plan_steps([100, 0])
    >>> batch = ChainBatch(zero, zero, zero + 1, zero + 100, zero + 100, zero, [steps])
    >>> sampler.advance(x, x, Estimate(x, torch.full_like(x, 0.5)), batch)
    tensor([[[0.5000, 0.5000]]])
    >>> sampler.mean
    tensor([[[0.5000, 0.0000]]])
    """

    memory = 0

    def __init__(self, schedule: Schedule, start: Tensor, *, stay: bool) -> None:
        self.schedule, self.start, self.stay = schedule, start, stay
        self.mean = torch.zeros_like(start)

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: the number of steps."""
        return [step._replace(tag=len(levels) - 1) for step in one_step_per_level(levels)]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        shape, chain = (-1, *[1] * (x.ndim - 1)), batch.device_chain
        count = batch.device_tag.view(shape)
        self.mean[chain] += (x - estimate.clean).abs() / count
        last = (batch.end_level == 0).view(shape)
        if self.stay:
            return torch.where(last, estimate.clean, x)
        ratio = blend_weight(self.schedule, batch.end_level) / blend_weight(
            self.schedule, batch.start_level
        )
        y = estimate.clean + ratio.view(shape).to(x.dtype) * (x - estimate.clean)
        return y.clamp(0, 1)


def blend_weight(schedule: Schedule, level: Tensor) -> Tensor:
    """Return the weight of the other sample within the shape, (N,) float64: 0 at level 0, nearly 1
    at T.

    schedule: of which the square root of alpha_bar is taken, in reverse
    level: (N,) int64 in 0..T

    >>> import torch
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.methods.disyre import blend_weight
    >>> blend_weight(linear_schedule(100), torch.tensor([0, 50, 100])).round(decimals=3)
    tensor([0.0000, 0.2580, 0.9990], dtype=torch.float64)
    """
    alpha_bar = schedule.alpha_bar.to(level.device)
    opposite = (schedule.T + 1 - level).clamp(max=schedule.T)
    return torch.where(level == 0, 0.0, alpha_bar[opposite].sqrt())


def patch_blending_process(schedule: Schedule, *, reversed_levels: bool = False) -> ColdDiffusion:
    """Return the process that blends a patch of another sample into a sample.

    Its noise is (N, C + 1, *S), the other sample and the patch's shape, from `PatchInterpolation`.

    schedule: of the blending weights
    reversed_levels: level l of 1..T has the weight of level T + 1 - l; see `DISYREQuirks`

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> patch_blending_process(build_schedule("linear", 100)).name
    'cold foreign patches'
    """

    def blend(x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        other, inside = noise[:, :-1], noise[:, -1:]
        blended = schedule.T + 1 - level if reversed_levels else level
        weight = blend_weight(schedule, blended).view(-1, *[1] * (x.ndim - 1)).to(x.dtype) * inside
        return x + weight * (other - x)

    name = "foreign patches, levels reversed" if reversed_levels else "foreign patches"
    return ColdDiffusion(schedule, blend, name=name)
