"""REFLECT: rectified flow from a sample's corrupted code straight to its normal code, in one step.

Beizaee, Hajimiri, Ben Ayed, Lodygensky, Desrosiers and Dolz, "REFLECT: Rectified Flows for
Efficient Brain Anomaly Correction Transport", MICCAI 2025. https://arxiv.org/abs/2508.02889
https://github.com/farzad-bz/REFLECT

As in the authors' code: the code of a normal sample is blended with foreign codes in up to four
objects, sqrt(1 - m) z + sqrt(m) r; a UNet learns the velocity of the line between the two, at
times drawn evenly, with the squared error. At inference nothing is drawn: Euler's method from the
code as it is, in one step. The map is the mean of the difference of images decoded before and
after and of that of the codes, both clipped and blurred. `reflow=1` is REFLECT-2: a second round
of training, whose lines begin at the corrupted codes and end where the first round takes them.

Differs: the autoencoder, theirs is one of medical images, is trained here and first; foreign codes
are those of other training samples in soft shapes, theirs of textures (DTD), which no package
ships; the UNet attends to its own positions alone; the second round goes on from the weights of
the first; the score is the map's maximum; numbers of training steps are ours, theirs are 200
epochs. Time runs from the normal code at level 0 to the corrupted one at 1000, the other way than
theirs: the noise level is that at which a sample's code is taken to lie on its line, theirs is
1000, and lower ones correct less.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.kl_config import KLConfig
from ..engine.codecs.training import CodecTraining
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.flow import Flow
from ..engine.diffusion.schedule import linear_schedule, sampling_levels
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Natural,
    NonNegative,
    Pair,
    Positive,
    PositiveFraction,
    Range,
)
from ..engine.sampling.continuous_batching import run_chains
from ..engine.sampling.flow_solvers import Euler
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.training.loss import LossFunction
from ..engine.transforms.difference_maps import Combine, combine_differences
from ..engine.transforms.patch_interpolation import PatchInterpolation
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class Corruption:
    """The objects that are blended into the codes of normal samples in training.

    objects: the most of them in one code; at least one.
    radius: smallest and largest radius of one in terms of the side.
    bank: number of training samples that foreign codes come from.

    >>> from adbench.methods.reflect import Corruption
    >>> Corruption(objects=1).radius
    (0.05, 0.25)
    """

    objects: Count = 4
    radius: Range[PositiveFraction] = (0.05, 0.25)
    bank: Count = 512


EDGE = 0.05
"""A soft shape ends where it is below this: its square root would reach far."""

CODEC = KLConfig()
NETWORK = HeadsUNetConfig(256, (1, 2, 4), 2, attention=(True, True, True), heads=8)
CORRUPTION = Corruption()
TRAINING = Training(steps=100_000, batch=96, lr=1e-4, weight_decay=1e-4, clip=None, ema=None)


class REFLECT(Method):
    """REFLECT: what one step of a rectified flow corrects in a code and in the image decoded.

    reflow: number of further rounds of training, on the ends of the flow of the round before.
    reflow_steps: training steps of each; None for as many as the first round has.
    sampling_steps: of Euler's method, at most.
    clips: the largest difference that counts, of images in [-1, 1] and of codes of unit variance.
    blurs: standard deviations of the blur of either map, in pixels and in positions of the code.
    combine: the arithmetic or geometric mean of the two maps, or one of them.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.codecs.kl_config import KLConfig
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.reflect import REFLECT
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, True), heads=1)
    >>> codec = KLConfig(coder_widths=(4, 8), latent_channels=2)
    >>> method = REFLECT(Spec(1, (16, 16)), size=None, codec=codec, network=network, reflow=1)
    >>> method.denoiser.process.name, [plan.steps for plan in method.training_plans()]
    ('flow', [100000, 23200, 100000])
    """

    levels, published = (250, 500, 750, 1000), 1000
    ndims = frozenset({2})
    inference = frozenset({"clips", "blurs", "combine"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, codec: KLConfig = CODEC, network: HeadsUNetConfig = NETWORK,
        corruption: Corruption = CORRUPTION, training: Training = TRAINING,
        reflow: Natural = 0, reflow_steps: Count | None = None, sampling_steps: Count = 1,
        clips: Pair[Positive] = (0.4, 0.4), blurs: Pair[NonNegative] = (3.0, 1.0),
        combine: Combine = "arithmetic",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        divisor = side_divisor(codec.coder_widths) * network.side_divisor
        self.canvas = ResizePad(spec.shape, size, divisor)
        self.codec = codec.build(spec.channels, self.canvas)
        self.denoiser = Denoiser(
            network.build(2, self.codec.latent[0]), linear_schedule(), process=Flow,
            prediction_type="velocity", trained_on=f"corrupted codes of {self.canvas}",
        )  # fmt: skip
        self.plan, self.codec_plan = training, codec.plan(training)
        if reflow:
            self.reflow_plan = replace(training, steps=reflow_steps or training.steps)
        elif reflow_steps:
            self.ineffective_arguments["reflow_steps",] = "reflow_steps are of reflow=1 and more"
        self.corruption, self.reflow, self.sampling_steps = corruption, reflow, sampling_steps
        self.clips, self.blurs = tuple(clips), tuple(blurs)
        self.combine: Combine = combine

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        CodecTraining(self.codec, self.codec_plan, self.canvas).train(train, context)
        chosen = [train[i].x for i in evenly_spaced_indices(len(train), self.corruption.bank)]
        bank = self.codec.encode(self.canvas.forward(torch.stack(chosen).to(context.device)))
        train_module(self._loss(bank, None), self.denoiser, train, context, self.plan, "diffusion")
        for k in range(self.reflow):
            teacher = deepcopy(self.denoiser).eval()
            context.place(teacher)
            loss = self._loss(bank, teacher)
            train_module(loss, self.denoiser, train, context, self.reflow_plan, f"reflow {k}")

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        z = self.codec.encode(self.canvas.forward(x))
        image, to = self.codec.decode(z), self.denoiser.schedule.to_level
        rows, like = (y.repeat(len(levels), 1, 1, 1) for y in (z, image))
        corrected = self._correct(self.denoiser, rows, [to(at) for at in levels for _ in x])
        normal = self.codec.decode(corrected)
        pixel = (normal - like).abs().amax(1)  # (L * N, *outer)
        code = (corrected - rows).abs().mean(1)
        combined = combine_differences(
            pixel, code, clips=self.clips, blurs=self.blurs, combine=self.combine
        ).view(len(levels), len(x), 1, *self.canvas.padded_shape)
        combined = replace(self.canvas, low=0.0, high=1.0).inverse(combined)[:, :, 0]
        normal = self.canvas.inverse(normal.view(len(levels), len(x), *normal.shape[1:]))
        return Detection(combined.flatten(2).amax(2), combined, normal.clamp(0, 1))

    def corrupt(self, z: Tensor, bank: Tensor, rng: Rng) -> Tensor:
        """Blend foreign codes into codes in up to `objects` soft shapes each, (N, C, *S').

        z: (N, C, *S')
        bank: (K, C, *S')
        rng: one stream per sample
        """
        most, level = self.corruption.objects, torch.zeros(len(z), dtype=torch.int64)
        source = PatchInterpolation(bank, size=self.corruption.radius)
        count = 1 + rng.fork("count").integers(most)
        for k in range(most):
            own = rng.fork("object", k)
            other, shape = source(own, z.shape[1:], level).split([z.shape[1], 1], 1)
            share = shape * ((k < count) * own.fork("opacity").uniform()).view(-1, 1, 1, 1)
            share = torch.where(shape > EDGE, share, 0.0).to(z.dtype)
            z = (1 - share).sqrt() * z + share.sqrt() * other
        return z

    def _loss(self, bank: Tensor, teacher: Denoiser | None) -> LossFunction:
        """The loss of a round: on lines from the corrupted code to the code itself, or to where
        the teacher takes it."""

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            z = self.codec.encode(self.canvas.forward(x))
            corrupted = self.corrupt(z, bank, rng.fork("corruption"))
            if teacher is not None:
                z = self._correct(teacher, corrupted, [teacher.schedule.T] * len(z))
            return self.denoiser.loss(z, rng, noise=lambda *_: corrupted)

        return loss

    def _correct(self, denoiser: Denoiser, z: Tensor, levels: Sequence[int]) -> Tensor:
        """Codes at the ends of their lines, from those levels down, (M, C, *S')."""
        paths = [sampling_levels(level, self.sampling_steps) for level in levels]
        return run_chains(denoiser, Euler(denoiser.process_as(Flow)), z, paths)
