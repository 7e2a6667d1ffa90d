"""Masked Bernoulli diffusion's stages against its equations in float64. The toy says, of a code's
bit z at index t, the logit 1.5 z - 1 + t / 1000 + a wave; a code is an image cut at six values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.runtime.rng import Rng
from adbench.methods import bernoulli
from adbench.methods.bernoulli import MaskedBernoulli
from equations import Array, agree, linear_alpha_bar, pictures, table, tensor
from small import build_small

A, X, RNG = linear_alpha_bar(), pictures(), Rng(["a", "b"])
BITS, LEVEL = 6, 150
CUTS = np.linspace(0.2, 0.8, BITS).reshape(BITS, 1, 1)
CODE = (X > CUTS).astype(np.float64)  # (N, bits, H, W)
SHAPE = CODE.shape[1:]
WAVE = 0.8 * np.sin(np.arange(np.prod(SHAPE), dtype=np.float64)).reshape(SHAPE)


def logit(z: Array, level: int) -> Array:
    return 1.5 * z - 1 + (level - 1) / 1000 + WAVE


class Flips(nn.Module):
    def forward(self, z: Tensor, timesteps: Tensor) -> Tensor:
        return 1.5 * z - 1 + timesteps.view(-1, 1, 1, 1) / 1000 + tensor(WAVE)


class Cuts(nn.Module):
    """The stand-in for the autoencoder: a code's value is its share of ones."""

    def encode(self, x: Tensor) -> Tensor:
        return (x > tensor(CUTS)).float()

    def decode(self, z: Tensor) -> Tensor:
        return z.mean(1, keepdim=True)


def uniform(purpose: str, level: int) -> Array:
    """A table of values in 0.02..0.98."""
    return 0.5 + 0.48 * np.sin(7 * table(purpose, level, SHAPE))


def uniform_noise(rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
    names = [key.rpartition("\0")[2] for key in rng.keys]
    pairs = zip(names, level.tolist(), strict=True)
    return torch.stack([torch.from_numpy(uniform(name, at)) for name, at in pairs])


@pytest.fixture(autouse=True)
def looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bernoulli, "uniform_noise", uniform_noise)


def method(**more: object) -> Any:
    built = build_small(MaskedBernoulli, Spec(1, (16, 16)), bits=BITS, sampling_steps=None, **more)
    built.denoiser.add_module("net", Flips())
    built.add_module("codec", Cuts())
    return built.eval()


def q(z: Array, alpha_bar: float | Array, erasure: bool = False) -> Array:
    return alpha_bar * z + (0 if erasure else (1 - alpha_bar) / 2)


def posterior(z: Array, clean: Array, level: int) -> Array:
    """theta_2 / (theta_1 + theta_2) of the specification."""
    a, b = A[level] / A[level - 1], A[level - 1]
    one = (a * z + (1 - a) / 2) * (b * clean + (1 - b) / 2)
    zero = (a * (1 - z) + (1 - a) / 2) * (b * (1 - clean) + (1 - b) / 2)
    return one / (one + zero)


def chain(
    level: int, chance: float, *, soft: bool = False, offset: int = 0, erasure: bool = False
) -> tuple[Array, Array]:
    z = (uniform("start", level + offset) < q(CODE, A[level + offset], erasure)).astype(np.float64)
    mask = np.zeros_like(CODE, dtype=bool)
    for at in range(level, 0, -1):
        flipped = 1 / (1 + np.exp(-logit(z, at)))
        clean = np.abs(z - flipped)
        if at > 1 or not soft:
            mask |= flipped > chance
        mixed = np.where(mask, clean, CODE)
        if at == 1:
            return (clean if soft else (mixed > 0.5).astype(np.float64)), mask
        z = (uniform("step", at) < posterior(z, mixed, at)).astype(np.float64)
    raise AssertionError


