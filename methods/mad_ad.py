"""MAD-AD: a sample's code counts as one that has noise on some patches, which a network finds.

Beizaee, Lodygensky, Desrosiers and Dolz, "MAD-AD: Masked Diffusion for Unsupervised Brain Anomaly
Detection", IPMI 2025. https://arxiv.org/abs/2502.16943 https://github.com/farzad-bz/MAD-AD

As in the authors' code: Gaussian noise is added to random patches of a normal code, up to 0.4 of
it; the UNet predicts the code without noise and, in one more channel, which patches have noise, by
the squared error of the one and a thousandth of that of the other. At inference ten steps of DDIM,
eta 0.5, from the code as it is: a step changes only what the network then says has noise (at least
0.5). The map is the difference of the images decoded from the code before and after, clipped and
blurred.

Differs: the autoencoder, theirs is one of medical images, is trained here and first; a thousand
levels are trained, of which ten are visited, where theirs has ten; sizes of patches, the number of
training steps and the score, the map's maximum, are ours; the UNet attends to its own positions
alone. The noise level is where the chain begins; theirs is 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..datasets.base import Spec, Split
from ..engine.codecs.kl_config import KLConfig
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.gaussian import Gaussian, add_noise_in_region
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.noise.noise import gaussian
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Fraction,
    Many,
    NonNegative,
    Positive,
    PositiveFraction,
)
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.sampling.reconstruct import enumerate_chains
from ..engine.sampling.step_noise import StepNoise
from ..engine.training.loop import Training, train_module
from ..engine.transforms.blur import gaussian_blur
from ..engine.transforms.grid_mixing import random_cells
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class PatchNoise:
    """The patches of codes of normal samples that have noise in training.

    cells: sides of a patch, in positions of the code; each sample has one of them.
    disturbed: highest share of a code that has noise.
    mask_weight: of the error of which patches have noise.

    >>> from adbench.methods.mad_ad import PatchNoise
    >>> PatchNoise(cells=(1, 2)).disturbed
    0.4
    """

    cells: Many[Count] = (1, 2, 4, 8)
    disturbed: PositiveFraction = 0.4
    mask_weight: NonNegative = 0.001


CODEC = KLConfig()
NETWORK = HeadsUNetConfig(256, (1, 2, 4), 2, attention=(True, True, True), heads=8)
SCHEDULE = ScheduleConfig()
PATCHES = PatchNoise()
TRAINING = Training(steps=100_000, batch=96, lr=4e-5, weight_decay=1e-4, clip=None, ema=None)


class MADAD(Method):
    """MAD-AD: difference of the images decoded before and after patches with noise are denoised.

    sampling_steps, eta: of the reverse process.
    threshold: of the network's mask, above which a position is changed.
    largest: the largest difference of images in [-1, 1] that counts.
    blur: standard deviation of the map's blur, in pixels.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.codecs.kl_config import KLConfig
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.mad_ad import MADAD
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, True), heads=1)
    >>> codec = KLConfig(coder_widths=(4, 8), latent_channels=2)
    >>> MADAD(Spec(1, (16, 16)), size=None, codec=codec, network=network).codec.latent
    (2, 8, 8)
    """

    levels, published = (250, 500, 750, 1000), 1000
    ndims = frozenset({2})
    inference = frozenset({"sampling_steps", "eta", "threshold", "largest", "blur"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, codec: KLConfig = CODEC, network: HeadsUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, patches: PatchNoise = PATCHES,
        training: Training = TRAINING, sampling_steps: Count = 10, eta: Fraction = 0.5,
        threshold: Fraction = 0.5, largest: Positive = 0.25, blur: NonNegative = 5.0,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        divisor = side_divisor(codec.coder_widths) * network.side_divisor
        self.canvas = ResizePad(spec.shape, size, divisor)
        self.codec = codec.build(spec.channels, self.canvas)
        channels = self.codec.latent[0]
        net = MaskIgnoringNetwork(network.build(2, channels, out_channels=channels + 1))
        self.denoiser = Denoiser(net, schedule.build(), prediction_type="clean",
            trained_on=f"patches of codes of {self.canvas}, with their mask")  # fmt: skip
        self.plan, self.codec_plan, self.patches = training, codec.plan(training), patches
        self.sampling_steps, self.eta, self.threshold = sampling_steps, eta, threshold
        self.largest, self.blur = largest, blur

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        CodecTraining(self.codec, self.codec_plan, self.canvas).train(train, context)

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.loss(self.codec.encode(self.canvas.forward(x)), rng)

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")

    def loss(self, z: Tensor, rng: Rng) -> Tensor:
        """The squared error of codes (N, C, *S) and the weighted one of their masks, (N,)."""
        level = 1 + rng.fork("level").integers(self.denoiser.schedule.T)
        mask = self.sample_mask(z.shape[2:], rng.fork("mask"))
        noise = rng.fork("noise").normal(z.shape[1:])
        noisy = add_noise_in_region(self.denoiser.process, z, level, noise, mask)
        state = torch.cat([noisy, torch.zeros_like(noisy[:, :1])], 1)
        error = (self.denoiser.predict(state, level) - torch.cat([z, mask.to(z.dtype)], 1)).square()
        code, wrong_mask = error[:, :-1].flatten(1).mean(1), error[:, -1].flatten(1).mean(1)
        return code + self.patches.mask_weight * wrong_mask

    def sample_mask(self, shape: Sequence[int], rng: Rng) -> Tensor:
        """Draw which positions of codes have noise, (N, 1, *shape) bool, in whole patches.

        shape: of the codes, without channels
        rng: one stream per sample
        """
        share = self.patches.disturbed * rng.fork("share").uniform()
        kind = rng.fork("size").integers(len(self.patches.cells)).view(-1, 1, 1, 1)
        masks = [
            random_cells(rng.fork("side", side), shape, side, share) & (kind == k)
            for k, side in enumerate(self.patches.cells)
        ]
        return torch.stack(masks).any(0)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        z = self.codec.encode(self.canvas.forward(x))
        image, to = self.codec.decode(z), self.denoiser.schedule.to_level
        index, level = enumerate_chains([to(at) for at in levels], len(x), 1)
        rows, like = (y.repeat(len(levels), 1, 1, 1) for y in (z, image))
        draws = StepNoise(rng.rows(index).fork("step"), gaussian)
        sampler = MaskedStep(self.denoiser.process_as(Gaussian), draws, self.eta, self.threshold)
        paths = [sampling_levels(at, self.sampling_steps) for at in level.tolist()]
        state = torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)
        normal = self.codec.decode(run_chains(self.denoiser, sampler, state, paths)[:, :-1])
        difference = (normal - like).abs().mean(1)  # (L * N, *outer)
        heat = difference.clamp(max=self.largest) / self.largest
        heat = gaussian_blur(heat, self.blur, mode="symmetric")
        heat = heat.view(len(levels), len(x), 1, *self.canvas.padded_shape)
        heat = replace(self.canvas, low=0.0, high=1.0).inverse(heat)[:, :, 0].clamp(min=0)
        normal = self.canvas.inverse(normal.view(len(levels), len(x), *normal.shape[1:]))
        return Detection(heat.flatten(2).amax(2), heat, normal.clamp(0, 1))


class MaskIgnoringNetwork(nn.Module):
    """A network of codes that is shown a code and a mask and does not see the mask.

    net: (N, C, *S) -> (N, C + 1, *S), the code without noise and the mask.

    >>> import torch
    >>> from adbench.methods.mad_ad import MaskIgnoringNetwork
    >>> net = MaskIgnoringNetwork(torch.nn.Conv2d(2, 3, 1))
    >>> hasattr(net, "net")
    True
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.net(x[:, :-1], timesteps)


