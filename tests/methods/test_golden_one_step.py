"""pDDPM, mDDPM, cDDPM and ANDi, whose stages are single steps, against their equations in float64,
on the toy of `equations`: for the first three it predicts x_0, for ANDi the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adbench.datasets.base import Spec
from adbench.engine.runtime.rng import Rng
from adbench.methods.andi import ANDi
from adbench.methods.cddpm import CDDPM
from adbench.methods.mddpm import MDDPM, split_frequencies
from adbench.methods.pddpm import PDDPM
from equations import (
    Array,
    TableNoise,
    ToyNetwork,
    agree,
    cosine_alpha_bar,
    linear_alpha_bar,
    pictures,
    q_sample,
    table,
    tensor,
    toy,
    x0_from_noise,
)
from small import build_small

A, X, RNG = cosine_alpha_bar(), pictures(), Rng(["a", "b"])
INNER = 2 * X - 1
SHAPE = INNER.shape[1:]


def method(cls: type, **more: object) -> Any:
    built = build_small(cls, Spec(1, (16, 16)), **more).eval()
    built.denoiser.add_module("net", ToyNetwork())
    built.noise = built.inference_noise = TableNoise()
    return built


def quarters() -> list[tuple[slice, slice]]:
    return [(slice(i, i + 8), slice(j, j + 8)) for i in (0, 8) for j in (0, 8)]


def test_the_cosine_schedule() -> None:
    """Of index 249, 499, 749 and 999: the specification's."""
    alpha_bar = method(PDDPM).denoiser.schedule.alpha_bar.numpy()
    golden = [0.847012, 0.493844, 0.14427, 2.43e-9]
    assert alpha_bar[[250, 500, 750, 1000]] == pytest.approx(golden, rel=1e-3)
    np.testing.assert_allclose(alpha_bar, A, rtol=1e-9)


def test_q_sample() -> None:
    noise = table("start", 500, SHAPE)
    ours = method(PDDPM).denoiser.process.add_noise(
        tensor(INNER), torch.tensor([500, 500]), tensor(noise)
    )
    agree(ours, q_sample(INNER, noise, A[500]), -0.025008887)


@torch.no_grad()
@pytest.mark.parametrize("cls", [PDDPM, MDDPM])
def test_patches_are_estimated_in_one_step_and_cut_together(cls: type) -> None:
    """Each from its surroundings without noise; the map is the absolute error."""
    results = method(cls).detect(tensor(X), [500], RNG)
    noisy, whole = q_sample(INNER, table("start", 500, SHAPE), A[500]), np.zeros_like(INNER)
    for box in quarters():
        part = INNER.copy()
        part[(..., *box)] = noisy[(..., *box)]
        whole[(..., *box)] = toy(part, 500)[(..., *box)]
    normal = (whole + 1) / 2
    agree(results.reconstruction[0], normal, 0.521198667)
    error = np.abs(normal - X)[:, 0]
    agree(results.map[0], error, 0.157977115)
    agree(results.score[0], error.mean((1, 2)), 0.157977115)


def expected_loss(corrupted: Array, boxes: list[int]) -> Array:
    """The absolute error of x_0 within the box, over all pixels."""
    levels = (1 + RNG.fork("level").integers(1000)).tolist()
    losses = []
    for x, start, level, box in zip(INNER, corrupted, levels, boxes, strict=True):
        noisy, inside = start.copy(), (..., *quarters()[box])
        noisy[inside] = q_sample(start, table("noise", level, SHAPE), A[level])[inside]
        losses.append(np.abs(toy(noisy, level) - x)[inside].sum() / x.size)
    return np.array(losses)


def test_the_loss_of_patches() -> None:
    built, boxes = method(PDDPM), RNG.fork("box").integers(4)
    ours = built.denoiser.loss(
        tensor(INNER), RNG, noise=built.noise, region=built.cells[boxes], power=built.power
    )
    agree(ours, expected_loss(INNER, boxes.tolist()), 0.089724953)


