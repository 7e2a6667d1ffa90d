"""mDDPM: pDDPM trained to remove, besides the noise, frequency components pasted into its input.

Iqbal et al., "Unsupervised Anomaly Detection in Medical Images Using Masked Diffusion Model", MLMI
2023. https://arxiv.org/abs/2305.19867 https://github.com/hasan1292/mDDPM

As in the authors' code: rectangles of the sample's own low or high frequencies are pasted into the
input within the bounding box of its foreground, 5 of 96 pixels from its ends. Noise is then added
in one cell of the grid, and the network predicts the clean sample. Nothing is pasted at inference,
which is pDDPM's. The paper names two ways of masking besides; the released code has this one alone.
Differs, as pDDPM here does: noise is drawn per sample (`shared_noise` is theirs), and S may have
any number of axes. What lies outside of the cell does not count (`inpaint`); theirs adds it as a
constant, which no weight can change. Empty samples stay as they are; theirs stop the training, as
do those whose foreground is too small for the margins: here the margins shrink.

The weights are those with the lowest loss on calibration samples, as theirs on healthy
validation samples (`select="last"`: those of the last step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.unet_config import MiddleAttentionUNetConfig
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Natural, PositiveFraction, Range
from ..engine.runtime.transfer import to_device
from ..engine.sampling.patches import (
    box_masks,
    patch_conflict,
    reconstruct_patches,
    tile_masks,
)
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class CutMix:
    """Rectangles of a sample's own low or high frequencies, pasted into it in training.

    cuts: the most that are pasted, 0 for none.
    share: their largest side in terms of the foreground's; the smallest is half of it.
    band: the half-widths, in steps of the spectrum, between low and high.

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.mddpm import CutMix, frequency_cutmix
    >>> x = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    >>> pasted = [frequency_cutmix(x, Rng(["a"]), **vars(CutMix(cuts, 0.4))) for cuts in (0, 5)]
    >>> [torch.equal(y, x) for y in pasted]
    [True, False]
    """

    cuts: Natural = 5
    share: PositiveFraction = 0.18
    band: Range[Natural] = (2, 10)


@dataclass(frozen=True)
class MDDPMQuirks:
    """What the authors' code does and this method does not by default.

    shared_noise: one field of simplex noise for all samples of a batch.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> from adbench.methods.mddpm import MDDPM, MDDPMQuirks
    >>> network = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8)
    >>> method = MDDPM(Spec(1, (16, 16)), size=None, network=network, patch=8,
    ...     quirks=MDDPMQuirks(shared_noise=True))
    >>> method.noise.shared
    True
    """

    shared_noise: bool = False


NETWORK = MiddleAttentionUNetConfig(128, (1, 2, 2), 3, head_channels=64)
SCHEDULE = ScheduleConfig(beta="cosine")
CUTMIX = CutMix()
NOISE = NoiseConfig("simplex", generator="2d")
TRAINING = Training(steps=115_200, batch=32, lr=1e-4, clip=None, ema=None, select="best")
CORRECTED = MDDPMQuirks()
MARGIN = 5 / 96
"""Of the canvas's side: from a pasted rectangle to the end of the foreground's bounding box."""


class MDDPM(Method):
    """mDDPM: pDDPM whose training pastes frequency components of a sample into its input.

    patch, stride, inpaint, power, repeats, aggregate, clip_clean: as in pDDPM.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> from adbench.methods.mddpm import MDDPM
    >>> network = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8)
    >>> len(MDDPM(Spec(1, (16, 16)), size=None, network=network, patch=8).tiles)
    4
    """

    levels, published = (100, 200, 300, 400, 500, 600, 750), 500
    selects_best = True
    inference = frozenset({"stride", "aggregate", "repeats", "clip_clean"})
    tiles: Tensor  # (P, 1, *outer) bool; together they cover everything
    cells: Tensor  # (P, 1, *outer) bool; the grid that training draws boxes from

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        share=Interval(0.05, 0.4),
        power=Choice(1, 2),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 96, network: MiddleAttentionUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, patch: Count = 48, stride: Count | None = None,
        inpaint: bool = True, power: Literal[1, 2] = 1, cutmix: CutMix = CUTMIX,
        noise: NoiseConfig = NOISE, training: Training = TRAINING, repeats: Count = 1,
        aggregate: Literal["cut", "mean"] = "cut", clip_clean: bool = False,
        quirks: MDDPMQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        cuts, share, band = cutmix.cuts, cutmix.share, cutmix.band
        low, high = band
        if cuts < 0 or not 0 < share <= 1 or not 0 <= low <= high:
            raise ValueError(
                f"cuts are at least 0, share lies in 0..1 and band rises: {cuts}, {share}, {band}"
            )
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        self.noise = noise.build(shared=quirks.shared_noise)
        net = network.build(len(spec.shape), spec.channels)
        about = f"{self.noise} on {self.canvas}"
        self.denoiser = Denoiser(net, schedule.build(), prediction_type="clean", trained_on=about)
        tiles = tile_masks(self.canvas.padded_shape, patch, stride or patch)
        self.register_buffer("tiles", tiles, persistent=False)
        self.register_buffer(
            "cells", tile_masks(self.canvas.padded_shape, patch, patch), persistent=False
        )
        if conflict := patch_conflict(self.canvas.padded_shape, patch):
            self.ineffective_arguments["patch", "size"] = conflict
        self.plan = training
        self.power: Literal[1, 2] = power
        self.aggregate: Literal["cut", "mean"] = aggregate
        self.cuts, self.share, self.band = cuts, share, (low, high)
        self.inpaint, self.repeats = inpaint, repeats
        self.clip = self.canvas.range if clip_clean else None

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = self.canvas.forward(x)
            image = (x + 1) / 2
            pasted = frequency_cutmix(
                image, rng.fork("paste"), cuts=self.cuts, share=self.share, band=self.band
            )
            return self.denoiser.loss(
                x,
                rng,
                noise=self.noise,
                corrupted=2 * pasted - 1,
                region=self.cells[rng.fork("box").integers(len(self.cells))],
                error_region="region" if self.inpaint else "everywhere",
                power=self.power,
            )

        train_module(loss, self, train, context, self.plan, validation=calibration)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        healthy = reconstruct_patches(
            self.denoiser,
            self.canvas.forward(x),
            levels,
            rng,
            noise=self.noise,
            tiles=self.tiles,
            repeats=self.repeats,
            aggregate=self.aggregate,
            clip=self.clip,
        )
        normal = self.canvas.inverse(healthy)  # (L, N, C, *S)
        return Detection.from_map((normal - x).abs().mean(2), normal)


def frequency_cutmix(
    x: Tensor, rng: Rng, *, cuts: int, share: float, band: tuple[int, int]
) -> Tensor:
    """Paste up to `cuts` boxes of its own low or high frequencies into every sample, (N, C, *S).

    A box lies within the bounding box of the foreground, as far from its ends as `MARGIN`; outside
    of the foreground, which is what is above 0, nothing changes.

    x: (N, C, *S) in [0, 1]
    rng: one stream per sample
    cuts: the most boxes, 0 for none; every number up to it is as probable
    share: the largest side of a box in terms of the foreground's along the first axis; the
        smallest is half of it
    band: the smallest and the largest half-width of the low frequencies

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.mddpm import frequency_cutmix
    >>> x = torch.rand(1, 1, 16, 16)
    >>> pasted = frequency_cutmix(x, Rng(["a"]), cuts=5, share=0.4, band=(2, 4))
    >>> pasted.shape, bool((pasted != x).any())
    (torch.Size([1, 1, 16, 16]), True)
    """
    if cuts == 0:
        return x
    foreground = (x > 1e-6).any(1, keepdim=True)  # (N, 1, *S)
    first, extent = _bounding_box(foreground)  # (N, axes) each
    longest = (extent[:, 0] * share).long()  # (N,)
    half = band[0] + rng.fork("band").integers(band[1] - band[0] + 1)
    keep_low = rng.fork("coin").integers(2).bool()
    part = split_frequencies(x, half, keep_low)
    count, shape = rng.fork("count").integers(cuts + 1), x.shape[2:]
    room = (extent - longest[:, None]).clamp(min=0)
    widths = to_device(torch.tensor([round(n * MARGIN) for n in shape]), x.device)
    margin = widths.minimum(room // 2)
    corners = (room - 2 * margin).clamp(min=1)  # theirs is one fewer than fit, too
    for cut in range(cuts):
        draw = rng.fork("cut", cut)
        shortest = longest // 2
        spread = (longest - shortest + 1)[:, None]
        side = shortest[:, None] + (draw.uniform((len(shape),)) * spread).long()
        low = first + margin + (draw.uniform((len(shape),)) * corners).long()
        box = box_masks(shape, low, side) & foreground
        chosen = (count > cut).view(-1, *[1] * (x.ndim - 1))
        x = torch.where(box & chosen, part, x)
    return x


def _bounding_box(foreground: Tensor) -> tuple[Tensor, Tensor]:
    """The first pixel and the extent of (N, 1, *S) bool along every axis, (N, axes) each; of an
    empty sample 0 and 0."""
    firsts, extents = [], []
    for axis in range(2, foreground.ndim):
        occupied = foreground.movedim(axis, 1).flatten(2).any(2)  # (N, n)
        index = torch.arange(occupied.shape[1], device=foreground.device)
        last = torch.where(occupied, index, -1).amax(1)
        first = torch.where(occupied, index, len(index)).amin(1)
        extents.append((last - first + 1).clamp(min=0))
        firsts.append(first * (last >= 0))
    return torch.stack(firsts, 1), torch.stack(extents, 1)


def split_frequencies(x: Tensor, half: Tensor, keep_low: Tensor) -> Tensor:
    """Keep the low or the high frequencies of every sample, (N, C, *S); both add up to x.

    x: (N, C, *S)
    half: steps of the spectrum along every axis below which a frequency is low, (N,)
    keep_low: whether the low ones are kept, or else the high ones, (N,) bool

    >>> import torch
    >>> from adbench.methods.mddpm import split_frequencies
    >>> x = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    >>> split_frequencies(x, torch.tensor([1]), torch.tensor([True]))
    tensor([[[0.5000, 0.5000, 0.5000, 0.5000]]])
    """
    axes = tuple(range(2, x.ndim))
    inside = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    for axis in axes:
        n = x.shape[axis]
        step = torch.fft.fftfreq(n, 1 / n, device=x.device).round()  # whole steps, 0 first
        near = (step >= -half[:, None]) & (step < half[:, None])  # (N, n)
        sides = [len(x)] + [1] * (x.ndim - 1)
        sides[axis] = n
        inside = inside & near.view(sides)
    low = torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * inside, dim=axes).real
    return torch.where(keep_low.view(-1, *[1] * (x.ndim - 1)), low, x - low)
