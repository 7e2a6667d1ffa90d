"""DDAD's stages against its equations in float64, with SciPy's blur, on the toy denoiser of
`equations`; the distance of features is a stand-in, known by a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from adbench.datasets.base import Spec
from adbench.engine.runtime.rng import Rng
from adbench.methods.ddad import DDAD
from equations import (
    Array,
    TableNoise,
    ToyNetwork,
    agree,
    linear_alpha_bar,
    pictures,
    q_sample,
    table,
    tensor,
    toy,
    x0_from_noise,
)
from small import build_small

A, X, RNG = linear_alpha_bar(), pictures(3), Rng(["a", "b"])
INNER = 2 * X - 1
SHAPE = INNER.shape[1:]


class Features:
    """The stand-in for adapted features: the distance is 5 |x - y|^2, the mean over channels."""

    def distance(self, x: Any, y: Any, *, smooth: int) -> Any:
        return 5 * ((x - y) ** 2).mean(1)


def method(**more: object) -> Any:
    built = build_small(DDAD, Spec(3, (16, 16)), features="effperc-random", **more).eval()
    built.denoiser.add_module("net", ToyNetwork())
    built.noise = TableNoise()
    del built.student
    built.student = Features()
    return built


def guided_step(x: Array, level: int, to: int, w: float, eta: float) -> Array:
    """The authors' equations, in their order: epsilon led to the target, x_0, sigma, the step."""
    a, b = A[level], A[to]
    noise = toy(x, level)
    target = np.sqrt(a) * INNER + np.sqrt(1 - a) * noise
    led = noise - w * np.sqrt(1 - a) * (target - x)
    clean = x0_from_noise(x, led, a)
    sigma = eta * np.sqrt((1 - a / b) * (1 - b) / (1 - a))
    mean = np.sqrt(b) * clean + np.sqrt(max(1 - b - sigma**2, 0)) * led
    return mean + sigma * table("step", level, SHAPE)


def chain(start: int, w: float, eta: float, offset: int = 0) -> Array:
    x = q_sample(INNER, table("start", start, SHAPE), A[start + offset])
    for level in range(start, 0, -25):
        x = guided_step(x, level, max(level - 25, 0), w, eta)
    return x


def test_the_schedule() -> None:
    """Of index 225, 250 and 999: the specification's."""
    alpha_bar = method().denoiser.schedule.alpha_bar.numpy()
    assert alpha_bar[[226, 251, 1000]] == pytest.approx([0.588678, 0.521423, 4.0358e-5], rel=1e-5)


@torch.no_grad()
def test_one_step_led_to_the_sample() -> None:
    """From level 25 to 0 there is nothing to add: the chain is q_sample and one step."""
    ours = method()._reconstruct(tensor(INNER), tensor(INNER), [25], RNG, 3.0)
    agree(
        ours,
        guided_step(q_sample(INNER, table("start", 25, SHAPE), A[25]), 25, 0, 3.0, 1.0),
        -0.0205015801,
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("w", "eta", "offset", "number"),
    [
        (2.0, 1.0, 0, -0.0229257618),
        (0.0, 0.0, 0, -0.0260036221),
        (2.0, 1.0, 25, -0.0226109797),
    ],
)
def test_the_chain_of_ten_steps(w: float, eta: float, offset: int, number: float) -> None:
    built = method(w=w, eta=eta, start_offset=offset > 0)
    ours = built._reconstruct(tensor(INNER), tensor(INNER), [226], RNG, w)
    agree(ours, chain(226, w, eta, offset), number)


@torch.no_grad()
def test_the_map_and_the_score() -> None:
    """D_f + v (max D_f / max D_p) D_p, blurred by a Gaussian mirrored at the last pixel's centre,
    with the scale of calibration samples; and its maximum."""
    built = method(w=2.0, blur=2.0, v=7.0)
    built.largest.copy_(torch.tensor([0.2, 0.5]))
    results = built.detect(tensor(X), [226], RNG)
    normal = (chain(226, 2.0, 1.0) + 1) / 2
    agree(results.reconstruction[0], np.clip(normal, 0, 1), 0.488562718)
    pixel, feature = np.abs(normal - X).mean(1), Features().distance(normal, X, smooth=3)
    total = feature + 7.0 * (0.5 / 0.2) * pixel
    blurred = np.stack([gaussian_filter(m, 2, mode="mirror") for m in total])
    agree(results.map[0], blurred, 2.24918503)
    agree(results.score[0], blurred.max((1, 2)), 2.29810713)


def test_the_loss() -> None:
    """The squared error of the noise, summed over the sample's values."""
    built = method()
    ours = built.denoiser.loss(tensor(INNER), RNG, noise=built.noise) * INNER[0].size
    levels, losses = (1 + RNG.fork("level").integers(1000)).tolist(), []
    for x, level in zip(INNER, levels, strict=True):
        noise = table("noise", level, SHAPE)
        losses.append(((toy(q_sample(x, noise, A[level]), level) - noise) ** 2).sum())
    agree(ours, np.array(losses), 382.404453)
