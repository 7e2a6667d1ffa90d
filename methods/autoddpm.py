"""AutoDDPM: mask what a coarse restoration changed, stitch, and re-sample until it fits.

Bercea et al., "Mask, Stitch, and Re-Sample: Enhancing Robustness and Generalizability in Anomaly
Detection through Automatic Diffusion Models", ICML 3rd Workshop on Interpretable Machine Learning
in Healthcare 2023. https://arxiv.org/abs/2305.19643

As in the authors' code: data in [0, 1]; Gaussian noise; levels 201 and 51 (their indices 200 and
50); five resamples; the final map is weighted with the first pass's soft map.
Differs, and named where an argument brings theirs back: the threshold is calibrated, so that 5 %
of held-out normal pixels exceed it (`threshold=0.13` is theirs, of their data and network; -1 is
each image's 95th percentile); the perceptual map is normalised once (`double_normalise`); noising
up again uses the step's own beta (`renoise_shifted`) and the last step asks the network
(`leave_last`); inpainting uses the noise it was trained with (`inpaint_noise`); estimates are
clipped to [0, 1] (`clip=(-1, 1)`); training images are not cut to 8 bits (`quantise`); noise is
drawn per sample (`shared_noise` has one field for all, as theirs does of simplex noise). The
perceptual network is one that a package ships, so 0.13 would not carry over to it; `features`
names another, such as lpips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule import build_schedule
from ..engine.features.pretrained import build_perceptual
from ..engine.networks.diffusion_unet import build_unet, side_divisor
from ..engine.noise.noise import build_noise
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.sampling.reconstruct import (
    SamplingConfig,
    enumerate_chains,
    reconstruct,
    repeat_streams,
)
from ..engine.sampling.repaint import inpaint
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


class AutoDDPM(Method):
    """inpaint_level: on the 1000-step scale. sampling_steps, inpaint_steps: network calls of the
    two passes, None for every level. dilate: growth of the mask in pixels. map_weight: what the
    residual is multiplied with. calibration: held-out samples the threshold is taken from."""

    levels, published = (101, 151, 201, 251, 301, 401), 201
    ndims = frozenset({2})
    inference = frozenset(  # what the first pass uses is not among them: tau depends on it
        ["inpaint_level", "resamples", "inpaint_steps", "map_weight", "dilate", "inpaint_noise",
         "renoise_shifted", "leave_last"]
    )  # fmt: skip
    tau: Tensor  # (): above it the soft map counts as anomalous

    def __init__(
        self, spec: Spec, *,
        size: int | None = 128, widths: Sequence[int] = (128, 256, 256), res_blocks: int = 1,
        attention: Sequence[bool] = (False, True, True), head_channels: int = 256,
        T: int = 1000, beta: str = "linear", noise: str = "gaussian", octaves: int = 6,
        persistence: float = 0.8, frequency: float = 64, shared_noise: bool = False,
        steps: int = 133_000, batch: int = 16, lr: float = 1e-4, ema: float | None = None,
        ema_warm: bool = False, decay: Literal["none", "cosine"] = "none", augment: bool = True,
        quantise: bool = False, clip: Sequence[float] = (0.0, 1.0),
        features: str = "effperc", double_normalise: bool = False,
        threshold: float | None = None, calibration: int = 64, dilate: int = 1,
        inpaint_level: int = 51, resamples: int = 5, sampling_steps: int | None = None,
        inpaint_steps: int | None = None, eta: float = 1.0, repeats: int = 1,
        renoise_shifted: bool = False, leave_last: bool = False,
        inpaint_noise: str | None = None,
        map_weight: Literal["first", "second", "none"] = "first",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, side_divisor(widths), low=0.0)
        self.noise, self.inpaint_noise = (
            build_noise(name, octaves=octaves, persistence=persistence, frequency=frequency,
                  shared=shared_noise)
            for name in (noise, inpaint_noise or noise)
        )  # fmt: skip
        net = build_unet(2, spec.channels, widths, res_blocks=res_blocks, attention=attention,
            head_channels=head_channels)  # fmt: skip
        self.perceptual, self.double_normalise = build_perceptual(features), double_normalise
        about = f"{self.noise} on {self.canvas}, tau by {self.perceptual.weights_id}"
        low, high = clip
        self.denoiser = Denoiser(net, build_schedule(beta, T), clip=(low, high), trained_on=about)
        self.plan = Training(steps, batch, lr, clip=None, ema=ema, ema_warmup=ema_warm, decay=decay)
        self.first = SamplingConfig(sampling_steps, eta, repeats=repeats)
        self.second = SamplingConfig(inpaint_steps, eta)
        self.threshold, self.calibration, self.dilate = threshold, calibration, dilate
        self.inpaint_level, self.resamples = inpaint_level, resamples
        self.renoise_shifted, self.leave_last = renoise_shifted, leave_last
        self.augment, self.quantise, self.map_weight = augment, quantise, map_weight
        self.register_buffer("tau", torch.tensor(0.0))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            if self.augment:
                x = random_affine(
                    x, rng, degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), flip=0.5
                )
            x = (x * 255).round() / 255 if self.quantise else x
            return self.denoiser.loss(self.canvas.forward(x), rng, noise=self.noise)

        train_module(loss, self.denoiser, train, context, self.plan)
        context.place(self)
        self.tau.fill_(
            self._calibrated_threshold(calibration, context)
            if self.threshold is None
            else self.threshold
        )

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        coarse, soft = self._coarse_reconstruction(inner, levels, rng)  # (L, N, R, C, *), (L, N, *)
        if float(self.tau) < 0:
            cut = soft.flatten(2).quantile(0.95, dim=2)[..., None, None]
        else:
            cut = self.tau
        region = max_pool2d((soft > cut).float(), 2 * self.dilate + 1, 1, self.dilate)
        repeats = coarse.shape[2]
        index, _ = enumerate_chains(levels, len(x), repeats)
        filled = inpaint(
            self.denoiser,
            coarse.flatten(0, 2),
            inner[index.to(x.device) % len(x)],
            region[:, :, None, None].expand(-1, -1, repeats, -1, -1, -1).flatten(0, 2),
            self.inpaint_level,
            repeat_streams(rng.fork("inpaint"), repeats).rows(index),
            sampling=self.second,
            noise=self.inpaint_noise,
            resamples=self.resamples,
            shifted_renoise=self.renoise_shifted,
            skip_last_step=self.leave_last,
        )
        fine = filled.clamp(0, 1).view_as(coarse).mean(2)  # (L, N, C, *)
        if self.map_weight == "second":
            soft = self._soft_map(inner, fine)
        normal = self.canvas.inverse(fine)
        residual = (normal - x).abs().mean(2)  # (L, N, H, W)
        if self.map_weight != "none":
            residual = residual * self.canvas.inverse(soft[:, :, None])[:, :, 0].clamp(min=0)
        return Detection.from_map(residual, normal)

    def _coarse_reconstruction(
        self, inner: Tensor, levels: Sequence[int], rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """The coarse restorations (L, N, R, C, *) and the soft map (L, N, *) of their mean."""
        coarse = reconstruct(
            self.denoiser, inner, levels, rng, sampling=self.first, noise=self.noise
        )
        coarse = coarse.clamp(0, 1)
        return coarse, self._soft_map(inner, coarse.mean(2))

    def _soft_map(self, inner: Tensor, normal: Tensor) -> Tensor:
        """Perceptual distance times the residual over its 95th percentile, at most 1; (L, N, *)."""
        residual = (normal - inner).abs().mean(2)
        high = residual.flatten(2).quantile(0.95, dim=2)[..., None, None]
        share = (residual / high.clamp(min=1e-12)).clamp(max=1)
        many, one = normal.flatten(0, 1), inner.repeat(len(normal), 1, 1, 1)
        apart = self.perceptual.distance(one, many, rescale_twice=self.double_normalise)
        return apart.view_as(share) * share

    @torch.no_grad()
    def _calibrated_threshold(self, calibration: Split, context: TrainingContext) -> float:
        """What 5 % of the held-out normal pixels (of the roi) exceed in the soft map."""
        values = []
        for i in range(0, min(len(calibration), self.calibration), 8):
            samples = [
                calibration[j] for j in range(i, min(i + 8, len(calibration), self.calibration))
            ]
            x = torch.stack([s.x for s in samples]).to(context.device)
            rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
            soft = self._coarse_reconstruction(self.canvas.forward(x), [self.published], rng)[1]
            soft = self.canvas.inverse(soft[:, :, None])[0, :, 0].cpu()
            for s, m in zip(samples, soft, strict=True):
                values.append(m.flatten() if s.roi is None else m[s.roi])
        if not values:
            raise ValueError(
                "AutoDDPM calibrates its threshold on held-out samples; there are none"
            )
        return torch.cat(values).double().quantile(0.95).item()
