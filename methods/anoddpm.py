"""AnoDDPM: disturb a sample part of the way with simplex noise, and let the model heal it.

Wyatt et al., "AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using
Simplex Noise", CVPR Workshops 2022. https://github.com/Julian-Wyatt/AnoDDPM

As in the authors' code: noise of deviation 0.5 both ways; levels 1..800 are trained; attention at
32, 16 and 8 pixels. Differs: noise per sample (theirs crashes on a batch, `shared_noise` is one
field for all); heads as trained (`eval_heads=1` is theirs); levels are not off by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.augment import affine
from ..engine.canvas import Canvas
from ..engine.denoiser import Denoiser
from ..engine.nets import divisor, set_heads, unet
from ..engine.noise import named
from ..engine.process import Variance
from ..engine.rng import Rng
from ..engine.run import Run
from ..engine.sample import Chain, restore
from ..engine.schedule import schedule
from ..engine.train import Training, minimise
from .base import Detection, Method


class AnoDDPM(Method):
    """attention: sides, in pixels, at which the UNet attends. repeats: chains that are averaged."""

    levels, published = (50, 100, 150, 200, 250, 300, 400, 500, 600), 250
    inference = frozenset(["sampling_steps", "eta", "variance", "repeats", "average", "eval_heads"])

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
    ) -> None:  # fmt: skip
        super().__init__(spec)
        widths, ndim = [int(width * m) for m in mults], len(spec.shape)
        self.canvas = Canvas(spec.shape, size, divisor(widths))
        self.noise = named(noise, octaves=octaves, persistence=persistence, frequency=frequency,
            normalise=normalise, origin_jitter=origin_jitter, shared=shared_noise)  # fmt: skip
        attend = [max(self.canvas.outer) >> i in attention for i in range(len(widths))]
        net = unet(ndim, spec.channels, widths, res_blocks=res_blocks, updown=True,
            attention=attend, head_channels=[w // heads for w in widths])  # fmt: skip
        self.denoiser = Denoiser(net, schedule(beta, T), clip=self.canvas.range,
            about=f"{self.noise} on {self.canvas}")  # fmt: skip
        self.plan = Training(steps, batch, lr, ema=ema, ema_warm=ema_warm, decay=decay)
        self.chain, self.max_level = Chain(sampling_steps, eta, variance, repeats), max_level
        self.augment, self.average, self.eval_heads = augment, average, eval_heads

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = affine(x, rng, degrees=3, translate=(0.02, 0.09)) if self.augment else x
            inner, most = self.canvas.enter(x), self.max_level
            return self.denoiser.loss(inner, rng, noise=self.noise, max_level=most)

        minimise(loss, self.denoiser, train, run, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        if self.eval_heads:
            set_heads(self.denoiser.net, self.eval_heads)
        inner = self.canvas.enter(x)
        healed = restore(self.denoiser, inner, levels, rng, chain=self.chain, noise=self.noise)
        normal = self.canvas.leave(healed)  # (L, N, R, C, *S)
        seen = normal.mean(2, keepdim=True) if self.average == "reconstruction" else normal
        return Detection.from_map((seen - x[:, None]).square().mean((2, 3)), normal.mean(2))