def test_the_loss_of_patches_with_a_corrupted_input() -> None:
    """A rectangle of the sample's low frequencies, by NumPy's spectrum, is pasted into it."""
    spectrum = np.fft.fftshift(np.fft.fft2(X), axes=(2, 3))
    low = np.zeros_like(spectrum)
    low[..., 5:11, 5:11] = spectrum[..., 5:11, 5:11]
    low = np.fft.ifft2(np.fft.ifftshift(low, axes=(2, 3))).real
    half, keep = torch.tensor([3, 3]), torch.tensor([True, True])
    agree(split_frequencies(tensor(X), half, keep), low, 0.486605493)
    corrupted = INNER.copy()
    corrupted[..., 3:9, 6:12] = (2 * low - 1)[..., 3:9, 6:12]
    built, boxes = method(MDDPM), RNG.fork("box").integers(4)
    ours = built.denoiser.loss(
        tensor(INNER), RNG, noise=built.noise, corrupted=tensor(corrupted),
        region=built.cells[boxes], power=built.power,
    )  # fmt: skip
    agree(ours, expected_loss(corrupted, boxes.tolist()), 0.089715568)


@torch.no_grad()
def test_the_mean_of_an_ensemble_of_levels() -> None:
    """cDDPM's three: 250, 500 and 750, each with noise of its own."""

    class OwnNoise(TableNoise):
        """By the member of the ensemble, which is in the stream's name before the repeat."""

        def __call__(self, rng: Rng, shape: Any, level: torch.Tensor) -> torch.Tensor:
            parts = [key.split("\0") for key in rng.keys]
            repeats = [int(part[part.index("member") + 1]) for part in parts]
            fields = zip(repeats, level.tolist(), strict=True)
            return torch.stack([tensor(table("start", at, shape, r)) for r, at in fields])

    built = method(CDDPM, ensemble=(0.5, 1.0, 1.5))
    built.noise = OwnNoise()
    results = built.detect(tensor(X), [500], RNG)
    members = [
        toy(q_sample(INNER, table("start", level, SHAPE, member), A[level]), level)
        for member, level in enumerate((250, 500, 750))
    ]
    normal = (np.mean(members, 0) + 1) / 2
    agree(results.reconstruction[0], normal, 0.521698792)
    agree(results.map[0], np.abs(normal - X)[:, 0], 0.142601636)
    agree(results.score[0], np.abs(normal - X).mean((1, 2, 3)), 0.142601636)


def test_the_loss_of_a_whole_sample() -> None:
    built = method(CDDPM)
    ours = built.denoiser.loss(tensor(INNER), RNG, noise=built.noise, power=built.power)
    levels, losses = (1 + RNG.fork("level").integers(1000)).tolist(), []
    for x, level in zip(INNER, levels, strict=True):
        noisy = q_sample(x, table("noise", level, SHAPE), A[level])
        losses.append(np.abs(toy(noisy, level) - x).mean())
    agree(ours, np.array(losses), 0.404094964)


@torch.no_grad()
@pytest.mark.parametrize(
    ("aggregate", "number"), [("geometric", 2.96703060e-5), ("mean", 3.38429275e-5)]
)
def test_the_means_of_the_step_down_at_many_levels(aggregate: str, number: float) -> None:
    """ANDi's squared difference of mu(x_l, x_0) and mu(x_l, estimate): Ho et al., equation 7."""
    alpha_bar = linear_alpha_bar()
    results = method(ANDi, aggregate=aggregate, every=25, lowest=75).detect(tensor(X), [200], RNG)
    differences = []
    for level in (200, 175, 150, 125, 100):
        a, b = alpha_bar[level], alpha_bar[level - 1]
        x = q_sample(INNER, table("look", level, SHAPE), a)
        clean_weight = np.sqrt(b) * (1 - a / b) / (1 - a)
        difference = clean_weight * (INNER - x0_from_noise(x, toy(x, level), a))
        differences.append(difference**2 + (1e-16 if aggregate == "geometric" else 0))
    mean = np.mean(differences, 0)
    if aggregate == "geometric":
        mean = np.exp(np.mean(np.log(differences), 0)) - 1e-16
    agree(results.map[0], mean[:, 0], number, 1e-4)
    agree(results.score[0], mean.mean((1, 2, 3)), number)
