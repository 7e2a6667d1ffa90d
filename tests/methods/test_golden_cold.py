"""DAE, DISYRE and DeCo-Diff, whose processes add something else than noise up to a level, against
their equations in float64, with SciPy's filters, on the toy network of `equations`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter, zoom
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from adbench.datasets.base import Spec
from adbench.engine.runtime.rng import Rng
from adbench.methods.dae import DAE
from adbench.methods.deco_diff import DeCoDiff
from adbench.methods.disyre import DISYRE
from equations import (
    TableNoise,
    ToyNetwork,
    agree,
    cosine_alpha_bar,
    linear_alpha_bar,
    pictures,
    table,
    tensor,
    toy,
)
from small import build_small

X, RNG = pictures(2), Rng(["a", "b"])
X[..., :3, :] = 0  # a background
SHAPE = X.shape[1:]


def method(cls: type, **more: object) -> Any:
    built = build_small(cls, Spec(2, (16, 16)), **more).eval()
    built.denoiser.add_module("net", ToyNetwork())
    built.noise = TableNoise()
    return built


@torch.no_grad()
def test_daes_map_and_score() -> None:
    """|x - estimate| of the sample itself, the mean over channels, where more than 95 % of the
    5 x 5 neighbours are foreground."""
    results = method(DAE, erode=5).detect(tensor(X), [0], RNG)
    inside = X.sum(1) > 0.01
    near = np.stack([uniform_filter(m.astype(np.float64), 5, mode="constant") for m in inside])
    error = np.abs(toy(X, 1) - X).mean(1) * (near > 0.95)
    assert 0 < (near > 0.95).sum() < inside.sum()
    agree(results.reconstruction[0], toy(X, 1), 0.121471001)
    agree(results.map[0], error, 0.157429901)
    agree(results.score[0], error.mean((1, 2)), 0.157429901)


def test_daes_loss() -> None:
    """The squared error in the foreground, where alone noise is added, over all pixels."""
    built = method(DAE)
    region = built._foreground_mask(tensor(X))
    ours = built.denoiser.loss(tensor(X), RNG, noise=built.noise, region=region)
    inside = X.sum(1, keepdims=True) > 0.01
    noisy = X + table("noise", 1, SHAPE) * inside
    agree(ours, ((toy(noisy, 1) - X) ** 2 * inside).mean((1, 2, 3)), 0.186591174)


def share(level: int) -> float:
    """DISYRE's blend at a level: 0 at 0, or what a schedule of 100 levels keeps, in reverse."""
    return float(np.sqrt(linear_alpha_bar(100)[101 - level])) if level else 0.0


def test_disyres_schedule_and_blend() -> None:
    built, level = method(DISYRE), torch.tensor([20, 100])
    other, inside = table("other", 1, SHAPE), (table("inside", 1, (1, 16, 16)) + 1.5) / 3
    noise = tensor(np.stack([np.concatenate([other, inside])] * 2))
    ours = built.denoiser.process.add_noise(tensor(X), level, noise)
    shares = np.array([share(20), share(100)]).reshape(2, 1, 1, 1)
    agree(ours, X + shares * inside * (other - X), 0.378301335)


@torch.no_grad()
@pytest.mark.parametrize(
    ("way", "restored", "number"),
    [("multi", 0.0205581517, 0.161524680), ("single", 0.123371001, 0.279744837)],
)
def test_disyres_five_steps_map_and_score(way: str, restored: float, number: float) -> None:
    results = method(DISYRE, way=way, sampling_steps=5).detect(tensor(X), [1000], RNG)
    x, distance = X, np.zeros_like(X)
    for level in (100, 80, 60, 40, 20):
        clean = toy(x, level)
        distance += np.abs(x - clean) / 5
        if way == "multi":
            x = np.clip(clean + share(level - 20) / share(level) * (x - clean), 0, 1)
    agree(results.reconstruction[0], np.clip(clean, 0, 1), restored)
    error = distance.mean(1)
    agree(results.map[0], error, number)
    agree(results.score[0], error.mean((1, 2)), number)


