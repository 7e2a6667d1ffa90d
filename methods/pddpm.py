"""pDDPM: reconstruct a sample patch by patch, each from its surroundings without noise.

Behrendt et al., "Patched Diffusion Models for Unsupervised Anomaly Detection in Brain MRI",
MIDL 2023. https://arxiv.org/abs/2303.03758
https://github.com/FinnBehrendt/patched-Diffusion-Models-UAD

As in the authors' code: a cosine schedule, two-dimensional simplex noise, x_0 predicted in one step
from level 500, absolute error inside the box only, attention in the middle of the UNet only (theirs
is configured for more and gets none). Differs: noise is drawn per sample (`shared_noise` is theirs,
one field for all); random boxes are of full size (`boxes="clipped"` is theirs: one in four is, and
the corner is covered once in 10 000); overlapping patches overlap, and their mean is one; S may
have any number of axes, whose noise is three-dimensional where they are not two, and need not be
square.

The weights are those with the lowest loss on calibration samples, as theirs on healthy
validation samples (`select="last"`: those of the last step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.unet_config import MiddleAttentionUNetConfig
from ..engine.noise.noise_config import NoiseConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, Interval, SearchSpace
from ..engine.runtime.setting_types import Count
from ..engine.sampling.patches import (
    patch_conflict,
    random_boxes,
    reconstruct_patches,
    tile_masks,
)
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class PDDPMQuirks:
    """What the authors' code does and this method does not by default.

    shared_noise: one field of simplex noise for all samples of a batch.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> from adbench.methods.pddpm import PDDPM, PDDPMQuirks
    >>> network = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8)
    >>> method = PDDPM(Spec(1, (16, 16)), size=None, network=network, patch=8,
    ...     quirks=PDDPMQuirks(shared_noise=True))
    >>> method.noise.shared
    True
    """

    shared_noise: bool = False


NETWORK = MiddleAttentionUNetConfig(128, (1, 2, 2), 3, head_channels=64)
SCHEDULE = ScheduleConfig(beta="cosine")
NOISE = NoiseConfig("simplex", generator="2d")
TRAINING = Training(steps=19_200, batch=32, lr=1e-4, clip=None, ema=None, select="best")
CORRECTED = PDDPMQuirks()


class PDDPM(Method):
    """pDDPM: the absolute error of a sample reconstructed patch by patch.

    patch: side of a patch in pixels of the canvas.
    stride: distance of patches at inference, `patch` if None.
    inpaint: in training the error counts inside of the box only.
    boxes: where training adds noise: cells of the grid, or random boxes, all of them inside or
        "overhanging" so that every pixel is covered alike.
    power: of the absolute error in the loss.
    repeats: draws of noise whose reconstructions are averaged.
    aggregate: overlapping patches are cut (the last one counts) or averaged.
    clip_clean: clamp the estimate of x_0 to the data's range.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> from adbench.methods.pddpm import PDDPM
    >>> network = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8)
    >>> len(PDDPM(Spec(1, (16, 16)), size=None, network=network, patch=8, stride=4).tiles)
    9
    """

    levels, published = (100, 200, 300, 400, 500, 600, 750), 500
    selects_best = True
    inference = frozenset({"stride", "aggregate", "repeats", "clip_clean"})
    tiles: Tensor  # (P, 1, *outer) bool; together they cover everything
    cells: Tensor  # (P, 1, *outer) bool; the grid that training draws boxes from

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        power=Choice(1, 2),
        frequency=Interval(8.0, 128.0, log=True),
        noise=Choice("simplex", "gaussian"),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 96, network: MiddleAttentionUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, patch: Count = 48, stride: Count | None = None,
        inpaint: bool = True,
        boxes: Literal["grid", "random", "overhanging", "clipped"] = "grid",
        power: Literal[1, 2] = 1, noise: NoiseConfig = NOISE, training: Training = TRAINING,
        repeats: Count = 1, aggregate: Literal["cut", "mean"] = "cut", clip_clean: bool = False,
        quirks: PDDPMQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        self.noise = noise.build(shared=quirks.shared_noise)
        net = network.build(len(spec.shape), spec.channels)
        about = f"{self.noise} on {self.canvas}"
        self.denoiser = Denoiser(net, schedule.build(), prediction_type="clean", trained_on=about)
        self.register_buffer(
            "tiles", tile_masks(self.canvas.padded_shape, patch, stride or patch), persistent=False
        )
        self.register_buffer(
            "cells", tile_masks(self.canvas.padded_shape, patch, patch), persistent=False
        )
        self.plan = training
        if conflict := patch_conflict(self.canvas.padded_shape, patch):
            self.ineffective_arguments["patch", "size"] = conflict
        self.patch, self.inpaint = patch, inpaint
        self.boxes: Literal["grid", "random", "overhanging", "clipped"] = boxes
        self.power: Literal[1, 2] = power
        self.aggregate: Literal["cut", "mean"] = aggregate
        self.repeats = repeats
        self.clip = self.canvas.range if clip_clean else None

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(
                self.canvas.forward(x),
                rng,
                noise=self.noise,
                region=self._training_boxes(rng.fork("box")),
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

    def _training_boxes(self, rng: Rng) -> Tensor:
        """A box per sample to train in, (N, 1, *outer) bool."""
        if self.boxes == "grid":
            return self.cells[rng.integers(len(self.cells))]
        where = "inside" if self.boxes == "random" else self.boxes
        return random_boxes(rng, self.canvas.padded_shape, self.patch, placement=where)
