"""LafitE stage by stage: schedule, noising, editing, a step, a chain, loss, map and score, against
numbers of the specification and the equations written out in float64. There is no public code.

The toy denoiser is eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0, on features of a toy codec.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import cosine_schedule, sampling_levels
from adbench.engine.features.memory_bank import MemoryBank
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.lafite import LafitE
from small import build_small

SHAPE = (2, 64, 64)


def alpha_bars() -> np.ndarray:
    """Of levels 0..1000: beta is clipped to 0.999."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.concatenate([[1.0], np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))])


ALPHA_BAR = alpha_bars()


class Toy(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * t.view(-1, 1, 1, 1).to(x.dtype) / 1000


def ddim(x: np.ndarray, high: int, low: int) -> np.ndarray:
    """Song et al. 2021, equation 12 with sigma 0."""
    a, b = ALPHA_BAR[high], ALPHA_BAR[low]
    eps = 0.3 * x + 0.1 * (high - 1) / 1000
    return b**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps


def edited(features: np.ndarray, memory: np.ndarray, neighbours: int) -> np.ndarray:
    """Each place as the mean of its nearest, weights exp(-distance / median distance)."""
    places = features.reshape(len(features), -1).T  # (P, C)
    distance = np.linalg.norm(places[:, None] - memory[None], axis=2)
    nearest = distance.argsort(1)[:, :neighbours]
    near = np.take_along_axis(distance, nearest, 1)
    weight = np.exp(-near / np.sort(near, 1)[:, [(neighbours - 1) // 2]])
    weight /= weight.sum(1, keepdims=True)
    return (weight[..., None] * memory[nearest]).sum(1).T.reshape(features.shape)


def lafite(**settings: Any) -> Any:
    more = {"blur": 1.5, "pool": 4, "sampling_steps": 5, "grid": 64, "neighbours": 5} | settings
    method = build_small(LafitE, Spec(2, (64, 64)), **more).eval()
    method.codec = Identity(SHAPE)
    method.denoiser = Denoiser(Toy(), cosine_schedule()).eval()
    memory = MemoryBank(2)
    memory.fill(Rng(["memory"]).normal((2, 40))[0].T.contiguous(), 1.0, TrainingContext())
    method.memory = memory
    return method


def features(count: int) -> tuple[Tensor, list[str]]:
    keys = [f"x{i}" for i in range(count)]
    return Rng(keys).normal(SHAPE), keys


def test_the_schedule_is_the_specifications() -> None:
    np.testing.assert_allclose(cosine_schedule().alpha_bar.numpy(), ALPHA_BAR, rtol=1e-10)
    golden = {0: 0.99996, 10: 0.99928, 50: 0.99172, 200: 0.89776, 300: 0.78563, 400: 0.64599,
              500: 0.49229, 600: 0.33933, 749: 0.14427}  # fmt: skip
    for t, value in golden.items():
        assert ALPHA_BAR[t + 1] == pytest.approx(value, abs=6e-6)
    assert ALPHA_BAR[1000] == pytest.approx(2.43e-9, rel=2e-3)


@torch.no_grad()
def test_features_are_edited_by_their_nearest_in_the_memory() -> None:
    method, (x, _) = lafite(), features(1)
    memory = method.memory.vectors.double().numpy()
    ours = method.memory.replace_by_neighbours(x, 5, "softmax")[0].numpy()
    np.testing.assert_allclose(ours, edited(x[0].double().numpy(), memory, 5), rtol=0, atol=2e-5)
    one = method.memory.replace_by_neighbours(x, 1, "softmax")[0].numpy()
    np.testing.assert_allclose(one, edited(x[0].double().numpy(), memory, 1), rtol=0, atol=1e-6)


def test_the_loss_is_the_squared_error_of_the_noise() -> None:
    method, (x, keys) = lafite(), features(3)
    rng = Rng(keys)
    level = 1 + rng.fork("level").integers(1000)
    noise = gaussian(rng.fork("noise"), SHAPE, level).double().numpy()
    expected = []
    for x0, at, eps in zip(x.double().numpy(), level.tolist(), noise, strict=True):
        noisy = ALPHA_BAR[at] ** 0.5 * x0 + (1 - ALPHA_BAR[at]) ** 0.5 * eps
        expected.append(((0.3 * noisy + 0.1 * (at - 1) / 1000 - eps) ** 2).mean())
    np.testing.assert_allclose(method.denoiser.loss(x.double(), rng).numpy(), expected, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("edit", [True, False])
def test_the_chain_its_map_and_score(edit: bool) -> None:
    """The distance to the features before editing, blurred; the score is its highest mean over
    4 x 4 pixels."""
    method, (x, keys) = lafite(edit=edit), features(2)
    seen = x.double().numpy()
    memory = method.memory.vectors.double().numpy()
    y = np.stack([edited(row, memory, 5) for row in seen]) if edit else seen
    levels = torch.full((2,), 200)
    noise = gaussian(Rng(keys).fork("repeat", 0).fork("start"), SHAPE, levels).double().numpy()
    y = ALPHA_BAR[200] ** 0.5 * y + (1 - ALPHA_BAR[200]) ** 0.5 * noise
    path = sampling_levels(200, 5)
    assert path == [200, 160, 120, 80, 40, 0]
    for high, low in pairwise(path):
        y = ddim(y, high, low)
    distance = ((y - seen) ** 2).sum(1) ** 0.5
    map = np.stack([gaussian_filter(row, 1.5, mode="mirror") for row in distance])
    detection = method.detect(x, [200], Rng(keys))
    np.testing.assert_allclose(detection.map[0].numpy(), map, rtol=1e-3, atol=1e-3)
    windows = np.lib.stride_tricks.sliding_window_view(map, (4, 4), axis=(1, 2))
    score = windows.mean((3, 4)).max((1, 2))
    np.testing.assert_allclose(detection.score[0].numpy(), score, rtol=1e-4)
