"""DeCo-Diff: predict how far each position of a sample's code deviates from normal, and correct it.

Beizaee, Lodygensky, Desrosiers and Dolz, "Correcting Deviations from Normality: A Reformulated
Diffusion Model for Multi-Class Unsupervised Anomaly Detection", CVPR 2025.
https://arxiv.org/abs/2503.19357 https://github.com/farzad-bz/DeCo-Diff

As in the authors' code: on a share of up to 0.7 of the cells of a grid, noise is added to the code
of a normal sample, or it is replaced by cells of other codes; the UNet predicts the deviation,
which is none in all other cells; ten levels of a cosine schedule. At inference nothing is drawn:
from the code as it is, the network is called at every second level and its deviation subtracted.
The map is the square root of the difference of codes times that of the images decoded from them,
both clipped and blurred, and its maximum the score.

Differs: the autoencoder, theirs is Stable Diffusion's, is trained here and first, and its codes are
never drawn; cells of other codes come from a bank of training samples, theirs from the batch, and
each sample here has its own size of cells; the network has no class as an input and attends to its
own positions alone, theirs in transformer blocks to a class too; the learning rate falls to 0,
theirs to a quarter; images are not cropped from larger ones, which fills the edge of one that is
shifted, and all are shifted, theirs every other one or none (`augment=False`). The noise level is
the level that the network is called with first: theirs is the ninth of ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.kl_config import KLConfig
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.deviation import Deviation
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.per_sample_dropout import PerSampleDropout
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Decay,
    Fraction,
    Many,
    NonNegative,
    Pair,
    Positive,
    PositiveFraction,
)
from ..engine.sampling.continuous_batching import run_chains
from ..engine.sampling.solvers import DdimOde
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_shift
from ..engine.transforms.difference_maps import Combine, combine_differences
from ..engine.transforms.grid_mixing import mix_cells, random_cells
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class DeCoDiffUNetConfig(HeadsUNetConfig):
    """dropout: probability.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.codecs.kl_config import KLConfig
    >>> from adbench.methods.deco_diff import DeCoDiff, DeCoDiffUNetConfig
    >>> network = DeCoDiffUNetConfig(8, (1, 2), 1, attention=(False, True), heads=1, dropout=0.1)
    >>> codec = KLConfig(coder_widths=(4, 8))
    >>> DeCoDiff(Spec(1, (16, 16)), size=None, codec=codec, network=network).dropout.rate
    0.1
    """

    dropout: Decay = 0.4


@dataclass(frozen=True)
class Deviations:
    """The deviations that are added to codes of normal samples in training.

    cells: sides of a cell, in positions of the code.
    chances: probability of each side; in all 1.
    disturbed, foreign: highest share of the cells that deviate, and of those that come from
    another sample.
    bank: number of training samples they come from.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.deco_diff import DeCoDiff, Deviations
    >>> try:
    ...     DeCoDiff(Spec(1, (16, 16)), deviations=Deviations(cells=(1, 2), chances=(0.5, 0.4)))
    ... except ValueError as error:
    ...     print(error)
    every cell size has a chance, in all 1: (1, 2), (0.5, 0.4)
    """

    cells: Many[Count] = (1, 2, 4, 8)
    chances: Many[Fraction] = (0.4, 0.3, 0.2, 0.1)
    disturbed: PositiveFraction = 0.7
    foreign: Fraction = 0.3
    bank: Count = 512


CODEC = KLConfig()
NETWORK = DeCoDiffUNetConfig(256, (1, 2, 4), 2, attention=(True, True, True), heads=8)
SCHEDULE = ScheduleConfig(T=10, beta="cosine")
DEVIATIONS = Deviations()
TRAINING = Training(steps=23_200, batch=128, lr=1e-4, weight_decay=1e-4, clip=None, ema=None,
    decay="cosine", warmup=290)  # fmt: skip


class DeCoDiff(Method):
    """DeCo-Diff: differences of a code and its correction, and of the images decoded from them.

    augment: shift training images by up to a 64th of the side.
    stride: levels of the schedule from one network call to the next.
    clips: the largest difference that counts, of images in [-1, 1] and of codes of unit variance.
    blurs: standard deviations of the blur of either map, in pixels and in positions of the code.
    combine: the geometric or arithmetic mean of the two maps, or one of them.

    >>> from adbench.methods.deco_diff import DeCoDiff
    >>> DeCoDiff.published, sorted(DeCoDiff.ndims)
    (900, [2])
    """

    levels, published = (100, 300, 500, 700, 900), 900
    ndims = frozenset({2})
    inference = frozenset({"stride", "clips", "blurs", "combine"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, codec: KLConfig = CODEC, network: DeCoDiffUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, deviations: Deviations = DEVIATIONS,
        augment: bool = True, training: Training = TRAINING, stride: Count = 2,
        clips: Pair[Positive] = (0.4, 0.2), blurs: Pair[NonNegative] = (3.0, 1.0),
        combine: Combine = "geometric",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        cells, chances, bank = deviations.cells, deviations.chances, deviations.bank
        disturbed, foreign = deviations.disturbed, deviations.foreign
        if len(cells) != len(chances) or abs(sum(chances) - 1) > 1e-6 or min(*chances, 0) < 0:
            raise ValueError(f"every cell size has a chance, in all 1: {cells}, {chances}")
        if not (0 < disturbed <= 1 and 0 <= foreign <= 1) or min(*cells, bank, stride) < 1:
            raise ValueError(
                f"shares lie in 0..1, and cells, bank and stride are at least 1: "
                f"{disturbed}, {foreign}, {cells}, {bank}, {stride}"
            )
        if min(clips) <= 0:
            raise ValueError(f"differences are clipped above 0, not at {clips}")
        self.canvas = ResizePad(
            spec.shape, size, side_divisor(codec.coder_widths) * network.side_divisor
        )
        self.codec = codec.build(spec.channels, self.canvas)
        net = network.build(2, codec.latent_channels)
        self.dropout = PerSampleDropout(net, network.dropout)
        about = f"deviations of codes of {self.canvas}"
        self.denoiser = Denoiser(net, schedule.build(), process=Deviation, trained_on=about)
        self.plan = training
        self.codec_plan = codec.plan(training)
        self.cells, self.chances = tuple(cells), tuple(chances)
        self.disturbed, self.foreign, self.bank = disturbed, foreign, bank
        self.shift = 1 / 64 if augment else 0.0
        self.stride, self.clips, self.blurs = stride, tuple(clips), tuple(blurs)
        self.combine: Combine = combine

    @property
    def process(self) -> Deviation:
        return self.denoiser.process_as(Deviation)

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        CodecTraining(self.codec, self.codec_plan, self.canvas, shift=self.shift).train(
            train, context
        )
        chosen = [train[i].x for i in evenly_spaced_indices(len(train), self.bank)]
        bank = self.codec.encode(self.canvas.forward(torch.stack(chosen).to(context.device)))

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            z = self.codec.encode(self.canvas.forward(random_shift(x, rng, self.shift)))

            def deviation(streams: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
                return self.sample_deviation(z, bank, streams, level)

            with self.dropout.with_streams(rng, z):
                return self.denoiser.loss(z, rng, noise=deviation)

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        z = self.codec.encode(self.canvas.forward(x))
        image, to = self.codec.decode(z), self.process.schedule.to_level
        paths = [sampling_levels(to(level), stride=self.stride) for level in levels for _ in x]
        rows, like = z.repeat(len(levels), 1, 1, 1), image.repeat(len(levels), 1, 1, 1)
        corrected = run_chains(self.denoiser, DdimOde(self.process), rows, paths)
        normal = self.codec.decode(corrected)
        pixel = (normal - like).abs().amax(1)  # (L * N, *outer)
        code = (corrected - rows).abs().mean(1)
        combined = self.combine_maps(pixel, code).view(
            len(levels), len(x), 1, *self.canvas.padded_shape
        )
        combined = replace(self.canvas, low=0.0, high=1.0).inverse(combined)[:, :, 0]
        normal = self.canvas.inverse(normal.view(len(levels), len(x), *normal.shape[1:]))
        return Detection(combined.flatten(2).amax(2), combined, normal.clamp(0, 1))

    def combine_maps(self, pixel: Tensor, code: Tensor) -> Tensor:
        """Clip, blur and combine the differences of images and of codes, (M, *outer) in 0..1.

        pixel: (M, *outer)
        code: (M, *S')
        """
        return combine_differences(
            pixel, code, clips=self.clips, blurs=self.blurs, combine=self.combine
        )

    def sample_deviation(self, z: Tensor, bank: Tensor, rng: Rng, level: Tensor) -> Tensor:
        """Draw the deviations of codes at their levels, (N, C, *S'): in some cells by noise or by
        cells of the bank's codes, elsewhere 0.

        z: (N, C, *S')
        bank: (K, C, *S')
        rng: one stream per sample
        level: (N,)
        """
        noise, size = rng.fork("normal").normal(z.shape[1:]), rng.fork("size").uniform()
        share = self.disturbed * rng.fork("disturbed").uniform()
        other = self.foreign * rng.fork("foreign").uniform()
        below, out = 0.0, torch.zeros_like(z)
        for side, chance in zip(self.cells, self.chances, strict=True):
            own = rng.fork("side", side)
            replaced = random_cells(own.fork("replaced"), z.shape[2:], side, other)
            drawn = torch.where(replaced, mix_cells(bank, own.fork("shuffled"), side), noise)
            there = random_cells(own.fork("there"), z.shape[2:], side, share)
            there = there & ((size >= below) & (size < below + chance)).view(-1, 1, 1, 1)
            out = torch.where(there, self.process.deviation_from_noise(z, drawn, level), out)
            below += chance
        return out
