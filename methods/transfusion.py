"""TransFusion: an anomaly is made more and more transparent, until what is normal shows instead.

Fučka, Zavrtanik and Skočaj, "TransFusion - A Transparency-Based Diffusion Model for Anomaly
Detection", ECCV 2024. https://arxiv.org/abs/2311.09999
https://github.com/MaticFuc/ECCV_TransFusion

As in the authors' code: half of the training samples have a synthetic anomaly in a mask, whose
opacity is that of one of 20 levels, in even steps; the network, which is also shown the mask of the
step before, predicts the anomaly's appearance, the normal sample and the mask. The loss is the sum
of the squared error of the appearance, five times the focal and the smooth absolute error of the
mask, dissimilarity (SSIM) and absolute error of the normal sample, and the squared error of the
step below. At inference a sample counts as one whose anomalies are opaque, and all levels are
visited; the mask of a step is binary, at 0.5. The map is 0.95 times the mask and 0.05 times the
difference from what is left in the end, averaged over 7 x 7 pixels, and its maximum the score.

Differs: anomalies are patches of other training samples in soft shapes, theirs of textures (DTD),
which no package ships, within the foreground; the mask of the map is the mean over the steps, and
in training the true mask takes the place of that of the step before, for every other sample; the
UNet, without grouped convolutions, is MONAI's; the learning rate stays as it is, theirs falls once.
The noise level is where the process begins, which the paper has at the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, smooth_l1_loss

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.schedule import even_schedule, sampling_levels
from ..engine.diffusion.transparency import Transparency
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.noise.noise import Noise
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Fraction,
    NonNegative,
    Odd,
    PositiveFraction,
    Range,
)
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.patch_interpolation import PatchInterpolation
from ..engine.transforms.resizing import ResizePad
from ..engine.transforms.structural_similarity import structural_similarity
from .base import Detection, Method


@dataclass(frozen=True)
class SyntheticAnomalies:
    """The anomalies of training.

    chance: probability of one.
    radius: its smallest and largest radius in terms of the side.
    shift: standard deviation of what is added to its brightness.
    bank: number of training samples that appearances come from.

    >>> from adbench.methods.transfusion import SyntheticAnomalies
    >>> SyntheticAnomalies().chance
    0.5
    """

    chance: PositiveFraction = 0.5
    radius: Range[PositiveFraction] = (0.05, 0.25)
    shift: NonNegative = 0.0
    bank: Count = 512


NETWORK = HeadsUNetConfig(64, (1, 2, 2, 2), 2, attention=(False, False, True, True), heads=4)
ANOMALIES = SyntheticAnomalies()
TRAINING = Training(steps=45_000, batch=8, lr=1e-5, clip=None, ema=None)
FOCAL_WEIGHT, FOCAL_POWER = 5.0, 2


class TransFusion(Method):
    """TransFusion: the mask that the network sees on the way down, and what it changes there.

    T: number of levels.
    augment: rotate training samples by up to 20 degrees.
    mask_weight: of the mask in the map; the rest is the difference from the reconstruction.
    smooth: side of the square over which the map is averaged.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.transfusion import TransFusion
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, True), heads=1)
    >>> TransFusion(Spec(1, (16, 16)), size=None, network=network).denoiser.process.name
    'transparency'
    """

    levels, published = (250, 500, 750, 1000), 1000
    ndims = frozenset({2})
    inference = frozenset({"mask_weight", "smooth"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, network: HeadsUNetConfig = NETWORK, T: Count = 20,
        anomalies: SyntheticAnomalies = ANOMALIES, augment: bool = True,
        training: Training = TRAINING, mask_weight: Fraction = 0.95, smooth: Odd = 7,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor, low=0.0)
        net = network.build(2, spec.channels + 1, out_channels=2 * spec.channels + 1)
        self.denoiser = Denoiser(net, even_schedule(T), prediction_type="clean",
            process=Transparency, trained_on=f"foreign patches on {self.canvas}")  # fmt: skip
        self.plan, self.anomalies, self.augment = training, anomalies, augment
        self.mask_weight, self.smooth = mask_weight, smooth

    @property
    def process(self) -> Transparency:
        return self.denoiser.process_as(Transparency)

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        config = self.anomalies
        samples = [train[i].x for i in evenly_spaced_indices(len(train), config.bank)]
        if not samples:
            raise ValueError("TransFusion takes anomalies from training samples; there are none")
        bank = self.canvas.forward(torch.stack(samples).to(context.device))
        foreign = PatchInterpolation(
            bank, probability=config.chance, size=config.radius, shift=config.shift
        )

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = random_affine(x, rng.fork("augment"), degrees=20) if self.augment else x
            return self.loss(self.canvas.forward(x), foreign, rng)

        train_module(loss, self.denoiser, train, context, self.plan)

    def loss(self, x: Tensor, anomaly: Noise, rng: Rng) -> Tensor:
        """The loss at levels drawn evenly, (N,).

        x: (N, C, *outer)
        anomaly: draws appearance and soft shape, (N, C + 1, *outer); the mask is the shape above
            a half
        rng: one stream per sample
        """
        channels, T = x.shape[1], self.denoiser.schedule.T
        level = 1 + rng.fork("level").integers(T)
        other, shape = anomaly(rng.fork("anomaly"), x.shape[1:], level).split([channels, 1], 1)
        mask = (shape > 0.5).to(x.dtype)
        noise = torch.cat([other, mask], 1)
        noisy = self.process.add_noise(x, level, noise)
        shown = (level < T) & (rng.fork("shown").uniform() < 0.5)
        previous = mask * shown.view(-1, 1, 1, 1)
        prediction = self.denoiser.predict(torch.cat([noisy, previous], 1), level)
        appearance, normal, logit = prediction.split([channels, channels, 1], 1)
        present = logit.sigmoid()
        below = self.process.step(noisy, appearance, normal, present, level, level - 1)
        parts = (
            (appearance - self.process.opacity(level, x) * mask * other).square(),
            FOCAL_WEIGHT * focal_error(logit, mask),
            smooth_l1_loss(present, mask, reduction="none"),
            1 - structural_similarity(normal, x),
            (normal - x).abs(),
            (below - self.process.add_noise(x, level - 1, noise)).square(),
        )
        return torch.stack([part.flatten(1).mean(1) for part in parts]).sum(0)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, to = self.canvas.forward(x), self.denoiser.schedule.to_level
        rows = inner.repeat(len(levels), 1, 1, 1)
        paths = [sampling_levels(to(level)) for level in levels for _ in x]
        sampler = TransparencyStep(self.process, rows)
        state = torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)
        normal = run_chains(self.denoiser, sampler, state, paths)[:, :-1]
        difference = (normal - rows).abs().mean(1, keepdim=True)
        heat = self.mask_weight * sampler.mean + (1 - self.mask_weight) * difference
        heat = avg_pool2d(heat, self.smooth, 1, self.smooth // 2, count_include_pad=False)
        maps, normal = (
            self.canvas.inverse(y.view(len(levels), len(x), *y.shape[1:])) for y in (heat, normal)
        )
        maps = maps[:, :, 0].clamp(min=0)
        return Detection(maps.flatten(2).amax(2), maps, normal.clamp(0, 1))


class TransparencyStep:
    """The step of transparency diffusion, whose state is (M, C + 1, *S), a sample and the mask.

    process: of the denoiser.
    start: (M, C, *S), the samples.

    mean: (M, 1, *S), of the mask's probability over the steps.

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.schedule import even_schedule
    >>> from adbench.engine.diffusion.transparency import Transparency
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.methods.transfusion import TransparencyStep
    >>> sampler, zero = TransparencyStep(Transparency(even_schedule(4)), torch.zeros(1, 1, 2)), (
    ...     torch.tensor([0]))
    >>> batch = ChainBatch(zero, zero, zero, zero + 4, zero + 4, zero, [sampler.plan_steps([4, 0])])
    >>> clean = torch.tensor([[[1.0, 1.0], [0.9, 0.1]]])  # normal is 1; the mask is the first half
    >>> sampler.advance(torch.zeros(1, 2, 2), zero, Estimate(torch.zeros(1, 1, 2), clean), batch)
    tensor([[[1., 0.],
             [1., 0.]]])
    """

    memory = 0

    def __init__(self, process: Transparency, start: Tensor) -> None:
        self.process, self.mean = process, torch.zeros_like(start[:, :1])

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        """tag: the number of steps of the chain."""
        steps = one_step_per_level(levels)
        return [step._replace(tag=len(steps)) for step in steps]

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        normal, present = estimate.clean[:, :-1], estimate.clean[:, -1:]
        count = batch.device_tag.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        self.mean[batch.device_chain] += present / count
        mask = (present > 0.5).to(x.dtype)
        after = self.process.step(
            x[:, :-1], estimate.noise, normal, mask, batch.start_level, batch.end_level
        )
        return torch.cat([after, mask], 1)


def focal_error(logit: Tensor, target: Tensor) -> Tensor:
    """The focal loss of binary values (Lin et al. 2017, equation 4, gamma 2), per value.

    logit: of the probability of 1
    target: 0 or 1

    >>> import torch
    >>> from adbench.methods.transfusion import focal_error
    >>> focal_error(torch.zeros(1), torch.ones(1))  # log(2) / 4
    tensor([0.1733])
    """
    error = binary_cross_entropy_with_logits(logit, target, reduction="none")
    return (1 - (-error).exp()) ** FOCAL_POWER * error
