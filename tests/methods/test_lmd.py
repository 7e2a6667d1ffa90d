"""LMD: the chessboard, medians over reconstructions, and an oracle that knows what is healthy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.rng import Rng
from adbench.methods.lmd import LMD, _median, chessboard
from known import ConstantX0, NormalPosteriorMean
from small import build_small


def lmd(shape: tuple[int, ...], **settings: Any) -> Any:
    return build_small(LMD, Spec(1, shape), **{"size": None, "features": None} | settings).eval()


@pytest.mark.parametrize(("shape", "blocks"), [((32, 32), 8), ((8, 16), 4), ((8, 8, 8), 2)])
def test_the_chessboard_is_that_of_the_authors(shape: tuple[int, ...], blocks: int) -> None:
    cells = np.indices([blocks] * len(shape)).sum(0) % 2 == 0
    for axis, n in enumerate(shape):
        cells = cells.repeat(n // blocks, axis)
    assert np.array_equal(chessboard(shape, blocks).numpy(), cells)
    assert chessboard((7, 5), 2).shape == (7, 5)  # blocks that do not divide


@torch.no_grad()
@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_an_oracle_of_healthy_samples_leaves_the_lesion(shape: tuple[int, ...]) -> None:
    """Healthy is 0.5 everywhere: what is inpainted is 0.5, and the squared error the lesion's."""
    method = lmd(shape, blocks=4, repeats=4, sampling_steps=5)
    oracle = ConstantX0(torch.zeros(1, *shape))  # 0.5 in -1..1
    method.denoiser = Denoiser(oracle, linear_schedule(), prediction_type="clean").eval()
    x = torch.full((2, 1, *shape), 0.5)
    x[1, :, 2:5, 1:4] = 0.8
    detection = method.detect(x, [1000], Rng(["a", "b"]))
    torch.testing.assert_close(detection.map[0], (x[:, 0] - 0.5).square(), atol=1e-5, rtol=0)
    lesion = (x[1, 0] - 0.5).square()
    white = chessboard(shape, 4)
    a, b = ((lesion * part).mean().item() for part in (white, ~white))  # two of each: the median
    assert detection.score[0, 1].item() == pytest.approx((a + b) / 2, rel=1e-3)
    assert detection.score[0, 0].item() == pytest.approx(0, abs=1e-6)
    known = torch.where(white, x[1, 0], 0.5)
    other = torch.where(~white, x[1, 0], 0.5)
    torch.testing.assert_close(detection.reconstruction[0, 1, 0], (known + other) / 2, atol=1e-3,
        rtol=0)  # fmt: skip


@torch.no_grad()
def test_inpainting_draws_from_the_distribution_of_normal_samples() -> None:
    """An exact model of independent pixels with variance v: E (x - y)^2 = 2 v where inpainted."""
    variance = 0.04  # on the canvas; a quarter of it in [0, 1]
    method = lmd((16, 16), blocks=4, repeats=2)
    exact = NormalPosteriorMean(linear_schedule(), 0.0, variance)
    method.denoiser = Denoiser(exact, linear_schedule(), prediction_type="clean").eval()
    method.sampling = type(method.sampling)(300)
    keys = [f"s{i}" for i in range(16)]
    x = 0.5 + Rng(keys).fork("data").normal((1, 16, 16)) * variance**0.5 / 2
    detection = method.detect(x, [1000], Rng(keys))
    assert detection.map.mean().item() == pytest.approx(2 * variance / 4, rel=0.1)


@torch.no_grad()
def test_every_second_reconstruction_inpaints_the_other_blocks() -> None:
    method = lmd((16, 16), blocks=2, repeats=1, sampling_steps=3)
    method.denoiser = Denoiser(
        ConstantX0(torch.zeros(1, 16, 16)), linear_schedule(), prediction_type="clean"
    ).eval()
    one = method.detect(torch.ones(1, 1, 16, 16), [500], Rng(["a"])).map[0, 0]
    torch.testing.assert_close(one, torch.where(chessboard((16, 16), 2), 0.0, 0.25))


def test_the_median_is_numpys() -> None:
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    where = torch.rand(5, 40, generator=torch.Generator().manual_seed(1)) < 0.6
    where[:, 0] = False
    expected = np.nanmedian(np.where(where[:, 1:], values[:, 1:], np.nan), 0)
    ours = _median(values, where)
    np.testing.assert_allclose(ours[1:].numpy(), np.nan_to_num(expected), rtol=1e-6)
    assert ours[0] == 0
    np.testing.assert_allclose(_median(values).numpy(), np.median(values.numpy(), 0), rtol=1e-6)


@torch.no_grad()
def test_with_a_perceptual_network_the_score_is_the_median_of_its_mean_distances() -> None:
    method = lmd((16, 16), features="effperc-random", repeats=3, sampling_steps=3, blocks=2)
    method.denoiser = Denoiser(
        ConstantX0(torch.zeros(1, 16, 16)), linear_schedule(), prediction_type="clean"
    ).eval()
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    detection = method.detect(x, [1000], Rng(["a", "b"]))
    white = chessboard((16, 16), 2)
    even, odd = torch.where(white, x, 0.5), torch.where(white, 0.5, x)
    means = [method.perceptual.distance(x, y).flatten(1).mean(1) for y in (even, odd, even)]
    torch.testing.assert_close(detection.score[0], torch.stack(means).median(0).values)
