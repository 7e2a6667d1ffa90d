"""Masked Bernoulli diffusion: flip bits of a code, and reconstruct those that are probably flipped.

Wolleb et al., "Binary Noise for Binary Tasks: Masked Bernoulli Diffusion for Unsupervised Anomaly
Detection", MICCAI 2024. https://arxiv.org/abs/2403.11667
https://github.com/JuliaWolleb/Anomaly_berdiff

As in the authors' code: a binarising autoencoder of 128 bits a position, trained with its absolute
error alone; a UNet predicts of each bit whether it was flipped, at any of 1000 levels; from level
200 down a bit is replaced once its probability of a flip has passed 1/2, the others stay as they
were; the map is the squared difference, summed over channels.

EMA weights are evaluated, of the UNet and of the autoencoder. The authors' commands load a file of
plain weights of the UNet, `brats000000.pt` (files of EMA weights are named ema...), and the
autoencoder's EMA weights where their file exists.

Differs, and named where an argument brings theirs back: zeros are flipped as well as ones
(`forward="erasure"`); every sample of a batch is masked, theirs masks the first; the last step
applies the mask and yields bits (`soft_end`); chains start at the level that noise was added up to
(`start_offset`: one below); codes of test samples are the likelier bits, not drawn (`drawn_code`);
every batch makes one step of the UNet, not two with levels drawn anew (`twice`; `steps` counts
both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.autoencoder import Binary
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.bernoulli import Bernoulli, uniform_noise
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Decay, Many, Positive, PositiveFraction
from ..engine.runtime.transfer import to_device
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.sampling.reconstruct import enumerate_chains, repeat_streams
from ..engine.sampling.step_noise import StepNoise
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad, resize
from .base import Detection, Method


@dataclass(frozen=True)
class RepeatedBatchTraining(Training):
    """Training in which every batch makes two steps.

    >>> from adbench.methods.bernoulli import RepeatedBatchTraining
    >>> [RepeatedBatchTraining(steps=4, batch=8, lr=1e-4).batch_number(k) for k in range(4)]
    [0, 0, 1, 1]
    """

    def batch_number(self, k: int) -> int:
        return k // 2


@dataclass(frozen=True)
class BinaryCodecConfig:
    """The binarising autoencoder.

    bits: of the code at each position.
    coder_size: length of a bit's vector.
    coder_widths: channels at each resolution.
    coder_steps, coder_batch, coder_lr, coder_ema: of its training.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.bernoulli import BinaryCodecConfig, MaskedBernoulli
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> codec = BinaryCodecConfig(bits=4, coder_size=8, coder_widths=(4, 8))
    >>> MaskedBernoulli(Spec(1, (16, 16)), size=None, network=network, codec=codec).codec.latent
    (4, 8, 8)
    """

    bits: Count = 128
    coder_size: Count = 256
    coder_widths: Many[Count] = (32, 64, 64, 128)
    coder_steps: Count = 120_000
    coder_batch: Count = 24
    coder_lr: Positive = 1.08e-4
    coder_ema: Decay | None = 0.9995


@dataclass(frozen=True)
class BernoulliQuirks:
    """What the authors' code does and this method does not by default.

    forward: "erasure" flips ones alone, "symmetric" zeros as well.
    twice: every batch makes two steps of the UNet.
    soft_end: the last step ignores the mask and yields chances, not bits.
    start_offset: chains start one level below the one that samples were brought to.
    drawn_code: codes of test samples are drawn, not the likelier bits.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.bernoulli import BernoulliQuirks, BinaryCodecConfig, MaskedBernoulli
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> codec = BinaryCodecConfig(bits=4, coder_size=8, coder_widths=(4, 8))
    >>> method = MaskedBernoulli(Spec(1, (16, 16)), size=None, network=network, codec=codec,
    ...     quirks=BernoulliQuirks(twice=True))
    >>> [method.plan.batch_number(k) for k in range(4)]
    [0, 0, 1, 1]
    """

    forward: Literal["symmetric", "erasure"] = "symmetric"
    twice: bool = False
    soft_end: bool = False
    start_offset: bool = False
    drawn_code: bool = False


NETWORK = HeadsUNetConfig(128, (1, 2, 2, 2), 2, attention=(False, True, False, False), heads=1)
SCHEDULE = ScheduleConfig()
TRAINING = Training(steps=120_000, batch=36, lr=1e-4, clip=None, ema=0.999)
CODEC = BinaryCodecConfig()
CORRECTED = BernoulliQuirks()


class MaskedBernoulli(Method):
    """Masked Bernoulli diffusion: the squared error of a code whose unlikely bits were replaced.

    posterior: of a soft x_0, inserted as it is or as the mixture over both bits.
    chance: the probability of a flip above which a bit is replaced.
    sampling_steps: network calls of a chain, None for every level.
    shown: the map: the squared difference, or the share of bits that were replaced there.
    judged: the score: the map's mean, or the share of bits that were replaced.

    >>> from adbench.methods.bernoulli import MaskedBernoulli
    >>> MaskedBernoulli.published, "chance" in MaskedBernoulli.inference
    (200, True)
    """

    levels, published = (50, 100, 150, 200, 250, 300, 400, 500), 200
    inference = frozenset(
        ["chance", "posterior", "sampling_steps", "soft_end", "start_offset", "drawn_code", "shown",
         "judged"]
    )  # fmt: skip

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, codec: BinaryCodecConfig = CODEC,
        network: HeadsUNetConfig = NETWORK, schedule: ScheduleConfig = SCHEDULE,
        posterior: Literal["plugin", "mixture"] = "plugin", training: Training = TRAINING,
        chance: PositiveFraction = 0.5, sampling_steps: Count | None = None,
        shown: Literal["residual", "mask"] = "residual", judged: Literal["map", "mask"] = "map",
        quirks: BernoulliQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(
            spec.shape, size, side_divisor(codec.coder_widths) * network.side_divisor, low=0.0
        )
        self.codec = Binary((spec.channels, *self.canvas.padded_shape), bits=codec.bits,
            size=codec.coder_size, widths=codec.coder_widths)  # fmt: skip
        net = network.build(len(spec.shape), codec.bits, eps=1e-5, zero_attention=True)
        process = partial(Bernoulli, forward=quirks.forward, posterior=posterior)
        about = f"codes of {self.canvas}"
        self.denoiser = Denoiser(
            net, schedule.build(), prediction_type="flip", process=process, trained_on=about
        )
        kind = RepeatedBatchTraining if quirks.twice else Training
        self.plan = kind(**vars(training))
        self.codec_plan = Training(codec.coder_steps, codec.coder_batch, codec.coder_lr,
            clip=training.clip, ema=codec.coder_ema, ema_warm=training.ema_warm,
            decay=training.decay)  # fmt: skip
        self.chance, self.sampling_steps, self.quirks = chance, sampling_steps, quirks
        self.shown, self.judged = shown, judged

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def flipped(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            z = self.codec.sample_bits(self.canvas.forward(x), rng.fork("code"))
            return self.denoiser.loss(z.to(x.dtype), rng)

        CodecTraining(self.codec, self.codec_plan, self.canvas, fit_scale=False).train(
            train, context
        )
        train_module(flipped, self.denoiser, train, context, self.plan, "diffusion")

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        z = (
            self.codec.sample_bits(inner, rng.fork("code"))
            if self.quirks.drawn_code
            else self.codec.encode(inner)
        )
        codes, mask = self.reconstruct_codes(z, levels, rng)
        decoded = self.codec.decode(codes.flatten(0, 1)).view(len(levels), *inner.shape)
        normal = self.canvas.inverse(decoded).clamp(0, 1)  # (L, N, C, *S)
        error = (normal - x).square().sum(2)
        share = mask.to(x.dtype).flatten(0, 1)  # (L * N, bits, *S')
        if self.shown == "mask":
            wide = resize(share.sum(1, keepdim=True) / mask.shape[2], self.canvas.padded_shape)
            error = self.canvas.inverse(wide).view_as(error)
        detection = Detection.from_map(error, normal)
        if self.judged == "map":
            return detection
        score = share.flatten(1).sum(1) / share[0].numel()
        return Detection(score.view(len(levels), -1), error, normal)

    def reconstruct_codes(
        self, z: Tensor, levels: Sequence[int], rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """Reconstruct codes from each level; return them and which of their bits were replaced,
        (L, N, bits, *S') each.

        z: (N, bits, *S') of 0 and 1
        levels: on the 1000-step scale
        rng: one stream per sample
        """
        process = self.denoiser.process_as(Bernoulli)
        starts = [process.schedule.to_level(at) for at in levels]
        index, level = enumerate_chains(starts, len(z), 1)
        streams, level = repeat_streams(rng, 1).rows(index), to_device(level, z.device)
        noise_level = (level + int(self.quirks.start_offset)).clamp(max=process.schedule.T)
        codes = z[to_device(index, z.device)]
        noise = uniform_noise(streams.fork("start"), z.shape[1:], noise_level)
        noisy = process.add_noise(codes, noise_level, noise)
        sampler = MaskedBernoulliStep(
            process,
            StepNoise(streams.fork("step"), uniform_noise),
            codes,
            self.chance,
            self.quirks.soft_end,
        )
        paths = [sampling_levels(at, self.sampling_steps) for at in starts for _ in range(len(z))]
        ends = run_chains(self.denoiser, sampler, noisy, paths)
        return ends.view(len(levels), *z.shape), sampler.mask.view(len(levels), *z.shape)


class MaskedBernoulliStep:
    """Ancestral steps of bits, in which only bits change that once were probably flipped.

    process, draws: the process and what the steps draw.
    codes: (M, bits, *S), the code of each chain.
    chance: the probability of a flip above which a bit may change from then on.
    soft_end: as in `BernoulliQuirks`.

    mask: (M, bits, *S) bool, which bits may differ from the code.

    >>> import torch
    >>> from adbench.engine.diffusion.bernoulli import Bernoulli, uniform_noise
    >>> from adbench.engine.diffusion.denoiser import Estimate
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> from adbench.methods.bernoulli import MaskedBernoulliStep
    >>> codes, draws = torch.tensor([[[1.0, 0.0]]]), StepNoise(Rng(["a"]), uniform_noise)
    >>> process, zero = Bernoulli(build_schedule("even", 4)), torch.tensor([0])
    >>> sampler = MaskedBernoulliStep(process, draws, codes, chance=0.5, soft_end=False)
    >>> batch = ChainBatch(zero, zero, zero, zero + 1, zero + 1, zero, [sampler.plan_steps([1, 0])])
    >>> flips, bits = torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.2, 0.8]]])
    >>> sampler.advance(codes, codes, Estimate(flips, bits), batch), sampler.mask
    (tensor([[[0., 0.]]]), tensor([[[ True, False]]]))
    """

    memory = 0

    def __init__(
        self, process: Bernoulli, draws: StepNoise, codes: Tensor, chance: float, soft_end: bool
    ) -> None:
        self.process, self.draws, self.codes = process, draws, codes
        self.chance, self.soft_end = chance, soft_end
        self.mask = torch.zeros_like(codes, dtype=torch.bool)

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        chain = batch.device_chain
        last = (batch.end_level == 0).view(-1, *[1] * (x.ndim - 1))
        flipped = estimate.noise > self.chance
        self.mask[chain] |= flipped & ~last if self.soft_end else flipped
        mixed = torch.where(self.mask[chain], estimate.clean, self.codes[chain])
        chance = self.process.reverse_probability(x, mixed, batch.start_level, batch.end_level)
        drawn = (self.draws(batch, x) < chance).to(x.dtype)
        end = estimate.clean if self.soft_end else (mixed > 0.5).to(x.dtype)
        return torch.where(last, end, drawn)
