"""cDDPM: disturb the whole sample, and tell the denoiser what it looked like in one short code.

Behrendt et al., "Guided Reconstruction with Conditioned Diffusion Models for Unsupervised Anomaly
Detection in Brain MRIs", 2023. https://arxiv.org/abs/2312.04215
https://github.com/FinnBehrendt/Conditioned-Diffusion-Models-UAD

As in the authors' code: pDDPM's process and network without its patches; a ResNet-50 codes the
clean sample in 512 numbers, which are put beside the embedding of time and scale and shift every
block; both learn together from the absolute error; at inference x_0 is predicted in one step from
each of three levels, and the mean of the three is compared. Differs: the encoder is not trained
beforehand on masked samples; it normalises groups of channels, not batches, so that a sample's code
is its own; of the authors' augmentations there is the gamma, without their bias fields, blur and
ghosts; noise is drawn per sample (`shared_noise` is theirs). The paper's three levels, 250, 500 and
750, are here a level and `ensemble` times it, so that it can be swept; `ensemble=[1]` is one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.canvas import Canvas
from ..engine.context import Context
from ..engine.denoiser import Denoiser
from ..engine.nets import divisor, unet
from ..engine.noise import named
from ..engine.rng import Rng
from ..engine.run import Run
from ..engine.sample import guess
from ..engine.schedule import schedule
from ..engine.train import Training, minimise
from .base import Detection, Method


class CDDPM(Method):
    """code: numbers that the encoder says of a sample. encoder_layers, encoder_width: its blocks at
    each of four resolutions, and the channels inside the first. ensemble: what the level is
    multiplied with, at most to 1000."""

    levels, published = (100, 200, 300, 400, 500, 600), 500
    inference = frozenset({"ensemble", "repeats"})

    def __init__(
        self, spec: Spec, *,
        size: int | None = 96, width: int = 128, mults: Sequence[float] = (1, 2, 2),
        res_blocks: int = 3, head_channels: int = 64, T: int = 1000, beta: str = "cosine",
        code: int = 512, encoder_layers: Sequence[int] = (3, 4, 6, 3), encoder_width: int = 64,
        power: Literal[1, 2] = 1, noise: str = "simplex", octaves: int = 6,
        persistence: float = 0.8, frequency: float = 64, normalise: bool = False,
        origin_jitter: bool = False, shared_noise: bool = False,
        steps: int = 14_400, batch: int = 32, lr: float = 1e-4, clip: float | None = None,
        ema: float | None = None, ema_warm: bool = False,
        decay: Literal["none", "cosine"] = "none", augment: bool = True,
        ensemble: Sequence[float] = (0.5, 1.0, 1.5), repeats: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if not ensemble or min(ensemble) <= 0:
            raise ValueError(f"ensemble is one or more numbers above 0, not {list(ensemble)}")
        widths, ndim = [int(width * m) for m in mults], len(spec.shape)
        self.canvas = Canvas(spec.shape, size, divisor(widths))
        self.noise = named(noise, octaves=octaves, persistence=persistence, frequency=frequency,
            normalise=normalise, origin_jitter=origin_jitter, shared=shared_noise)  # fmt: skip
        net = unet(ndim, spec.channels, widths, res_blocks=res_blocks, updown=True,
            head_channels=head_channels, scale_shift=True, vector=code)  # fmt: skip
        self.encoder = Context(
            ndim, spec.channels, code, layers=encoder_layers, width=encoder_width
        )
        about = f"{self.noise} on {self.canvas}"
        self.denoiser = Denoiser(
            net, schedule(beta, T), predicts="clean", clip=self.canvas.range, about=about
        )
        self.plan = Training(steps, batch, lr, clip=clip, ema=ema, ema_warm=ema_warm, decay=decay)
        self.power: Literal[1, 2] = power
        self.augment, self.ensemble, self.repeats = augment, tuple(ensemble), repeats

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = gamma(x, rng.fork("gamma")) if self.augment else x
            inner = self.canvas.enter(x)
            code = self.encoder(inner)
            return self.denoiser.loss(inner, rng, noise=self.noise, given=[code], power=self.power)

        minimise(loss, self, train, run, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.enter(x)
        asked = [min(1000, round(level * m)) for level in levels for m in self.ensemble]
        made = guess(
            self.denoiser,
            inner,
            asked,
            rng,
            noise=self.noise,
            repeats=self.repeats,
            given=[self.encoder(inner)],
        ).mean((2, 3))  # (L * E, N, C, *outer)
        parts = self.canvas.leave(made).unflatten(0, (len(levels), -1)).unbind(1)
        normal = sum(parts, torch.zeros_like(parts[0])) / len(parts)
        return Detection.from_map((normal - x).abs().mean(2), normal)


def gamma(x: Tensor, rng: Rng) -> Tensor:
    """x (N, C, *S) in [0, 1], half of the samples to a power between exp(-0.3) and exp(0.3)."""
    chance, power = rng.uniform((2,)).float().T
    power = torch.where(chance < 0.5, (0.6 * power - 0.3).exp(), 1.0)
    return x.clamp(min=0) ** power.view(-1, *[1] * (x.ndim - 1))
