"""cAAE: an autoencoder whose code is to look normal, and the same before and after restoring.

Chen and Konukoglu, "Unsupervised Detection of Lesions in Brain MRI using Constrained Adversarial
Auto-encoders", 2018. https://arxiv.org/abs/1806.04972 https://github.com/aubreychen9012/cAAE

As in the authors' code: the residual network, a code of 128; the root of the summed squared error,
not its mean; half the squared distance of a sample's code from that of what it was restored to; a
Wasserstein critic of codes with a gradient penalty of 10, its signs too. Differs: networks and
critic learn in the same steps, once each, where theirs makes 20 steps of the critic beside each of
the others', 200 in the first epochs; norms over groups, not over the batch; data in [0, 1], where
theirs has z-scores and a background of -3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..datasets.base import Spec, Split
from ..engine.canvas import Canvas
from ..engine.nets import divisor
from ..engine.residual import SLOPE, Residual, gradient_penalty
from ..engine.rng import Rng
from ..engine.run import Run
from ..engine.train import Training, minimise
from .base import Detection, Method


class CAAE(Method):
    """widths: channels at each resolution. code: numbers in the code. constraint: what the
    distance of codes counts. penalty: what the critic's slope counts."""

    def __init__(
        self, spec: Spec, *,
        size: int | None = 256, widths: Sequence[int] = (16, 32, 64, 128, 256), code: int = 128,
        constraint: float = 0.5, penalty: float = 10.0, critic: Sequence[int] = (200, 400),
        steps: int = 280_000, batch: int = 64, lr: float = 2e-5, clip: float | None = None,
        ema: float | None = None, ema_warm: bool = False,
        decay: Literal["none", "cosine"] = "none",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = Canvas(spec.shape, size, divisor(widths), low=0.0)
        self.coder = Residual(self.canvas.outer, spec.channels, widths, code)
        self.critic = Critic([code, *critic])
        self.plan = Training(steps, batch, lr, clip=clip, ema=ema, ema_warm=ema_warm, decay=decay)
        self.code, self.constraint, self.penalty = code, constraint, penalty

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner = self.canvas.enter(x)
            z = self.coder.encode(inner)
            made = self.coder.decode(z)
            again = self.coder.encode(made)
            apart = self.constraint * (z - again).float().square().sum(1)
            return length(made - inner) + apart + self.adversarial(z.float(), rng)

        minimise(loss, self, train, run, self.plan)

    def adversarial(self, z: Tensor, rng: Rng) -> Tensor:
        """What the encoder wants of the critic, and the critic of itself; neither's gradient
        reaches the other, (N,). Codes that look normal are low."""
        frozen = {key: value.detach() for key, value in self.critic.named_parameters()}
        wanted = functional_call(self.critic, frozen, (z,))
        prior, mix = rng.fork("prior").normal((self.code,)), rng.fork("mix").uniform((1,)).float()
        own = self.critic(prior) - self.critic(z.detach())
        between = mix * prior + (1 - mix) * z.detach()
        return wanted + own + self.penalty * gradient_penalty(self.critic, between)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        made = self.coder.decode(self.coder.encode(self.canvas.enter(x)))
        normal = self.canvas.leave(made).expand(len(levels), *x.shape)
        return Detection.from_map((normal - x).abs().sum(2), normal)


class Critic(nn.Module):
    """Codes (N, Z) -> (N,)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in zip(widths, [*widths[1:], 1], strict=True):
            parts += [nn.Linear(before, after), nn.LeakyReLU(SLOPE)]
            nn.init.normal_(parts[-2].get_parameter("weight"), std=0.01)
        self.net = nn.Sequential(*parts[:-1])

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)[:, 0]


def length(error: Tensor) -> Tensor:
    """The root of the summed squares, (N,): 1e-4 of no error, as theirs."""
    return torch.sqrt(error.float().square().flatten(1).sum(1) + 1e-8)
