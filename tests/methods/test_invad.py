"""InvAD: inversion along DDIM's ODE, map and score against NumPy; an exact model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.rng import Rng
from adbench.methods.invad import InvAD
from known import NormalPosteriorMean
from small import build_small

BETA = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - BETA)])


class Toy(nn.Module):
    """eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * t.view(-1, 1, 1, 1).to(x.dtype) / 1000


def invad(net: nn.Module, **settings: Any) -> Any:
    """Samples are features themselves, two at each of 64 x 64 positions."""
    method = build_small(InvAD, Spec(2, (64, 64)), depths=(2,), **settings).eval()
    method.codec = Identity((2, 64, 64))
    method.denoiser = Denoiser(net, linear_schedule()).eval()
    return method


def inverted(x: np.ndarray, levels: list[int]) -> np.ndarray:
    """Song et al. 2021, equation 12 with sigma 0, upwards; the network knows no level 0."""
    for low, high in pairwise(levels):
        a, b = ALPHA_BAR[low], ALPHA_BAR[high]
        eps = 0.3 * x + 0.1 * (max(low, 1) - 1) / 1000
        x = b**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
    return x


@torch.no_grad()
def test_map_and_score_are_those_of_three_steps() -> None:
    method, x = invad(Toy(), size=64, sampling_steps=3), Rng(["a", "b"]).normal((2, 64, 64))
    detection = method.detect(x, [500, 1000], Rng(["a", "b"]))
    for i, levels in enumerate(([0, 167, 333, 500], [0, 333, 667, 1000])):
        for n in range(2):
            noise = inverted(x[n].double().numpy(), levels)
            length = np.linalg.norm(noise, axis=0)
            np.testing.assert_allclose(detection.map[i, n].numpy(), length, rtol=1e-4)
            density = np.exp(-(noise**2) / 2) / (2 * np.pi) ** 0.5
            expected = -np.log(density).mean() + (length.max() - length.min()) / 2**0.5
            assert detection.score[i, n].item() == pytest.approx(expected, rel=1e-4)
    assert method.denoiser.evaluations == 2 * (3 + 3)


@torch.no_grad()
def test_with_an_exact_model_normal_features_end_as_standard_noise_and_others_do_not() -> None:
    """Normal features have variance 1, as the codec gives them; those of the patch are 4 apart."""
    method = invad(Toy(), size=64, sampling_steps=250)
    exact = NormalPosteriorMean(linear_schedule(), 0.0, 1.0)
    method.denoiser = Denoiser(exact, linear_schedule(), prediction_type="clean").eval()
    x = Rng(["a", "b"]).normal((2, 64, 64))
    x[1, :, 20:30, 20:30] += 4
    detection = method.detect(x, [1000], Rng(["a", "b"]))
    normal, ill = detection.map[0]
    assert normal.square().mean().item() == pytest.approx(2, rel=0.05)  # of two features
    assert ill[20:30, 20:30].mean() > 2.5 * ill[32:].mean()
    assert detection.score[0, 1] > 1.2 * detection.score[0, 0]
