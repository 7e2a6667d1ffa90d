"""THOR: blend the input back in during the reverse process where it already looks healthy.

Bercea et al., "Diffusion Models with Implicit Guidance for Medical Anomaly Detection", MICCAI 2024.
https://arxiv.org/abs/2403.08464 https://github.com/ci-ber/THOR_DDPM

As in the authors' code: AutoDDPM's network; every 50 levels a map, the perceptual distance times
the residual over its maximum; at three levels the estimate and the input are blended by that map,
closed and dilated, and the noise that the chain began with is added again; the map is the harmonic
mean of all maps on the way. Differs, and named where an argument brings theirs back: the network
is trained in the range that is used at inference, [-1, 1] (`train_unit`: in [0, 1]); noise is added
to the blend up to the level that the chain goes on from (`renoise_late`: one above); negative
values of the blend stay (`clamp_unit`); the perceptual map is normalised once (`double_normalise`);
noise is drawn per sample (`shared_noise` has one field for all, as theirs does of simplex noise).
Differs always: perceptual maps are blurred along the image's axes alone, theirs across the batch
too; the network predicts the noise, one of their trainers has it predict twice the noise less one.
Perceptual distances are of the network that a package ships, unless `features` names another. For
simplex noise the paper begins at 251 and has `harmonise=(201, 151, 101, 51)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.pretrained import FeaturesName, build_perceptual
from ..engine.networks.unet_config import UNetConfig
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Fraction, Level, NonNegative, Odd
from ..engine.runtime.transfer import to_device
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.sampling.reconstruct import enumerate_chains, repeat_streams
from ..engine.sampling.solvers import Ancestral
from ..engine.sampling.step_noise import StepNoise
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.blur import gaussian_blur
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = UNetConfig((128, 256, 256), 1, (False, True, True), head_channels=256)
SCHEDULE = ScheduleConfig()
NOISE = NoiseConfig()
TRAINING = Training(steps=64_000, batch=16, lr=1e-4, clip=None, ema=None)


@dataclass(frozen=True)
class THORQuirks:
    """What the authors' code does and this method does not by default.

    shared_noise: one field of simplex noise for all samples of a batch.
    train_unit: the network is trained with samples in [0, 1] and applied in [-1, 1].
    double_normalise: samples are brought to [-1, 1] twice for the perceptual distance.
    renoise_late: noise is added to the blend up to one level above that the chain goes on from.
    clamp_unit: the blend is clamped to [0, 1], which loses negative values.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.thor import THOR, THORQuirks
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> method = THOR(Spec(1, (16, 16)), size=None, network=network, features="effperc-random",
    ...     quirks=THORQuirks(train_unit=True))
    >>> method.trained.range, method.canvas.range
    ((0.0, 1.0), (-1.0, 1.0))
    """

    shared_noise: bool = False
    train_unit: bool = False
    double_normalise: bool = False
    renoise_late: bool = False
    clamp_unit: bool = False


CORRECTED = THORQuirks()


class THOR(Method):
    """THOR: the harmonic mean of maps on the way of a chain into which the input is blended.

    augment: random affine views in training.
    harmonise: levels at which the input is blended in; those above a chain's level do nothing.
    every: levels between two maps.
    kernel: side, in pixels of the canvas, of the closing and the dilation of a map.
    blur: standard deviation of the blur of the perceptual distance, in pixels.
    sampling_steps: network calls of a chain, None for every level.
    eta: 0 is DDIM, 1 is DDPM.
    features: the network of the perceptual distance, as `build_perceptual` has it.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.methods.thor import THOR
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> THOR(Spec(1, (16, 16)), size=None, network=network, features="effperc-random").harmonise
    (301, 151, 51)
    """

    levels, published = (151, 251, 351, 451), 351
    ndims = frozenset({2})
    inference = frozenset(
        ["harmonise", "every", "kernel", "blur", "sampling_steps", "eta", "features",
         "double_normalise", "renoise_late", "clamp_unit"]
    )  # fmt: skip

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        blur=Interval(0.5, 4.0),
        every=Interval(25, 100),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, network: UNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE,
        noise: NoiseConfig = NOISE, training: Training = TRAINING, augment: bool = True,
        harmonise: Sequence[Level] = (301, 151, 51), every: Level = 50, kernel: Odd = 13,
        blur: NonNegative = 2.0, sampling_steps: Count | None = None, eta: Fraction = 1.0,
        features: FeaturesName = "effperc", quirks: THORQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if kernel < 1 or kernel % 2 == 0 or every < 1:
            raise ValueError(f"kernel is odd and every at least 1, not {kernel} and {every}")
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        self.trained = replace(self.canvas, low=0.0) if quirks.train_unit else self.canvas
        self.noise = noise.build(shared=quirks.shared_noise)
        net = network.build(2, spec.channels)
        self.denoiser = Denoiser(net, schedule.build(), clip=self.canvas.range,
            trained_on=f"{self.noise} on {self.canvas}")  # fmt: skip
        self.plan = training
        self.perceptual = build_perceptual(features)
        self.perceptual.check_sides(self.canvas.padded_shape)
        self.harmonise, self.every = tuple(harmonise), every
        self.kernel, self.blur, self.sampling_steps, self.eta = kernel, blur, sampling_steps, eta
        self.augment, self.quirks = augment, quirks

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            if self.augment:
                x = random_affine(
                    x, rng, degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), flip=0.5
                )
            return self.denoiser.loss(self.trained.forward(x), rng, noise=self.noise)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, process = self.canvas.forward(x), self.denoiser.process
        index, level = enumerate_chains([process.schedule.to_level(at) for at in levels], len(x), 1)
        streams = repeat_streams(rng, 1).rows(index)
        paths = [sampling_levels(at, self.sampling_steps) for at in level.tolist()]
        index, level = to_device(torch.stack([index, level]), x.device)
        noise = self.noise(streams.fork("start"), inner.shape[1:], level)
        noisy = process.add_noise(inner[index], level, noise)
        step_noise = StepNoise(streams.fork("step"), self.noise)
        sampler = HarmonisedStep(self, step_noise, inner[index], noise)
        ends = run_chains(self.denoiser, sampler, noisy, paths)
        normal = self.canvas.inverse(ends.view(len(levels), *inner.shape))
        harmonic = (sampler.votes / sampler.inverse).clamp(max=0.999)
        harmonic = harmonic.view(len(levels), len(x), 1, *sampler.size)
        unit = replace(self.canvas, low=0.0, high=1.0)
        return Detection.from_map(unit.inverse(harmonic)[:, :, 0].clamp(min=0), normal)

    def intermediate_map(self, inner: Tensor, clean: Tensor) -> Tensor:
        """Return the map of a sample and an estimate of it, (N, H, W) in 0..1, its maximum 1.

        inner, clean: (N, C, H, W) in the canvas's range
        """
        one, other = ((y + 1).clamp(0, 2) / 2 for y in (inner, clean))
        distance = self.perceptual.distance(
            one, other, rescale_twice=self.quirks.double_normalise, check_range=False
        )
        blurred = gaussian_blur(distance, self.blur, mode="symmetric").clamp(0, 1)
        product = blurred * (one - other).abs().mean(1)
        return product / product.flatten(1).amax(1)[:, None, None].clamp(min=1e-12)


class HarmonisedStep:
    """Ancestral steps with the input blended in at some levels.

    method: whose maps and quirks are used.
    draws: the noise of the steps.
    inputs, noise: (M, C, H, W), each chain's input and the noise that it began with.

    votes, inverse: the number of maps so far (M, 1, 1), and the sum of their inverses (M, H, W).

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import UNetConfig
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> from adbench.methods.thor import THOR, HarmonisedStep
    >>> network = UNetConfig((8, 16), 1, (False, False), head_channels=8)
    >>> method = THOR(Spec(1, (16, 16)), size=None, network=network, features="effperc-random",
    ...     harmonise=(51,), every=100)
    >>> x = torch.zeros(1, 1, 16, 16)
    >>> sampler = HarmonisedStep(method, StepNoise(Rng(["a"]), gaussian), x, x)
    >>> [step.tag for step in sampler.plan_steps([150, 125, 100, 75, 50, 25, 0])]
    [0, 1, 0, 2, 0, 1]
    """

    memory = 0

    def __init__(self, method: THOR, draws: StepNoise, inputs: Tensor, noise: Tensor) -> None:
        process = method.denoiser.process_as(Gaussian)
        self.method, self.process, self.inputs, self.noise = method, process, inputs, noise
        self.ancestral = Ancestral(process, draws, method.eta)
        self.size = inputs.shape[2:]
        self.votes = inputs.new_zeros(len(inputs), 1, 1)
        self.inverse = inputs.new_zeros(len(inputs), *self.size)

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: 1 where a map is computed, 2 where the input is blended in as well."""
        level = self.process.schedule.to_level
        blended = {level(at) for at in self.method.harmonise}
        mapped = {max(1, level(at)) for at in range(1, 1001, self.method.every)} | blended
        steps = []
        for step in one_step_per_level(levels):
            passed = range(step.end_level + 1, step.start_level + 1)
            tag = 2 if blended.intersection(passed) else int(bool(mapped.intersection(passed)))
            steps.append(step._replace(tag=tag))
        return steps

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        y = self.ancestral.advance(x, memory, estimate, batch)
        for tag in (1, 2):
            index = to_device((batch.tag == tag).nonzero().flatten(), x.device)
            if len(index):
                chain, clean = batch.device_chain[index], estimate.clean[index]
                anomaly = self.method.intermediate_map(self.inputs[chain], clean)
                self.votes[chain] += 1
                self.inverse[chain] += 1 / anomaly.clamp(min=1e-6)
                if tag == 2:
                    late = self.method.quirks.renoise_late
                    level = (batch.start_level if late else batch.end_level)[index]
                    y[index] = self._blend_and_add_noise(clean, anomaly, chain, level)
        return y

    def _blend_and_add_noise(
        self, clean: Tensor, anomaly: Tensor, chain: Tensor, level: Tensor
    ) -> Tensor:
        share = ((close_and_dilate(anomaly, self.method.kernel) + anomaly) / 2)[:, None]
        blend = share * clean + (1 - share) * self.inputs[chain]
        blend = blend.clamp(0, 1) if self.method.quirks.clamp_unit else blend
        return self.process.add_noise(blend, level, self.noise[chain])


def close_and_dilate(maps: Tensor, kernel: int) -> Tensor:
    """Close and dilate grey maps by a square, (N, H, W).

    maps: (N, H, W)
    kernel: side of the square in pixels, odd

    >>> import torch
    >>> from adbench.methods.thor import close_and_dilate
    >>> close_and_dilate(torch.tensor([[[1.0, 0.0, 1.0, 0.0, 0.0, 0.0]]]), 3)
    tensor([[[1., 1., 1., 1., 0., 0.]]])
    """

    def dilate(x: Tensor) -> Tensor:
        return max_pool2d(x[:, None], kernel, 1, kernel // 2)[:, 0]

    return dilate(-dilate(-dilate(maps)))