def test_disyres_loss() -> None:
    """The squared error of x_0 from the blend at one of 100 levels."""
    built, other = method(DISYRE), table("other", 1, SHAPE)
    inside = (table("inside", 1, (1, 16, 16)) + 1.5) / 3
    noise = tensor(np.stack([np.concatenate([other, inside])] * 2))
    ours = built.denoiser.loss(tensor(X), RNG, noise=lambda *_: noise)
    levels, losses = (1 + RNG.fork("level").integers(100)).tolist(), []
    for x, level in zip(X, levels, strict=True):
        blend = x + share(level) * inside * (other - x)
        losses.append(((toy(blend, level) - x) ** 2).mean())
    agree(ours, np.array(losses), 0.153900702)


class Halves(nn.Module):
    """The stand-in for DeCo-Diff's autoencoder: twice the mean of 2 x 2 pixels, and back."""

    def encode(self, x: Tensor) -> Tensor:
        return 2 * avg_pool2d(x, 2)

    def decode(self, z: Tensor) -> Tensor:
        return interpolate(z / 2, scale_factor=2, mode="nearest")


def sigma(level: int) -> float:
    return float(np.sqrt(1 - cosine_alpha_bar(10)[level]))


@torch.no_grad()
def test_decodiffs_chain_map_and_score() -> None:
    """From the code as it is, x_0 = z - sigma_l d, next = x_0 + sigma_k d, at 9, 7, 5, 3, 1; both
    differences clipped, blurred as SciPy does and multiplied."""
    built = method(DeCoDiff, coder_widths=(8,), clips=(0.4, 0.2), blurs=(3.0, 1.0), stride=2)
    built.add_module("codec", Halves())
    inner = 2 * X - 1
    start = 2 * inner.reshape(2, 2, 8, 2, 8, 2).mean((3, 5))
    z = start
    for level in (9, 7, 5, 3, 1):
        deviation = toy(z, level)
        z = z - sigma(level) * deviation + sigma(max(level - 2, 0)) * deviation
    image, normal = (np.repeat(np.repeat(y / 2, 2, 2), 2, 3) for y in (start, z))
    pixel, code = np.abs(normal - image).max(1), np.abs(z - start).mean(1)
    pixel = np.stack([gaussian_filter(np.minimum(m, 0.4) / 0.4, 3) for m in pixel])
    code = np.stack([gaussian_filter(np.minimum(m, 0.2) / 0.2, 1) for m in code])
    code = np.stack([np.asarray(zoom(m, 2, order=1, mode="mirror", grid_mode=True)) for m in code])
    combined = np.sqrt(pixel * code)
    results = built.detect(tensor(X), [900], RNG)
    agree(results.reconstruction[0], np.clip((normal + 1) / 2, 0, 1), 0.429950787)
    agree(results.map[0], combined, 0.492602963)
    agree(results.score[0], combined.max((1, 2)), 0.717842809)


def test_decodiffs_loss_and_what_noise_deviates_by() -> None:
    """d = e - (1 - sqrt(alpha_bar)) / sigma x_0 makes x_0 + sigma d the Gaussian process's x_l; the
    loss is the squared error of d."""
    built, z = method(DeCoDiff, coder_widths=(8,)), 2 * X - 1
    levels = (1 + RNG.fork("level").integers(10)).tolist()
    deviations, losses = [], []
    for x, level in zip(z, levels, strict=True):
        stored = np.sqrt(cosine_alpha_bar(10)[level])
        d = table("noise", level, SHAPE) - (1 - stored) / sigma(level) * x
        gaussian = stored * x + sigma(level) * table("noise", level, SHAPE)
        np.testing.assert_allclose(x + sigma(level) * d, gaussian, atol=1e-12)
        deviations.append(d)
        losses.append(((toy(gaussian, level) - d) ** 2).mean())
    at = torch.tensor(levels)
    ours = built.process.deviation_from_noise(
        tensor(z), TableNoise()(RNG.fork("noise"), SHAPE, at), at
    )
    agree(ours, np.stack(deviations), 0.170772964)
    agree(built.denoiser.loss(tensor(z), RNG, noise=lambda *_: ours), np.array(losses), 0.776617803)
