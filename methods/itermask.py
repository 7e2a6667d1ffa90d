"""IterMask2 and IterMask3D: fill in what is masked, and unmask what was filled in well.

Liang et al., "IterMask2: Iterative Unsupervised Anomaly Segmentation via Spatial and Frequency
Masking for Brain Lesions in MRI", MICCAI 2024. https://arxiv.org/abs/2406.02422
https://github.com/ZiyunLiang/IterMask2 https://github.com/ZiyunLiang/IterMask3D

As in the authors' code: data in [-3, 3]; two UNets of 32 channels without noise levels. One sees
the high frequencies of the image, within whose brain 60 % with the largest squared error are masked
first. The other sees the image with standard normal noise in the mask, beside its high
frequencies, and learns to return the image from random masks of blocks. What it restores with an
error below the threshold is unmasked, until the mask shrinks by less than 1 %. The threshold is
exceeded by 20 % of the masked pixels of normal calibration samples. The map is the squared error of
the last reconstruction in the brain; a volume begins with all of the brain masked (IterMask3D), and
the score is the share of the brain that stays masked.

Differs: the brain is the foreground of the sample; the chance of every block of the random masks
is that of being hit by the authors' draws; the low frequencies end at `radius` cycles per side,
theirs at 15 of 128 pixels; the threshold of volumes is calibrated as that of images, where theirs
is read off each volume's own curve of errors. Both networks get a time as well, always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..datasets.base import Spec, Split
from ..engine.diffusion.cold import ColdDiffusion
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule import linear_schedule
from ..engine.networks.per_sample_dropout import PerSampleDropout
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.noise.noise import gaussian
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Decay, Fraction, NonNegative
from ..engine.runtime.transfer import to_device
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.high_frequency import high_frequencies
from ..engine.transforms.random_masks import BlockMasks
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = HeadsUNetConfig(32, (1, 1, 2, 3, 4), 2, attention=(False, False, True, True, True),
    heads=1)  # fmt: skip
TRAINING = Training(steps=90_000, batch=32, lr=1e-4, clip=None, ema=None)
IMAGE_MASKS = BlockMasks()
VOLUME_MASKS = BlockMasks((1 / 48,), (600.0,))  # nearly whole ellipsoids
MAX_CALIBRATION_VALUES = 2**26
"""Errors among which the threshold is chosen, about."""


class IterMask(Method):
    """Fill in a mask that shrinks where the filling is near to the sample.

    radius: low frequencies are those nearer to 0, in cycles per side.
    first: how the first mask is made: "hint" by a network of its own that sees high frequencies
        alone, "all" of the foreground, "auto" for hint of images and all of volumes.
    first_share: of the foreground, the share that the first mask has ("hint").
    dropout: probability.
    quantile: the share of masked normal pixels whose error is below the threshold.
    shrink: a mask that loses less than this share is the last.
    iterations: at most.
    calibration: number of calibration samples at most.
    foreground: a pixel is foreground where its sum over channels is above this.
    judged: the score is the share of the foreground in the last mask, or the map's mean.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.itermask import IterMask
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> method = IterMask(Spec(1, (16, 16)), size=None, network=network)
    >>> len(method.training_plans()), method.tau
    (2, tensor(0.))
    >>> IterMask(Spec(1, (8, 8, 8)), size=None, network=network).first is None
    True
    """

    ndims = frozenset({2, 3})
    inference = frozenset({"shrink", "iterations", "judged", "first_share"})
    tau: Tensor  # (): what is restored with a smaller error is unmasked

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        radius=Interval(2, 30, log=True),
        quantile=Interval(0.6, 0.95),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, network: HeadsUNetConfig = NETWORK, dropout: Decay = 0.1,
        training: Training = TRAINING, radius: NonNegative = 15.0,
        first: Literal["auto", "hint", "all"] = "auto", first_share: Fraction = 0.6,
        quantile: Fraction = 0.8, shrink: Fraction = 0.01, iterations: Count = 50,
        calibration: Count = 256, foreground: NonNegative = 0.01,
        judged: Literal["mask", "map"] = "mask",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        axes, channels = len(spec.shape), spec.channels
        self.canvas = ResizePad(spec.shape, size, network.side_divisor, -3.0, 3.0)
        options = {"updown": True, "scale_shift": True, "eps": 1e-5, "zero_attention": True}
        about = f"radius {radius:g} on {self.canvas}"

        def denoiser(degradation: str, **more: int) -> Denoiser:
            return Denoiser(
                network.build(axes, channels, **options, **more),
                linear_schedule(1),
                prediction_type="clean",
                process=lambda schedule: ColdDiffusion(
                    schedule, DEGRADATIONS[degradation], name=degradation
                ),
                trained_on=about,
            )

        separate = first == "hint" or (first == "auto" and axes == 2)
        self.first = denoiser("nothing") if separate else None
        self.filler = denoiser("noise alone", image=channels)
        self.filler_dropout = PerSampleDropout(self.filler.net, dropout)
        self.first_dropout = PerSampleDropout(
            nn.ModuleList() if self.first is None else self.first.net, dropout
        )
        self.plan = training
        self.first_plan = training if separate else None
        self.masks = IMAGE_MASKS if axes == 2 else VOLUME_MASKS
        self.radius, self.first_share, self.quantile = radius, first_share, quantile
        self.shrink, self.iterations, self.calibration = shrink, iterations, calibration
        self.foreground, self.judged = foreground, judged
        self.register_buffer("tau", torch.tensor(0.0))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        first = self.first

        def filler_loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner, mask = self.canvas.forward(x), self._random_mask(x, rng)
            hint = high_frequencies(inner, self.radius)
            with self.filler_dropout.with_streams(rng, inner):
                return self.filler.loss(
                    inner, rng, region=mask, error_region="everywhere", conditioning=[hint]
                )

        train_module(filler_loss, self.filler, train, context, self.plan, "filler")
        if first is not None and self.first_plan is not None:

            def first_loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
                inner = self.canvas.forward(x)
                hint = high_frequencies(inner, self.radius)
                with self.first_dropout.with_streams(rng, inner):
                    return first.loss(inner, rng, corrupted=hint)

            train_module(first_loss, first, train, context, self.first_plan, "first")
        context.place(self)
        self.tau.fill_(
            retry_out_of_memory(
                lambda: self._calibrated_threshold(calibration, context),
                self, context, "calibrating", context.on_event,
            )
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, inside = self.canvas.forward(x), self._inside(x)
        hint = high_frequencies(inner, self.radius)
        mask, final = self._shrink(inner, hint, inside, self._first_mask(inner, hint, inside), rng)
        normal = self.canvas.inverse(final)
        error = (normal - x).square().mean(1) * (x.sum(1) > self.foreground)
        lead = (len(levels), len(x))
        detection = Detection.from_map(
            error.expand(*lead, *error.shape[1:]), normal.expand(*lead, *normal.shape[1:])
        )
        if self.judged == "mask":
            share = mask.flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
            detection = Detection(share.expand(lead), detection.map, detection.reconstruction)
        return detection

    def _first_mask(self, inner: Tensor, hint: Tensor, inside: Tensor) -> Tensor:
        """The mask to begin with, (N, 1, *S) bool."""
        if self.first is None:
            return inside
        error = self._error(self.first(hint, _only_level(inner)), inner) * inside
        ranked, count = error.flatten(1).sort(1).values, inside.flatten(1).sum(1)
        masked = (count * self.first_share).round().long()
        last = (ranked.shape[1] - masked - 1).clamp(min=0)
        cut = ranked.gather(1, last[:, None]).view(-1, *[1] * (inside.ndim - 1))
        return (error > cut) & inside

    def _shrink(
        self, inner: Tensor, hint: Tensor, inside: Tensor, mask: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """The last mask, (N, 1, *S) bool, and the sample with it filled in, (N, C, *S)."""
        mask, final = mask.clone(), inner.clone()
        rows = torch.arange(len(inner))
        index = to_device(rows, inner.device)
        for iteration in range(self.iterations):
            streams = rng.rows(rows).fork("fill", iteration)
            target, masked = inner[index], mask[index]
            filled = self._fill(target, hint[index], masked, streams)
            final[index] = filled
            if iteration == self.iterations - 1:
                break
            smaller = (self._error(filled, target) > self.tau) & masked
            before, after = masked.flatten(1).sum(1), smaller.flatten(1).sum(1)
            going = before - after >= self.shrink * before.clamp(min=1)
            going = going.cpu().nonzero().flatten()  # the one wait of an iteration
            if not len(going):
                break
            rows, going = rows[going], to_device(going, inner.device)
            index = index[going]
            mask[index] = smaller[going]
        return mask, final

    def _fill(self, inner: Tensor, hint: Tensor, mask: Tensor, rng: Rng) -> Tensor:
        """The network's reconstruction of samples with noise in their masks, (N, C, *S)."""
        level = _only_level(inner)
        noise = gaussian(rng, inner.shape[1:], level)
        return self.filler(torch.where(mask, noise, inner), level, hint)

    def _random_mask(self, x: Tensor, rng: Rng) -> Tensor:
        return self.masks(self._inside(x), rng.fork("mask"))

    def _inside(self, x: Tensor) -> Tensor:
        """The foreground on the canvas, (N, 1, *padded) bool."""
        total = self.canvas.forward(x).sub(self.canvas.low).sum(1, keepdim=True)
        return total > self.foreground * (self.canvas.high - self.canvas.low)

    def _error(self, y: Tensor, inner: Tensor) -> Tensor:
        return (y - inner).square().mean(1, keepdim=True)

    @torch.no_grad()
    def _calibrated_threshold(self, calibration: Split, context: TrainingContext) -> float:
        """The error that a share `quantile` of the masked calibration pixels do not exceed."""
        chosen = evenly_spaced_indices(len(calibration), self.calibration)
        if not chosen:
            raise ValueError(
                "IterMask calibrates its threshold on calibration samples; there are none"
            )
        values = []
        for start in range(0, len(chosen), 8):
            samples = [calibration[i] for i in chosen[start : start + 8]]
            x = torch.stack([s.x for s in samples]).to(context.device)
            rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
            inner, mask = self.canvas.forward(x), self._random_mask(x, rng)
            hint = high_frequencies(inner, self.radius)
            error = self._error(self._fill(inner, hint, mask, rng.fork("fill")), inner)
            for e, m in zip(error.cpu(), mask.cpu(), strict=True):
                errors = e[m]
                values.append(errors[:: 1 + len(errors) * len(chosen) // MAX_CALIBRATION_VALUES])
        pooled = torch.cat(values)
        if not len(pooled):
            raise ValueError(
                f"no calibration sample has a foreground above {self.foreground:g}, so that there "
                "is nothing to calibrate on; a lower `foreground` would find one"
            )
        rank = max(1, round(len(pooled) * self.quantile))
        return pooled.kthvalue(rank).values.item()


DEGRADATIONS = {
    "nothing": lambda x, level, noise: x,
    "noise alone": lambda x, level, noise: noise,
}


def _only_level(x: Tensor) -> Tensor:
    """Level 1 of 1 for every row, (N,)."""
    return torch.ones(len(x), dtype=torch.long, device=x.device)
