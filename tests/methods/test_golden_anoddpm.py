"""AnoDDPM's stages against its equations in float64, on the toy denoiser of `equations`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adbench.datasets.base import Spec
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.runtime.rng import Rng
from adbench.methods.anoddpm import AnoDDPM
from equations import (
    TableNoise,
    ToyNetwork,
    agree,
    ancestral_chain,
    ancestral_step,
    linear_alpha_bar,
    pictures,
    q_sample,
    table,
    tensor,
    toy,
    x0_from_noise,
)
from small import build_small

A, X, LEVEL = linear_alpha_bar(), pictures(), 40
INNER, RNG = 2 * X - 1, Rng(["a", "b"])


def method(**more: object) -> AnoDDPM:
    built = build_small(AnoDDPM, Spec(1, (16, 16)), sampling_steps=None, **more).eval()
    built.denoiser.add_module("net", ToyNetwork())
    built.noise = built.detection_noise = built.reverse_noise = TableNoise()
    return built


def noised(level: int) -> np.ndarray:
    return q_sample(INNER, table("start", level, INNER.shape[1:]), A[level])


def test_the_schedule() -> None:
    """Of index 249, 499 and 999: the specification's."""
    alpha_bar = method().denoiser.schedule.alpha_bar.numpy()
    assert alpha_bar[[250, 500, 1000]] == pytest.approx([0.524085, 0.078587, 4.0358e-5], rel=1e-5)
    np.testing.assert_allclose(alpha_bar, A, rtol=1e-12)


def test_q_sample() -> None:
    noise = table("start", 250, INNER.shape[1:])
    process = method().denoiser.process
    ours = process.add_noise(tensor(INNER), torch.tensor([250, 250]), tensor(noise))
    agree(ours, q_sample(INNER, noise, A[250]), -0.0228569987)


def test_one_reverse_step() -> None:
    """Of the forward step's variance, from an estimate clipped to the data's range."""
    x, level = noised(250), torch.tensor([250, 250])
    clean = np.clip(x0_from_noise(x, toy(x, 250), A[250]), -1, 1)
    noise = table("step", 250, INNER.shape[1:])
    denoiser = method().denoiser
    estimate = denoiser.estimate(tensor(x), level)
    agree(estimate.clean, clean, -0.0377159118)
    ours = denoiser.process_as(Gaussian).reverse_step(
        estimate.clean, estimate.noise, level, level - 1, tensor(noise), variance="large"
    )
    agree(ours, ancestral_step(x, clean, noise, A, 250, large=True), -0.023126875)


@torch.no_grad()
def test_the_chain_the_map_and_the_score() -> None:
    results = method().detect(tensor(X), [LEVEL], RNG)
    normal = (ancestral_chain(noised(LEVEL), LEVEL, A, clip=(-1, 1), large=True) + 1) / 2
    error = (normal - X)[:, 0] ** 2
    assert results.reconstruction is not None and results.map is not None
    agree(results.reconstruction[0], normal, 0.487343183)
    agree(results.map[0], error, 0.0103745627)
    agree(results.score[0], error.mean((1, 2)), 0.0103745627)


@torch.no_grad()
@pytest.mark.parametrize(
    ("gradual", "shift", "number"), [(True, False, 0.487149899), (False, True, 0.487098559)]
)
def test_the_chain_of_the_authors_other_scripts(gradual: bool, shift: bool, number: float) -> None:
    """Noise added level by level; and brought a level higher than the chain begins at."""
    results = method(gradual=gradual, index_shift=shift).detect(tensor(X), [LEVEL], RNG)
    x, shape = INNER, INNER.shape[1:]
    if gradual:
        for level in range(1, LEVEL + 1):
            ratio = A[level] / A[level - 1]
            x = np.sqrt(ratio) * x + np.sqrt(1 - ratio) * table("rise", level, shape)
    else:
        x = q_sample(x, table("start", LEVEL + 1, shape), A[LEVEL + 1])
    normal = (ancestral_chain(x, LEVEL, A, clip=(-1, 1), large=True) + 1) / 2
    assert results.reconstruction is not None
    agree(results.reconstruction[0], normal, number)


def test_the_loss() -> None:
    """The squared error of the noise, at one of levels 1..800."""
    built = method()
    loss = built.denoiser.loss(tensor(INNER), RNG, noise=built.noise, max_level=built.max_level)
    levels = (1 + RNG.fork("level").integers(800)).tolist()
    expected = []
    for x, level in zip(INNER, levels, strict=True):
        noise = table("noise", level, x.shape)
        expected.append(((toy(q_sample(x, noise, A[level]), level) - noise) ** 2).mean())
    agree(loss, np.array(expected), 0.494642438)
