"""Fixed-Point GAN, cAAE and AE-1D against their equations in float64, with toys for their networks
that a formula knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.runtime.rng import Rng
from adbench.methods.ae1d import AE1D
from adbench.methods.caae import CAAE
from adbench.methods.fpgan import FixedPointGAN
from equations import Array, agree, pictures, table, tensor
from small import build_small

X, RNG = pictures(2), Rng(["a", "b"])
WEIGHT = table("weight", 1, X.shape[1:]) / 50


class Translator(nn.Module):
    """tanh(x + 0.3 c - 0.1)."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return (x + 0.3 * label.view(-1, 1, 1, 1) - 0.1).tanh()


class Critic(nn.Module):
    """Linear: w x, of one slope everywhere, and the logit 2 mean(x) - 0.3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensor(WEIGHT))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (self.weight * x).flatten(1).sum(1), 2 * x.flatten(1).mean(1) - 0.3

    def slope_penalty(self, x: Tensor) -> Tensor:
        return (self.weight.norm() - 1).square().expand(len(x))


def translated(x: Array, label: Array) -> Array:
    return np.tanh(x + 0.3 * label.reshape(-1, 1, 1, 1) - 0.1)


def judged(x: Array, label: Array) -> tuple[Array, Array]:
    """What the critic says of x, and the cross-entropy of its logit for the label."""
    logit = 2 * x.mean((1, 2, 3)) - 0.3
    entropy = np.log1p(np.exp(logit)) - label * logit
    return (WEIGHT * x).sum((1, 2, 3)), entropy


def fixed_point_gan() -> Any:
    built = build_small(FixedPointGAN, Spec(2, (16, 16), labels=True), edge=0.95, classify=0.7,
        restore=10.0, identity=0.1, penalty=10.0).eval()  # fmt: skip
    built.add_module("translator", Translator())
    built.add_module("critic", Critic())
    return built


@torch.no_grad()
def test_the_translation_to_healthy_its_map_and_score() -> None:
    """mean_c |x - tanh(x + change)| in the data's range, its maximum."""
    results = fixed_point_gan().detect(tensor(X), [0], RNG)
    normal = translated((2 * X - 1) * 0.95, np.zeros(2)) / 0.95 / 2 + 0.5
    error = np.abs(normal - X).mean(1)
    agree(results.reconstruction[0], normal, 0.441808071)
    agree(results.map[0], error, 0.0472524089)
    agree(results.score[0], error.max((1, 2)), 0.0850703805)


def test_the_losses_of_critic_and_generator() -> None:
    built, x = fixed_point_gan(), (2 * X - 1) * 0.95
    own, aim = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    there, here = translated(x, aim), translated(x, own)
    (real, entropy), (fake, _) = judged(x, own), judged(there, own)
    slope = (np.sqrt((WEIGHT**2).sum()) - 1) ** 2
    args = tensor(x), tensor(there), tensor(own)
    agree(built.critic_loss(*args, RNG), fake - real + 0.7 * entropy + 10 * slope, 3.49072982)
    expected = 0.1 * np.abs(x - here).mean((1, 2, 3))
    for image, label in ((there, aim), (here, own)):
        says, entropy = judged(image, label)
        back = np.abs(x - translated(image, own)).mean((1, 2, 3))
        expected = expected - says + 0.7 * entropy + 10 * back
    agree(built.generator_loss(*args, tensor(aim)), expected, 4.43966354)


