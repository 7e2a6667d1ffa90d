"""LafitE: diffusion on features of a frozen network, edited towards a memory of normal features.

Yin et al., "LafitE: Latent Diffusion Model with Feature Editing for Unsupervised Multi-class
Anomaly Detection", 2023. https://arxiv.org/abs/2307.08059 There is no public code.

As in the paper: features of several depths on one grid of 32 x 32; a memory of 10 % of the normal
feature vectors, chosen as a greedy core-set; at inference every vector is replaced by a weighted
mean of its nearest in the memory, noise is added up to the noise level, and DDIM reconstructs; the
distance to the features before editing, resized and blurred, is the map, and the maximum of its
local mean the score.

The paper does not say, and these are our choices: how many neighbours and which weights (5, a
softmax over distances), the noise level (theirs was chosen on synthetic anomalies, as the protocol
does with `level=pseudo`; `published` is a placeholder), the steps of DDIM, where the UNet attends
and what it predicts, that features are standardised, and the size of the pooling window (UniAD's).
Differs: features of EfficientNet-lite0, whose weights a package ships, not of EfficientNet-B4; the
memory is chosen from at most `bank` training samples; the learning rate decays along a cosine,
theirs once, after 800 of 1000 epochs. `edit=False` is the paper's ablation; level 0 is the memory
without diffusion. No average of weights (EMA) is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..datasets.base import Spec, Split
from ..engine.codecs.codec import Features
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.memory_bank import MemoryBank
from ..engine.features.pretrained import FeaturesName
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, NonNegative, PositiveFraction
from ..engine.sampling.reconstruct import SamplingConfig, reconstruct
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.blur import gaussian_blur
from ..engine.transforms.resizing import ResizePad, resize
from .base import Detection, Method

MIN_INPUT_SIDE = 64
"""Pixels along the shorter side that the frozen network is shown at least: its last layer halves
them four times."""


@dataclass(frozen=True)
class MemoryConfig:
    """The memory of normal feature vectors.

    share: of the normal vectors that the memory stores.
    bank: number of training samples that they come from at most.
    neighbours, weights: of the weighted mean that replaces a vector, see
    `MemoryBank.replace_by_neighbours`.
    edit: whether features are edited at all.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.lafite import LafitE, MemoryConfig
    >>> try:
    ...     LafitE(Spec(1, (64, 64)), memory=MemoryConfig(share=1.5))
    ... except ValueError as error:
    ...     print(error)
    share lies above 0 and up to 1; bank, neighbours, grid and pool are at least 1: 1.5, 512, ...
    """

    share: PositiveFraction = 0.1
    bank: Count = 512
    neighbours: Count = 5
    weights: Literal["softmax", "inverse"] = "softmax"
    edit: bool = True


NETWORK = HeadsUNetConfig(256, (1, 2, 3, 4), 2, attention=(False, True, True, False), heads=4)
SCHEDULE = ScheduleConfig(beta="cosine")
TRAINING = Training(steps=57_000, batch=64, lr=1e-4, weight_decay=1e-4, clip=None, ema=None,
    decay="cosine")  # fmt: skip
MEMORY = MemoryConfig()


class LafitE(Method):
    """Score every pixel by the distance of its features from their reconstruction.

    size: pixels along the longest axis; at least MIN_INPUT_SIDE along the shortest.
    features: name of the frozen network.
    grid: positions of the features along the longest axis, padded to what the UNet can halve.
    predicts: what the UNet predicts; noise of more features than the UNet is wide does not pass
    through it, and "clean" asks less of a narrow one.
    sampling_steps: of DDIM, None for one per level.
    blur: standard deviation of the map's blur in pixels of `size`.
    pool: side of the window of the score's local mean in pixels of `size`.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.lafite import LafitE
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> method = LafitE(Spec(1, (16, 16)), size=64, features="effperc-random", grid=8,
    ...     network=network)
    >>> method.canvas.padded_shape, method.codec.latent
    ((64, 64), (176, 8, 8))
    """

    levels, published = (50, 100, 200, 300, 400, 600), 200
    ndims = frozenset({2})
    inference = frozenset({"neighbours", "weights", "edit", "sampling_steps", "blur", "pool"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 224, features: FeaturesName = "effperc", grid: Count = 32,
        network: HeadsUNetConfig = NETWORK, schedule: ScheduleConfig = SCHEDULE,
        predicts: Literal["noise", "clean", "v"] = "noise", training: Training = TRAINING,
        memory: MemoryConfig = MEMORY, sampling_steps: Count | None = 25, blur: NonNegative = 4.0,
        pool: Count = 16,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        share, bank, neighbours = memory.share, memory.bank, memory.neighbours
        if not 0 < share <= 1 or min(bank, neighbours, grid, pool) < 1:
            raise ValueError(
                f"share lies above 0 and up to 1; bank, neighbours, grid and pool are at least 1: "
                f"{share}, {bank}, {neighbours}, {grid}, {pool}"
            )
        if memory.weights not in ("softmax", "inverse"):
            raise ValueError(f"weights are softmax or inverse, not {memory.weights!r}")
        side = max(
            size or max(spec.shape), ceil(MIN_INPUT_SIDE * max(spec.shape) / min(spec.shape))
        )
        self.canvas = ResizePad(spec.shape, side, low=0.0)
        places = ResizePad(spec.shape, grid, network.side_divisor).padded_shape
        shape = (spec.channels, *self.canvas.padded_shape)
        self.codec = Features(shape, features=features, grid=places)
        net = network.build(2, self.codec.latent[0])
        self.denoiser = Denoiser(net, schedule.build(), prediction_type=predicts,
            trained_on=f"features of {self.canvas}")  # fmt: skip
        self.memory = MemoryBank(self.codec.latent[0])
        self.plan = training
        self.memory_config = memory
        self.chain = SamplingConfig(sampling_steps, sampler="ddim")
        self.blur, self.pool = blur, pool

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.codec.encode(self.canvas.forward(x)), rng)

        self.codec.fit_scale(train, context, preprocess=self.canvas.forward)
        context.place(self)
        retry_out_of_memory(
            lambda: self._fill_memory(train, context), self, context, "filling the memory bank",
            context.on_event,
        )  # fmt: skip
        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        original = self.codec.encode(self.canvas.forward(x))  # (N, K, *grid)
        start, memory = original, self.memory_config
        if memory.edit:
            start = self.memory.replace_by_neighbours(original, memory.neighbours, memory.weights)
        normal = reconstruct(self.denoiser, start, levels, rng, sampling=self.chain)[:, :, 0]
        square = torch.zeros_like(normal[:, :, 0])
        for restored, feature in zip(normal.unbind(2), original.unbind(1), strict=True):
            square += (restored - feature).square()  # in this order, in any batch
        distance = square.sqrt().flatten(0, 1)[:, None]  # (L * N, 1, *grid)
        wide = gaussian_blur(resize(distance, self.canvas.padded_shape)[:, 0], self.blur)
        score = maximum_local_mean(wide, self.pool).view(len(levels), len(x))
        map = self.canvas.inverse(wide[:, None])[:, 0]
        return Detection(score, map.view(len(levels), len(x), *x.shape[2:]))

    @torch.no_grad()
    def _fill_memory(self, train: Split, context: TrainingContext) -> None:
        index, features = evenly_spaced_indices(len(train), self.memory_config.bank), []
        for start in range(0, len(index), 64):
            x = torch.stack([train[i].x for i in index[start : start + 64]]).to(context.device)
            features.append(self.codec.encode(self.canvas.forward(x)))
        vectors = torch.cat(features).movedim(1, -1).flatten(0, 2)  # (M, K)
        self.memory.fill(vectors, self.memory_config.share, context)


def maximum_local_mean(maps: Tensor, side: int) -> Tensor:
    """Return the highest mean of each map over any square window, (M,).

    maps: (M, H, W)
    side: of the window, or the map's own side where that is smaller

    >>> import torch
    >>> from adbench.methods.lafite import maximum_local_mean
    >>> maximum_local_mean(torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]), 2)
    tensor([0.5000])
    """
    window = [min(side, n) for n in maps.shape[1:]]
    return avg_pool2d(maps[:, None], window, 1).flatten(1).amax(1)
