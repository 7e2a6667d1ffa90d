"""cAAE: an adversarial autoencoder with equal codes of a sample and of its reconstruction.

Chen and Konukoglu, "Unsupervised Detection of Lesions in Brain MRI using Constrained Adversarial
Auto-encoders", 2018. https://arxiv.org/abs/1806.04972 https://github.com/aubreychen9012/cAAE

As in the authors' code: the residual network, a code of 128; the root of the summed squared error,
not its mean; half the squared distance between the codes of a sample and of its reconstruction; a
Wasserstein critic of codes with a gradient penalty of 10, with their signs; a batch serves one step
of the autoencoder, 20 of the critic (200 in the first 20 of 300 epochs) against codes drawn once,
and one of the encoder against the critic, each with an Adam of its own. In one step for all, the
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
from ..engine.runtime.precision import LowPrecisionModule
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Natural, NonNegative
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

TRAINING = Training(steps=280_000, batch=64, lr=2e-5, clip=None, ema=None, momentum=0.5, beta2=0.9)


class CAAE(Method):
    """cAAE: the absolute error of a constrained adversarial autoencoder.

    widths: channels at each resolution.
    code: length of the code.
    constraint: weight of the distance of codes.
    penalty: weight of the critic's gradient penalty.
    critic: widths of the critic's layers.
    training: `steps` of the autoencoder and of the encoder.
    critic_steps: of the critic, beside each of these.
    warm_steps, warm_critic_steps: the first steps, and those of the critic beside each of them.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.caae import CAAE
    >>> CAAE(Spec(1, (16, 16)), size=None, widths=(4, 8), code=4, critic=(8,)).turns.critic
    20
    """

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
        """The autoencoder's loss: its error, and the distance of both codes, (N,).

        x: (N, C, *outer)
        """
        z = self.coder.encode(x)
        reconstruction = self.coder.decode(z)
        distance = (z - self.coder.encode(reconstruction)).float().square().sum(1)
        return l2_norm(reconstruction - x) + self.constraint * distance

    def critic_loss(self, z: Tensor, prior: Tensor, mix: Tensor) -> Tensor:
        """The critic's loss: it is low for codes of the prior and high for others, (N,).

        z, prior: codes of samples and of the prior, (N, code)
        mix: shares of the prior where the gradient is penalised, (N, 1)
        """
        penalty = gradient_penalty(self.critic, mix * prior + (1 - mix) * z)
        return self.critic(prior) - self.critic(z) + self.penalty * penalty

    def encoder_loss(self, z: Tensor) -> Tensor:
        """The encoder's loss: the critic's output, of which the critic does not learn, (N,).

        z: codes of samples, (N, code)
        """
        frozen = {key: value.detach() for key, value in self.critic.named_parameters()}
        return functional_call(self.critic, frozen, (z,))

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        decoded = self.coder.decode(self.coder.encode(self.canvas.forward(x)))
        normal = self.canvas.inverse(decoded).expand(len(levels), *x.shape)
        return Detection.from_map((normal - x).abs().sum(2), normal)


@dataclass(frozen=True)
class TurnSchedule:
    """Which network takes a step: for every batch once the autoencoder, then the critic several
    times, then once the encoder.

    critic: steps of the critic for a batch.
    warm_critic: its steps for each of the first `warm` batches.
    warm: number of these batches.

    >>> from adbench.methods.caae import TurnSchedule
    >>> [TurnSchedule(critic=1, warm_critic=2, warm=1).at_step(k)[1][:3] for k in range(7)]
    ['aut', 'cri', 'cri', 'enc', 'aut', 'cri', 'enc']
    """

    critic: int
    warm_critic: int
    warm: int

    def steps_before(self, batch: int) -> int:
        """Return the number of steps before a batch."""
        return min(batch, self.warm) * (self.warm_critic - self.critic) + batch * (self.critic + 2)

    def at_step(self, k: int) -> tuple[int, Literal["autoencoder", "critic", "encoder"]]:
        """Return the batch of step k, and the network whose step it is."""
        start = self.steps_before(self.warm)
        each = self.critic + 2 if k >= start else self.warm_critic + 2
        batch, place = divmod(k - start if k >= start else k, each)
        who = "autoencoder" if place == 0 else "encoder" if place == each - 1 else "critic"
        return (batch + self.warm if k >= start else batch), who


@dataclass(frozen=True)
class AlternatingTraining(Training):
    """Training in turns; the encoder has moments of its own for its second loss.

    turns: which network takes which step.

    >>> from adbench.methods.caae import AlternatingTraining, TurnSchedule
    >>> plan = AlternatingTraining(steps=3, batch=8, lr=1e-4, turns=TurnSchedule(1, 1, 0))
    >>> [plan.moment_set(k) for k in range(3)]
    [0, 0, 1]
    """

    turns: TurnSchedule = TurnSchedule(1, 1, 0)

    def moment_set(self, k: int) -> int:
        return int(self.turns.at_step(k)[1] == "encoder")

    def batch_number(self, k: int) -> int:
        return self.turns.at_step(k)[0]


class CodeCritic(LowPrecisionModule):
    """A critic of codes, (N, Z) -> (N,).

    widths: of its layers, Z first.

    >>> import torch
    >>> from adbench.methods.caae import CodeCritic
    >>> CodeCritic([4, 8])(torch.zeros(3, 4))
    tensor([0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in zip(widths, [*widths[1:], 1], strict=True):
            parts += [nn.Linear(before, after), nn.LeakyReLU(LEAKY_SLOPE)]
            nn.init.normal_(parts[-2].get_parameter("weight"), std=0.01)
            nn.init.zeros_(parts[-2].get_parameter("bias"))
        self.net = nn.Sequential(*parts[:-1])

    def forward(self, z: Tensor) -> Tensor:
        return self.autocast(self.net, z)[:, 0]


def l2_norm(error: Tensor) -> Tensor:
    """Return the root of the summed squares and 1e-8, (N,): 1e-4 where there is no error.

    error: (N, ...)

    >>> import torch
    >>> from adbench.methods.caae import l2_norm
    >>> l2_norm(torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    return torch.sqrt(error.float().square().flatten(1).sum(1) + 1e-8)
