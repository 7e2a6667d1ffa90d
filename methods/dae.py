"""DAE: a denoising autoencoder for coarse noise, which removes anomalies with the noise.

Kascenas et al., "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain MRI", MIDL
2022. https://openreview.net/forum?id=Bm8-t_ggzPD https://github.com/AntanasKascenas/DenoisingAE

As in the authors' code: noise of standard deviation 0.2 on a grid of 16 x 16, stretched from edge
to edge, rolled by any distance and added to the foreground, where alone the squared error counts;
at inference no noise; the absolute error, the mean over channels, in the foreground without its
rim. Their median filter is the protocol's to apply. Differs: one cosine for the learning rate,
where theirs goes up and down 21 times; AdamW without AMSGrad, where theirs has Adam with weight
decay; every sample's noise is rolled by a distance of its own (`shared_roll`: one for a batch, as
theirs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..datasets.base import Spec, Split
from ..engine.diffusion.cold import ColdDiffusion
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule import linear_schedule
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.plain_unet import PlainUNet
from ..engine.noise.noise import NoiseName, build_noise
from ..engine.noise.pyramid import Coarse
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Many, NonNegative, Positive, ZeroOrOdd
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

TRAINING = Training(steps=67_200, batch=16, lr=1e-4, weight_decay=1e-5, clip=None, ema=None,
    decay="cosine")  # fmt: skip


@dataclass(frozen=True)
class DAEQuirks:
    """What the authors' code does and this method does not by default.

    shared_roll: the noise of all samples of a batch is rolled by one distance.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.dae import DAE, DAEQuirks
    >>> quirks = DAEQuirks(shared_roll=True)
    >>> DAE(Spec(1, (32, 32)), size=None, widths=(4, 8), quirks=quirks).noise.shared_roll
    True
    """

    shared_roll: bool = False


CORRECTED = DAEQuirks()


class DAE(Method):
    """DAE: the absolute error of a denoising autoencoder, in the foreground.

    widths: channels at each resolution.
    noise: its kind, "coarse" for the paper's.
    grid, deviation: of coarse noise, points along every axis and their standard deviation.
    foreground: a pixel is foreground where its sum over channels is above this.
    erode: side, in pixels, of the neighbourhood that must be foreground for a pixel to count in the
        map; 0 lets every pixel of the foreground count.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.dae import DAE
    >>> DAE(Spec(1, (32, 32)), size=None, widths=(4, 8)).noise
    Coarse(grid=16, deviation=0.2, shared_roll=False)
    """

    inference = frozenset({"erode"})

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        grid=Interval(4, 32, log=True),
        deviation=Interval(0.05, 0.5, log=True),
        weight_decay=Interval(1e-6, 1e-3, log=True),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 128, widths: Many[Count] = (64, 128, 256, 512),
        noise: NoiseName = "coarse",
        grid: Count = 16, deviation: Positive = 0.2, training: Training = TRAINING,
        foreground: NonNegative = 0.01, erode: ZeroOrOdd = 5, quirks: DAEQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, side_divisor(widths), low=0.0)
        if min(self.canvas.padded_shape) < 2 * side_divisor(widths):
            raise ValueError(
                f"DAE halves every side {len(widths) - 1} times and wants "
                f"{2 * side_divisor(widths)} "
                f"pixels at least, not {min(self.canvas.padded_shape)}; fewer widths or a "
                "larger size do"
            )
        if erode < 0 or (erode and erode % 2 == 0):
            raise ValueError(f"erode is 0 or odd, not {erode}")
        coarse = Coarse(grid, deviation, quirks.shared_roll)
        self.noise = coarse if noise == "coarse" else build_noise(noise)
        net = PlainUNet(len(spec.shape), spec.channels, widths)
        self.denoiser = Denoiser(
            net,
            linear_schedule(1),
            prediction_type="clean",
            process=self._noise_process,
            trained_on=f"{self.noise} on {self.canvas}",
        )
        self.plan = training
        self.foreground, self.erode = foreground, erode

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = self.canvas.forward(x)
            return self.denoiser.loss(x, rng, noise=self.noise, region=self._foreground_mask(x))

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        estimate = self.denoiser(inner, torch.ones(len(x), dtype=torch.long, device=x.device))
        normal = self.canvas.inverse(estimate)
        error = (normal - x).abs().mean(1) * erode_mask(self._foreground_mask(x)[:, 0], self.erode)
        count = len(levels)
        return Detection.from_map(
            error.expand(count, *error.shape), normal.expand(count, *normal.shape)
        )

    def _foreground_mask(self, x: Tensor) -> Tensor:
        """The foreground, (N, 1, *S) bool."""
        return x.sum(1, keepdim=True) > self.foreground

    @staticmethod
    def _noise_process(schedule: torch.nn.Module) -> ColdDiffusion:
        def add(x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
            return x + noise * (level > 0).view(-1, *[1] * (x.ndim - 1))

        return ColdDiffusion(linear_schedule(1), add, name="noise added")


def erode_mask(inside: Tensor, side: int) -> Tensor:
    """Return where more than 95 % of a pixel's neighbourhood are inside a mask, (N, *S) bool.

    inside: (N, *S) bool; beyond the image nothing is inside
    side: of the neighbourhood in pixels, odd; 0 returns the mask

    >>> import torch
    >>> from adbench.methods.dae import erode_mask
    >>> erode_mask(torch.tensor([[True, True, True, False]]), 3)
    tensor([[False,  True, False, False]])
    """
    if side == 0:
        return inside
    count, reach = inside.double(), side // 2
    for axis in range(1, inside.ndim):
        sides = [0, 0] * (inside.ndim - 1 - axis) + [reach, reach]
        padded = pad(count, sides)
        count = sum((padded.narrow(axis, i, inside.shape[axis]) for i in range(side)), 0 * count)
    return count > 0.95 * side ** (inside.ndim - 1)
