"""cAAE: an autoencoder whose code is to look normal, and the same before and after restoring.

Chen and Konukoglu, "Unsupervised Detection of Lesions in Brain MRI using Constrained Adversarial
Auto-encoders", 2018. https://arxiv.org/abs/1806.04972 https://github.com/aubreychen9012/cAAE

As in the authors' code: the residual network, a code of 128; the root of the summed squared error,
not its mean; half the squared distance of a sample's code from that of what it was restored to; a
Wasserstein critic of codes with a gradient penalty of 10, its signs too; a batch serves one step of
the autoencoder, 20 of the critic (200 in the first 20 of 300 epochs) against codes drawn once, and
one of the encoder against the critic, each with an Adam of its own. In one step for all, the
adversary would drive every code to the same. Differs: norms over groups, not over the batch; data
in [0, 1], where theirs has z-scores and a background of -3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..datasets.base import Spec, Split
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.residual_autoencoder import (
    LEAKY_SLOPE,
    ResidualAutoencoder,
    gradient_penalty,
)
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Natural, NonNegative
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

TRAINING = Training(steps=280_000, batch=64, lr=2e-5, clip=None, ema=None, momentum=0.5, beta2=0.9)


class CAAE(Method):
    """widths: channels at each resolution. code: numbers in the code. constraint: what the
    distance of codes counts. penalty: what the critic's slope counts. critic: its widths. steps: of
    autoencoder and encoder; the critic takes `critic_steps` beside each, `warm_critic_steps` beside
    the first `warm_steps`. momentum, beta2: of every Adam."""

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, widths: Many[Count] = (16, 32, 64, 128, 256), code: Count = 128,
        constraint: NonNegative = 0.5, penalty: NonNegative = 10.0,
        critic: Sequence[Count] = (200, 400),
        training: Training = TRAINING, critic_steps: Count = 20, warm_steps: Natural = 18_667,
        warm_critic_steps: Natural = 200,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, side_divisor(widths), low=0.0)
        self.coder = ResidualAutoencoder(self.canvas.padded_shape, spec.channels, widths, code)
        self.critic = CodeCritic([code, *critic])
        self.turns = TurnSchedule(critic_steps, warm_critic_steps, min(warm_steps, training.steps))
        self.plan = AlternatingTraining(**vars(training) | {
            "steps": self.turns.steps_before(training.steps), "moment_sets": 2, "turns": self.turns
        })  # fmt: skip
        self.code, self.constraint, self.penalty = code, constraint, penalty

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner = self.canvas.forward(x)
            number, turn = self.turns.at_step(int(rng.step[0]))
            if turn == "autoencoder":
                return self.autoencoder_loss(inner)
            if turn == "encoder":
                return self.encoder_loss(self.coder.encode(inner).float())
            with torch.no_grad():
                z = self.coder.encode(inner).float()
            prior = rng.at(number).fork("prior").normal((self.code,))
            return self.critic_loss(z, prior, rng.fork("mix").uniform((1,)).float())

        train_module(loss, self, train, context, self.plan)

    def autoencoder_loss(self, x: Tensor) -> Tensor:
        """What the autoencoder is to make small: the error, and how far its own code is, (N,)."""
        z = self.coder.encode(x)
        made = self.coder.decode(z)
        apart = (z - self.coder.encode(made)).float().square().sum(1)
        return l2_norm(made - x) + self.constraint * apart

    def critic_loss(self, z: Tensor, prior: Tensor, mix: Tensor) -> Tensor:
        """What the critic is to make small: normal codes are low, others high, (N,)."""
        steep = gradient_penalty(self.critic, mix * prior + (1 - mix) * z)
        return self.critic(prior) - self.critic(z) + self.penalty * steep

    def encoder_loss(self, z: Tensor) -> Tensor:
        """What the encoder is to make small: what the critic says, which does not learn, (N,)."""
        frozen = {key: value.detach() for key, value in self.critic.named_parameters()}
        return functional_call(self.critic, frozen, (z,))

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        made = self.coder.decode(self.coder.encode(self.canvas.forward(x)))
        normal = self.canvas.inverse(made).expand(len(levels), *x.shape)
        return Detection.from_map((normal - x).abs().sum(2), normal)


@dataclass(frozen=True)
class TurnSchedule:
    """Who takes a step: of every batch once the autoencoder, then the critic several times, then
    once the encoder. critic, warm_critic: how often; warm: the number of batches of the latter."""

    critic: int
    warm_critic: int
    warm: int

    def steps_before(self, batch: int) -> int:
        """The number of steps before a batch."""
        return min(batch, self.warm) * (self.warm_critic - self.critic) + batch * (self.critic + 2)

    def at_step(self, k: int) -> tuple[int, Literal["autoencoder", "critic", "encoder"]]:
        """The batch of step k, and whose step it is."""
        start = self.steps_before(self.warm)
        each = self.critic + 2 if k >= start else self.warm_critic + 2
        batch, place = divmod(k - start if k >= start else k, each)
        who = "autoencoder" if place == 0 else "encoder" if place == each - 1 else "critic"
        return (batch + self.warm if k >= start else batch), who


@dataclass(frozen=True)
class AlternatingTraining(Training):
    """The encoder has moments of its own for its second task."""

    turns: TurnSchedule = TurnSchedule(1, 1, 0)

    def moment_set(self, k: int) -> int:
        return int(self.turns.at_step(k)[1] == "encoder")

    def batch_number(self, k: int) -> int:
        return self.turns.at_step(k)[0]


class CodeCritic(nn.Module):
    """Codes (N, Z) -> (N,)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in zip(widths, [*widths[1:], 1], strict=True):
            parts += [nn.Linear(before, after), nn.LeakyReLU(LEAKY_SLOPE)]
            nn.init.normal_(parts[-2].get_parameter("weight"), std=0.01)
            nn.init.zeros_(parts[-2].get_parameter("bias"))
        self.net = nn.Sequential(*parts[:-1])

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)[:, 0]


def l2_norm(error: Tensor) -> Tensor:
    """The root of the summed squares, (N,): 1e-4 of no error, as theirs."""
    return torch.sqrt(error.float().square().flatten(1).sum(1) + 1e-8)
