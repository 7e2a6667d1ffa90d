"""LDM-OOD: DDPM-OOD in the codes of a VQ-VAE, for what is too large to be diffused itself.

Graham et al., "Unsupervised 3D Out-of-Distribution Detection with Latent Diffusion Models", MICCAI
2023. https://arxiv.org/abs/2307.03777 https://github.com/marksgraham/ddpm-ood

As in the authors' code: quantised codes, PLMS from every `skip`-th of 100 levels, decoded and
compared with the input in [0, 1] by squared error, z-scores, their mean. Differs: codes have unit
variance (`scaled=False`: as they come, theirs) and begin at encodings of the data; z-scores are of
held-out samples that nothing was trained on; PLMS and the end of a chain as in DDPM-OOD (`lagged`,
`final_noise`); the autoencoder is judged by its error, and by its looks or an adversary if they are
given a weight, theirs by both. A map is added, the mean over starts of the squared error in
held-out deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.autoencoder import VQ
from ..engine.canvas import Canvas
from ..engine.coding import Coding
from ..engine.denoiser import Denoiser
from ..engine.nets import divisor, unet
from ..engine.rng import Rng
from ..engine.run import Run
from ..engine.schedule import schedule
from ..engine.starts import Starts
from ..engine.train import Training, minimise
from .base import Detection, Method


class LDMOOD(Method):
    """coder_widths: channels after each halving of the VQ-VAE; latent_channels, codes, code_decay:
    of its codebook. looks, adversary: weights of a perceptual and an adversarial loss of it.
    sampling_steps, skip: the grid of levels, and every so many of them a start. calibration:
    held-out samples looked at."""

    levels, published = (250, 500, 750, 1000), 1000

    def __init__(
        self, spec: Spec, *,
        size: int | None = 128, coder_widths: Sequence[int] = (256, 256, 256, 256),
        latent_channels: int = 128, codes: int = 2048, code_decay: float = 0.9,
        looks: float = 0.0, adversary: float = 0.0, coder_steps: int = 15_000,
        coder_batch: int = 8, coder_lr: float = 3e-5, scaled: bool = True,
        widths: Sequence[int] = (128, 256, 256), res_blocks: int = 1,
        attention: Sequence[bool] = (False, False, True), head_channels: int = 256,
        beta: str = "scaled_linear", steps: int = 776_000, batch: int = 6, lr: float = 2.5e-5,
        clip: float | None = None, ema: float | None = None, ema_warm: bool = False,
        decay: Literal["none", "cosine"] = "none", sampling_steps: int = 100, skip: int = 2,
        lagged: bool = False, final_noise: bool = False, calibration: int = 256,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = Canvas(spec.shape, size, 2 ** len(coder_widths) * divisor(widths), low=0.0)
        self.codec = VQ(
            (spec.channels, *self.canvas.outer), latent_channels=latent_channels,
            widths=coder_widths, codes=codes, decay=code_decay, looks=looks,
            adversary={"weight": adversary} if adversary else None,
        )  # fmt: skip
        net = unet(len(spec.shape), latent_channels, widths, res_blocks=res_blocks,
            attention=attention, head_channels=head_channels)  # fmt: skip
        about = f"codes of {self.canvas}{'' if scaled else ', as they come'}"
        self.denoiser = Denoiser(net, schedule(beta), about=about)
        self.starts = Starts(sampling_steps, skip, lagged=lagged, final_noise=final_noise)
        self.first = Training(coder_steps, coder_batch, coder_lr, clip=clip, ema=None, decay=decay)
        self.plan = Training(steps, batch, lr, clip=clip, ema=ema, ema_warm=ema_warm, decay=decay)
        self.scaled, self.calibration = scaled, calibration

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        self.starts.enough(held_out)

        def denoised(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.codec.encode(self.canvas.enter(x)), rng)

        Coding(self.codec, self.first, self.canvas, measured=self.scaled).take(train, run)
        minimise(denoised, self.denoiser, train, run, self.plan, "diffusion")
        run.place(self)
        self.starts.calibrate(self._looks, held_out, run, self.calibration)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection(*self.starts.judge(self._looks, x, levels, rng))

    @torch.no_grad()
    def _looks(self, x: Tensor, rng: Rng, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        inner = self.canvas.enter(x)
        target = self.canvas.leave(inner)
        z = self.codec.encode(inner)
        for healed in self.starts.restored(self.denoiser, z, rng, count):
            normal = self.canvas.leave(self.codec.decode(healed)).clamp(0, 1)
            yield (normal - target).square().mean(1, keepdim=True), normal