class Quarters(nn.Module):
    """A code of the means of an image's quarters; decoded, 0.9 times it and 0.05 more."""

    def encode(self, x: Tensor) -> Tensor:
        return x.unflatten(3, (2, 8)).unflatten(2, (2, 8)).mean((1, 3, 5)).flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        wide = z.view(-1, 1, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
        return 0.9 * wide.expand(-1, 2, -1, -1) + 0.05


class Bowl(nn.Module):
    """A critic of codes: 0.5 z_0 - z_1 + 0.3 z_3^2."""

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * z[:, 0] - z[:, 1] + 0.3 * z[:, 3].square()


def quarters(x: Array) -> Array:
    return x.reshape(2, 2, 2, 8, 2, 8).mean((1, 3, 5)).reshape(2, 4)


def decoded(z: Array) -> Array:
    wide = np.repeat(np.repeat(z.reshape(2, 1, 2, 2), 8, 2), 8, 3)
    return 0.9 * np.broadcast_to(wide, (2, 2, 16, 16)) + 0.05


def bowl(z: Array) -> Array:
    return 0.5 * z[:, 0] - z[:, 1] + 0.3 * z[:, 3] ** 2


def constrained() -> Any:
    built = build_small(CAAE, Spec(2, (16, 16)), code=4, constraint=0.5, penalty=10.0).eval()
    built.add_module("coder", Quarters())
    built.add_module("critic", Bowl())
    return built


def test_the_losses_of_the_constrained_autoencoder() -> None:
    """sqrt(sum (x - x')^2 + 1e-8) + 0.5 |E(x) - E(x')|^2; D(prior) - D(z) + 10 (|D'| - 1)^2 between
    them; D(z)."""
    built, z = constrained(), quarters(X)
    back = decoded(z)
    error = np.sqrt(((back - X) ** 2).sum((1, 2, 3)) + 1e-8)
    apart = ((z - quarters(back)) ** 2).sum(1)
    agree(built.autoencoder_loss(tensor(X)), error + 0.5 * apart, 4.4008005)
    prior, mix = table("prior", 1, (2, 4)), np.array([[0.3], [0.8]])
    between = mix * prior + (1 - mix) * z
    slope = np.sqrt(0.5**2 + 1 + (0.6 * between[:, 3]) ** 2)
    expected = bowl(prior) - bowl(z) + 10 * (slope - 1) ** 2
    agree(built.critic_loss(tensor(z), tensor(prior), tensor(mix)), expected, 0.989082839)
    agree(built.encoder_loss(tensor(z)), bowl(z), -0.117140639)


@torch.no_grad()
def test_the_constrained_autoencoders_map_and_score() -> None:
    """|x - x'|, the sum over channels."""
    results, back = constrained().detect(tensor(X), [0], RNG), decoded(quarters(X))
    agree(results.reconstruction[0], back, 0.488091236)
    error = np.abs(back - X).sum(1)
    agree(results.map[0], error, 0.317122601)
    agree(results.score[0], error.mean((1, 2)), 0.317122601)


class Shrinking(nn.Module):
    """0.6 z + 0.1."""

    def forward(self, z: Tensor) -> Tensor:
        return 0.6 * z + 0.1


@torch.no_grad()
def test_the_signal_autoencoders_loss_map_and_score() -> None:
    """In units of the training samples' root mean square about silence; the z-score of the mean
    squared error, and its moving average in the same deviations."""
    built = build_small(AE1D, Spec(2, (32,)), smooth=4).eval()
    built.add_module("coder", Shrinking())
    for name, value in {"unit": 0.25, "mean": 0.3, "deviation": 0.05}.items():
        built.get_buffer(name).fill_(value)
    x = 0.5 + table("signal", 1, (2, 2, 32)) / 5
    z = (x - 0.5) / 0.25
    results = built.detect(tensor(x), [0], RNG)
    agree(results.reconstruction[0], (0.6 * z + 0.1) * 0.25 + 0.5, 0.526548984)
    error = ((0.6 * z + 0.1 - z) ** 2).mean(1)
    agree(results.score[0], (error.mean(1) - 0.3) / 0.05, -3.77406097)
    padded = np.pad(error, [(0, 0), (2, 1)], mode="edge")
    average = np.stack([padded[:, i : i + 32] for i in range(4)]).mean(0)
    agree(results.map[0], average / 0.05, 2.24531803)