def test_the_schedule_and_the_chance_of_a_flip() -> None:
    """Of index 199 and 999: the specification's."""
    process = method().denoiser.process
    ours = process.probability(torch.zeros(2, 1), torch.tensor([200, 1000]))
    assert ours.flatten().tolist() == pytest.approx([0.17048, 0.49998], rel=1e-4)


def test_q_sample() -> None:
    level = torch.tensor([200, 200])
    draws = torch.from_numpy(np.stack([uniform("start", 200)] * 2))
    expected = (uniform("start", 200) < q(CODE, A[200])).astype(np.float64)
    agree(method().denoiser.process.add_noise(tensor(CODE), level, draws), expected, 0.490885417)


def test_the_posterior() -> None:
    """At index 10 for (z_0, z_t): the specification's; and for a soft z_0 at index 199."""
    process, level = method().denoiser.process, torch.tensor([11])
    golden = {(0, 0): 1.4189e-7, (0, 1): 0.863722, (1, 0): 0.136278, (1, 1): 1 - 1.42e-7}
    for (clean, z), value in golden.items():
        pair = torch.tensor([[float(z)]]), torch.tensor([[float(clean)]])
        ours = process.reverse_probability(*pair, level, level - 1).item()
        assert ours == pytest.approx(value, rel=1e-4)
    soft, at = 0.9 * CODE + 0.05, torch.tensor([200, 200])
    ours = process.reverse_probability(tensor(CODE[::-1].copy()), tensor(soft), at, at - 1)
    agree(ours, posterior(CODE[::-1], soft, 200), 0.483415566)


@torch.no_grad()
@pytest.mark.parametrize(("quirks", "number"), [
    ({}, 0.195638021),
    ({"soft_end": True}, 0.330290256),
    ({"start_offset": True}, 0.194661458),
    ({"forward": "erasure"}, 0.200195313),
])  # fmt: skip
def test_the_chain_of_codes(quirks: dict[str, Any], number: float) -> None:
    """And which bits were replaced on the way."""
    codes, mask = method(chance=0.6, **quirks).reconstruct_codes(tensor(CODE), [LEVEL], RNG)
    settings = {"soft": "soft_end" in quirks, "offset": int("start_offset" in quirks)}
    expected, replaced = chain(LEVEL, 0.6, erasure="forward" in quirks, **settings)
    agree(codes[0], expected, number)
    assert (mask[0].numpy() == replaced).all() and 0.1 < replaced.mean() < 0.9


@torch.no_grad()
def test_the_map_and_the_score() -> None:
    """The squared difference of the decoded code, its mean; and what share of bits was replaced."""
    results = method(chance=0.6).detect(tensor(X), [LEVEL], RNG)
    codes, mask = chain(LEVEL, 0.6)
    normal = codes.mean(1, keepdims=True)
    agree(results.reconstruction[0], normal, 0.195638021)
    agree(results.map[0], (normal - X)[:, 0] ** 2, 0.101764767)
    agree(results.score[0], ((normal - X)[:, 0] ** 2).mean((1, 2)), 0.101764767)
    results = method(chance=0.6, shown="mask", judged="mask").detect(tensor(X), [LEVEL], RNG)
    agree(results.map[0], mask.mean(1), 0.330729167)
    agree(results.score[0], mask.mean((1, 2, 3)), 0.330729167)


def test_the_loss() -> None:
    """The cross-entropy of the flips, in bits; the process draws its own."""
    ours = method().denoiser.loss(tensor(CODE), RNG)
    levels = (1 + RNG.fork("level").integers(1000)).tolist()
    draws, losses = RNG.fork("noise").uniform(SHAPE).numpy(), []
    for z, level, draw in zip(CODE, levels, draws, strict=True):
        noisy = (draw < q(z, A[level])).astype(np.float64)
        flipped, chance = np.abs(noisy - z), 1 / (1 + np.exp(-logit(noisy, level)))
        entropy = flipped * np.log2(chance) + (1 - flipped) * np.log2(1 - chance)
        losses.append(-entropy.mean())
    agree(ours, np.array(losses), 1.19734638)
