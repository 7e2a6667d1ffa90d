"""LDM: disturb and heal a sample's code, all of it or only where the code itself is improbable.

Pinaya et al., "Fast Unsupervised Brain Anomaly Detection and Segmentation with Diffusion Models",
MICCAI 2022. https://arxiv.org/abs/2206.03461 The authors' pipeline was never released; parts of it
are in https://github.com/Project-MONAI/GenerativeModels.

`healing="plain"` is the baseline of Wolleb et al., arXiv 2403.11667: a VQ-VAE, and 300 of 1000
levels there and back in its codes. `healing="masked"` is the paper's: the divergence of the reverse
steps between levels 400 and 600 says which places of the code are improbable, those beyond the
97.5th percentile of held-out samples are healed, the rest stays (from level 500; these numbers are
from descriptions of the paper, not from its code). Differs from the pieces in MONAI: latents are
not clamped, and brought to unit variance by a measured factor that is kept; noise is drawn anew for
every level of the divergence; the autoencoder has no adversary unless `adversary` weighs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.autoencoder import VQ
from ..engine.canvas import Canvas, resize
from ..engine.coding import Coding
from ..engine.denoiser import Denoiser
from ..engine.inpaint import inpaint
from ..engine.loader import evenly
from ..engine.nets import divisor, unet
from ..engine.noise import gaussian
from ..engine.process import Gaussian
from ..engine.rng import Rng
from ..engine.run import Run
from ..engine.sample import Chain, restore
from ..engine.schedule import schedule
from ..engine.train import Training, minimise
from .base import Detection, Method


class LDM(Method):
    """coder_widths: channels after each halving of the VQ-VAE; latent_channels, codes, code_decay:
    of its codebook. looks, adversary: weights of a perceptual and an adversarial loss of it.

    divergence: the lowest and the highest level it is taken at, and how many, evenly spaced;
    quantile: of held-out samples', beyond which a place is healed; calibration: how many samples
    shown: the residual of the input or, "decoded", of what the autoencoder alone makes of it;
    "weighted": the first, where the mask is; "divergence": that alone. judged: what is averaged.
    """

    levels, published = (100, 200, 300, 400, 500, 600, 750), 300
    inference = frozenset(["healing", "sampling_steps", "shown", "judged"])
    tau: Tensor  # (1, *S'): above it a place of the code is improbable

    def __init__(
        self, spec: Spec, *,
        size: int | None = 256, coder_widths: Sequence[int] = (128, 256),
        latent_channels: int = 8, codes: int = 256, code_decay: float = 0.99,
        looks: float = 0.0, adversary: float = 0.0,
        coder_steps: int = 23_300, coder_lr: float = 1e-4,
        widths: Sequence[int] = (128, 256, 512), res_blocks: int = 2,
        attention: Sequence[bool] = (False, True, True), head_channels: int = 256, T: int = 1000,
        beta: str = "scaled_linear", steps: int = 46_600, batch: int = 24, lr: float = 1e-4,
        clip: float | None = None, ema: float | None = None, ema_warm: bool = False,
        decay: Literal["none", "cosine"] = "none", divergence: Sequence[int] = (400, 600, 11),
        quantile: float = 0.975, calibration: int = 256,
        healing: Literal["plain", "masked"] = "plain", sampling_steps: int | None = None,
        shown: Literal["input", "decoded", "weighted", "divergence"] = "input",
        judged: Literal["map", "divergence"] = "map",
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
        self.denoiser = Denoiser(net, schedule(beta, T), about=f"codes of {self.canvas}")
        self.first = Training(coder_steps, batch, coder_lr, clip=clip, ema=None, decay=decay)
        self.plan = Training(steps, batch, lr, clip=clip, ema=ema, ema_warm=ema_warm, decay=decay)
        low, high, count = divergence
        self.at = [round(low + (high - low) * i / max(count - 1, 1)) for i in range(count)]
        self.quantile, self.calibration = quantile, calibration
        self.healing, self.sampling_steps = healing, sampling_steps
        self.shown, self.judged = shown, judged
        self.register_buffer("tau", torch.zeros(1, *self.codec.latent[1:]))

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        def denoised(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.codec.encode(self.canvas.enter(x)), rng)

        Coding(self.codec, self.first, self.canvas).take(train, run)
        minimise(denoised, self.denoiser, train, run, self.plan, "diffusion")
        run.place(self)
        self._calibrate(held_out, run)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.enter(x)
        z = self.codec.encode(inner)
        wanted = {self.healing, self.shown, self.judged}
        kappa = self.divergence(z, rng) if wanted - {"plain", "input", "decoded", "map"} else None
        chain = Chain(self.sampling_steps)
        if self.healing == "plain" or kappa is None:
            healed = restore(self.denoiser, z, levels, rng, chain=chain)[:, :, 0]
        else:
            region = (kappa > self.tau)[:, None]
            each = [inpaint(self.denoiser, z, z, region, at, rng, chain=chain) for at in levels]
            healed = torch.stack(each)
        back = self.codec.decode(healed.flatten(0, 1)).view(len(levels), *inner.shape)
        normal = self.canvas.leave(back)  # (L, N, C, *S)
        seen = self.canvas.leave(self.codec.decode(z)) if self.shown == "decoded" else x
        found = (normal - seen).abs().mean(2)
        if kappa is not None and self.shown in ("weighted", "divergence"):
            known = kappa if self.shown == "divergence" else (kappa > self.tau).to(x.dtype)
            wide = self.canvas.leave(resize(known[:, None], self.canvas.outer))[:, 0]
            found = wide.expand_as(found) if self.shown == "divergence" else found * wide
        detection = Detection.from_map(found, normal)
        if kappa is None or self.judged == "map":
            return detection
        score = kappa.flatten(1).mean(1)
        return Detection(score.expand(len(levels), -1), found, normal)

    def divergence(self, z: Tensor, rng: Rng) -> Tensor:
        """Of the reverse steps, in nats, summed over a code's channels, mean over levels, (N, *S'):
        how improbable each place is."""
        process, total = self.denoiser.process, torch.zeros_like(z[:, 0])
        assert isinstance(process, Gaussian)
        for at in self.at:
            here = torch.full((len(z),), process.schedule.level(at), device=z.device)
            noise = gaussian(rng.fork("divergence").at(here), z.shape[1:], here)
            guess = self.denoiser(process.disturb(z, here, noise), here)
            apart = process.divergence(z, guess, here, here - 1)
            for channel in range(z.shape[1]):  # in this order, in any batch
                total = total + apart[:, channel] / len(self.at)
        return total

    @torch.no_grad()
    def _calibrate(self, held_out: Split, run: Run) -> None:
        """tau per place where there are samples enough to tell, else of all places together."""
        chosen = [held_out[i] for i in evenly(len(held_out), self.calibration)]
        if not chosen:
            return
        x = torch.stack([s.x for s in chosen]).to(run.device)
        rng = Rng([s.key for s in chosen], run.seed, run.device).fork("calibrate")
        kappa = self.divergence(self.codec.encode(self.canvas.enter(x)), rng).double()
        if len(chosen) * (1 - self.quantile) >= 1:
            self.tau.copy_(kappa.quantile(self.quantile, dim=0))
        else:
            at = min(int(self.quantile * kappa.numel()), kappa.numel() - 1)
            self.tau.fill_(kappa.flatten().sort().values[at])
