"""LMD: lift a sample off its manifold with a mask, map it back by inpainting, detect the distance.

Liu et al., "Unsupervised Out-of-Distribution Detection with Diffusion Inpainting", ICML 2023.
https://arxiv.org/abs/2302.10326 https://github.com/zhenzhel/lift_map_detect

As in the authors' code: a chessboard of 8 blocks a side, of which every second reconstruction
inpaints the white and every other one the black blocks; ten reconstructions; what is known is
joined in after every step with noise of its level, and no step is repeated; the score is the median
over reconstructions of the perceptual distance between the image and its reconstruction. Adam with
warm-up, 1000 steps.

Differs: DDPM's process and steps, theirs is the sub-VP process with Euler-Maruyama's; the
perceptual network is one that a package ships (`features=lpips` is another; None for the squared
error, one of theirs). They have scores alone: the map is the median of the distance over the
reconstructions that inpaint the pixel. A noise level is where the inpainting begins, from the
sample with noise; theirs is the highest, where next to nothing of the sample is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.pretrained import FeaturesName, build_perceptual
from ..engine.networks.per_sample_dropout import PerSampleDropout
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Decay, Several
from ..engine.runtime.transfer import to_device
from ..engine.sampling.reconstruct import SamplingConfig, repeat_streams
from ..engine.sampling.repaint import inpaint
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = HeadsUNetConfig(128, (1, 2, 2, 2), 2, attention=(False, True, False, False), heads=1)
SCHEDULE = ScheduleConfig()
TRAINING = Training(steps=200_000, batch=128, lr=2e-4, warmup=5_000)


class LMD(Method):
    """Score a sample by its distance from inpaintings of a chessboard's blocks.

    dropout: probability.
    blocks: of the chessboard along every axis.
    repeats: number of reconstructions; odd ones inpaint the other blocks than even ones.
    sampling_steps: network calls of a reconstruction, None for every level.
    features: the network of the perceptual distance, of volumes by planes; None for the squared
        error.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.lmd import LMD
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> method = LMD(Spec(1, (16, 16)), network=network, features=None, sampling_steps=10)
    >>> method.published, method.sampling.steps
    (1000, 10)
    """

    levels, published = (250, 500, 750, 1000), 1000
    ndims = frozenset({2, 3})
    inference = frozenset({"blocks", "repeats", "sampling_steps"})

    search_space = SearchSpace(lr=Interval(2e-5, 1e-3, log=True), blocks=Interval(2, 16, log=True))

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 32, network: HeadsUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, dropout: Decay = 0.1, training: Training = TRAINING,
        blocks: Several = 8, repeats: Count = 10, sampling_steps: Count | None = None,
        features: FeaturesName | None = "effperc",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        self.perceptual = None if features is None else build_perceptual(features)
        about = f"gaussian on {self.canvas}"
        if self.perceptual is not None:
            self.perceptual.check_sides(self.canvas.padded_shape)
            about += f", distance by {self.perceptual.weights_id}"
        net = network.build(len(spec.shape), spec.channels)
        self.denoiser = Denoiser(net, schedule.build(), clip=self.canvas.range, trained_on=about)
        self.dropout = PerSampleDropout(net, dropout)
        self.plan, self.sampling = training, SamplingConfig(sampling_steps)
        self.blocks, self.repeats = blocks, repeats

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner = self.canvas.forward(x)
            with self.dropout.with_streams(rng, inner):
                return self.denoiser.loss(inner, rng)

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")
        context.place(self)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner, count = self.canvas.forward(x), self.repeats
        target = self.canvas.inverse(inner).clamp(0, 1)
        white = to_device(chessboard(inner.shape[2:], self.blocks), x.device)
        region = torch.stack([white if r % 2 else ~white for r in range(count)])  # (R, *)
        rows = inner.repeat(count, *[1] * (inner.ndim - 1))  # (R * N, C, *)
        masks = region.repeat_interleave(len(x), 0)[:, None]
        changed = self.canvas.inverse(region[:, None].to(x.dtype) * self._span + self.canvas.low)
        changed = changed > 0.5  # (R, 1, *S)
        parts = []
        for level in levels:
            filled = inpaint(
                self.denoiser, rows, rows, masks, level, repeat_streams(rng, count),
                sampling=self.sampling,
            )  # fmt: skip
            normal = self.canvas.inverse(filled).clamp(0, 1)  # (R * N, C, *S)
            distance = self._distance(target.repeat(count, *[1] * (x.ndim - 1)), normal)
            distance, normal = (v.unflatten(0, (count, len(x))) for v in (distance, normal))
            mean = torch.stack([one.mean() for one in distance.flatten(0, 1)])
            map = _median(distance, changed.expand_as(distance))
            parts.append((_median(mean.view(count, -1)), map, normal.mean(0)))
        return Detection(*(torch.stack(part) for part in zip(*parts, strict=True)))

    @property
    def _span(self) -> float:
        return self.canvas.high - self.canvas.low

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of images in [0, 1] at every pixel, (M, *S)."""
        if self.perceptual is None:
            return (x - y).square().mean(1)
        return self.perceptual.distance_any_axes(x, y)


def chessboard(shape: Sequence[int], blocks: int) -> Tensor:
    """The white blocks of a chessboard, (*S) bool; that in the corner is white.

    shape: S
    blocks: along every axis; where they do not divide a side, some are a pixel longer

    >>> from adbench.methods.lmd import chessboard
    >>> chessboard((2, 4), 2).int()
    tensor([[1, 1, 0, 0],
            [0, 0, 1, 1]], dtype=torch.int32)
    """
    number = torch.zeros(tuple(shape), dtype=torch.long)
    for axis, n in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = n
        number = number + (torch.arange(n) * blocks // n).view(view)
    return number % 2 == 0


def _median(values: Tensor, where: Tensor | None = None) -> Tensor:
    """The median over the first axis, of two middle values their mean; 0 of none.

    where: of the shape of values, which values count
    """
    if where is None:
        where = torch.ones_like(values, dtype=torch.bool)
    ranked = torch.where(where, values, torch.inf).sort(0).values
    count = where.sum(0, keepdim=True)
    low = ranked.gather(0, ((count - 1) // 2).clamp(min=0))
    high = ranked.gather(0, (count // 2).clamp(max=len(values) - 1))
    return torch.where(count > 0, (low + high) / 2, 0.0)[0]