@dataclass(frozen=True)
class MaskedStep:
    """DDIM's step, (Song et al. 2021, equation 12), where the network says that there is noise.

    The state is (N, C + 1, *S), a code and in the last channel the mask of the step before.

    process: of the denoiser, whose estimate of x_0 has the mask as its last channel.
    step_noise: of every chain.
    eta: share of DDPM's noise that a step adds.
    threshold: positions whose mask is below it stay as they are.

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> from adbench.methods.mad_ad import MaskedStep
    >>> process = Gaussian(build_schedule("linear", 10))
    >>> sampler = MaskedStep(process, StepNoise(Rng(["a"]), gaussian), eta=0.0, threshold=0.5)
    >>> zero = torch.tensor([0])
    >>> batch = ChainBatch(zero, zero, zero, zero + 1, zero + 1, zero, [sampler.plan_steps([1, 0])])
    >>> clean = torch.tensor([[[1.0, 1.0], [0.9, 0.1]]])  # noise at the first position alone
    >>> sampler.advance(torch.zeros(1, 2, 2), zero, Estimate(clean, clean), batch)[0, 0]
    tensor([1., 0.])
    """

    process: Gaussian
    step_noise: StepNoise
    eta: float
    threshold: float
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        code, (clean, mask) = x[:, :-1], (estimate.clean[:, :-1], estimate.clean[:, -1:])
        noise = self.step_noise(batch, code) if self.eta > 0 else None
        eps = self.process.noise_from_x0(code, clean, batch.start_level)
        after = self.process.reverse_step(
            clean, eps, batch.start_level, batch.end_level, noise, eta=self.eta
        )
        return torch.cat([torch.where(mask >= self.threshold, after, code), mask], 1)
