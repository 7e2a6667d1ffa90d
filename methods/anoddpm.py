"""AnoDDPM: disturb a sample part of the way with simplex noise, and let the model heal it.

Wyatt et al., "AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using
Simplex Noise", CVPR Workshops 2022. https://github.com/Julian-Wyatt/AnoDDPM

As in the authors' code: noise of deviation 0.5 both ways; levels 1..800 are trained; attention at
32, 16 and 8 pixels. Differs: noise per sample (theirs crashes on a batch; `shared_noise` is the
patch of its issues: one field, and in training one level, for all of a batch); heads as trained
(`eval_heads=1` is theirs); the whole of a sample is trained on, where theirs crops the middle 235
pixels. Their other experiments: Gaussian noise on the way back (`reverse_noise="gaussian"`) from
simplex noise of one of several wavelengths (`detect_frequency`), begun one level too high
(`index_shift`); noise added level by level (`gradual`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.gaussian import Gaussian, Variance
from ..engine.diffusion.schedule import build_schedule, sampling_levels
from ..engine.networks.diffusion_unet import build_unet, set_heads, side_divisor
from ..engine.noise.noise import Noise, build_noise
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.sampling.reconstruct import (
    SamplingConfig,
    enumerate_chains,
    reconstruct,
    repeat_streams,
    reverse_process,
)
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


class AnoDDPM(Method):
    """attention: sides, in pixels, at which the UNet attends. repeats: chains that are averaged.

    noise: by its name, or "random": for every sample and call simplex or Gaussian by the toss of a
    coin. detect_noise, detect_frequency: what disturbs a sample that is judged, as in training if
    None. reverse_noise: what the steps back add, as what disturbed it if None.
    """

    levels, published = (50, 100, 150, 200, 250, 300, 400, 500, 600), 250
    inference = frozenset(
        ["sampling_steps", "eta", "variance", "repeats", "average", "eval_heads", "detect_noise",
         "detect_frequency", "reverse_noise", "gradual", "index_shift"]
    )  # fmt: skip

    def __init__(
        self, spec: Spec, *,
        size: int | None = 256, width: int = 128, mults: Sequence[float] = (1, 1, 2, 2, 4, 4),
        res_blocks: int = 2, attention: Sequence[int] = (32, 16, 8), heads: int = 2,
        T: int = 1000, beta: str = "linear", max_level: int = 800, eval_heads: int | None = None,
        noise: str = "simplex", octaves: int = 6, persistence: float = 0.8, frequency: float = 64,
        normalise: bool = False, origin_jitter: bool = False, shared_noise: bool = False,
        steps: int = 300_100, batch: int = 1, lr: float = 1e-4, ema: float | None = 0.9999,
        ema_warm: bool = False, decay: Literal["none", "cosine"] = "none", augment: bool = True,
        sampling_steps: int | None = None, eta: float = 1.0, variance: Variance = "large",
        repeats: int = 1, average: Literal["reconstruction", "map"] = "reconstruction",
        detect_noise: str | None = None, detect_frequency: float | None = None,
        reverse_noise: str | None = None, gradual: bool = False, index_shift: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        widths, ndim = [int(width * m) for m in mults], len(spec.shape)
        self.canvas = ResizePad(spec.shape, size, side_divisor(widths))

        def of(name: str, frequency: float) -> Noise:
            if name == "random":
                return RandomChoiceNoise(
                    of("simplex", frequency), of("gaussian", frequency), shared_noise
                )
            return build_noise(name, octaves=octaves, persistence=persistence, frequency=frequency,
                normalise=normalise, origin_jitter=origin_jitter, shared=shared_noise)  # fmt: skip

        seen, longest = detect_noise or noise, detect_frequency or frequency
        self.noise, self.disturbing = of(noise, frequency), of(seen, longest)
        self.adding = of(reverse_noise or seen, longest)
        attend = [max(self.canvas.padded_shape) >> i in attention for i in range(len(widths))]
        net = build_unet(ndim, spec.channels, widths, res_blocks=res_blocks, updown=True,
            attention=attend, head_channels=[w // heads for w in widths], eps=1e-5,
            zero_attention=True)  # fmt: skip
        self.denoiser = Denoiser(net, build_schedule(beta, T), clip=self.canvas.range,
            trained_on=f"{self.noise} on {self.canvas}")  # fmt: skip
        self.plan = Training(steps, batch, lr, ema=ema, ema_warmup=ema_warm, decay=decay)
        self.chain, self.max_level = (
            SamplingConfig(sampling_steps, eta, variance, repeats),
            max_level,
        )
        self.augment, self.average, self.eval_heads = augment, average, eval_heads
        self.shared, self.gradual, self.index_shift = shared_noise, gradual, index_shift

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = random_affine(x, rng, degrees=3, translate=(0.02, 0.09)) if self.augment else x
            inner, most = self.canvas.forward(x), self.max_level
            drawn = rng.shared() if self.shared else rng
            return self.denoiser.loss(inner, drawn, noise=self.noise, max_level=most)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        if self.eval_heads:
            set_heads(self.denoiser.net, self.eval_heads)
        inner = self.canvas.forward(x)
        normal = self.canvas.inverse(self._reconstruct(inner, levels, rng))  # (L, N, R, C, *S)
        seen = normal.mean(2, keepdim=True) if self.average == "reconstruction" else normal
        return Detection.from_map((seen - x[:, None]).square().mean((2, 3)), normal.mean(2))

    def _reconstruct(self, inner: Tensor, levels: Sequence[int], rng: Rng) -> Tensor:
        """(L, N, R, C, *outer)."""
        if not (self.gradual or self.index_shift):
            return reconstruct(
                self.denoiser, inner, levels, rng, sampling=self.chain, noise=self.disturbing,
                reverse_noise=self.adding,
            )  # fmt: skip
        times, count = self.denoiser.schedule, self.chain.repeats
        index, level = enumerate_chains([times.to_level(at) for at in levels], len(inner), count)
        streams, sample = repeat_streams(rng, count), index % len(inner)
        there = torch.where(level > 0, (level + self.index_shift).clamp(max=times.T), 0)
        back = reverse_process(
            self.denoiser,
            self._add_noise(inner, index, there, streams),
            [sampling_levels(at, self.chain.steps) for at in level.tolist()],
            streams.rows(index).fork("step"),
            sampling=self.chain,
            noise=self.adding,
            samples=sample.tolist(),
        )
        return back.view(len(levels), len(inner), count, *inner.shape[1:])

    def _add_noise(self, inner: Tensor, index: Tensor, row_levels: Tensor, streams: Rng) -> Tensor:
        """Samples brought to their levels, one row for each of `index` among the streams."""
        process, shape = self.denoiser.process, inner.shape[1:]
        assert isinstance(process, Gaussian)
        sample, at = (index % len(inner)).to(inner.device), row_levels.to(inner.device)
        if not self.gradual:
            drawn = self.disturbing(streams.rows(index).fork("start"), shape, at.clamp(min=1))
            return process.add_noise(inner[sample], at, drawn)
        out = inner[sample]
        x, rises = inner.repeat(len(streams) // len(inner), *[1] * len(shape)), streams.fork("rise")
        for level in range(1, int(row_levels.max()) + 1):
            here = torch.full((len(x),), level, device=x.device)
            drawn = self.disturbing(rises.at(level), shape, here)
            x = process.add_noise_step(x, here - 1, here, drawn)
            out = torch.where((at == level).view(-1, *[1] * len(shape)), x[index.to(x.device)], out)
        return out


@dataclass(frozen=True)
class RandomChoiceNoise:
    """One noise or the other by the toss of a coin, for every sample; shared: for all together."""

    one: Noise
    other: Noise
    shared: bool

    def __call__(self, rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
        coin = (rng.shared() if self.shared else rng).fork("coin").uniform((1,) * len(shape))
        one, other = (noise(rng.fork("noise"), shape, level) for noise in (self.one, self.other))
        return torch.where(coin < 0.5, one, other)
