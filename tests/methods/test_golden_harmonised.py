"""AutoDDPM's and THOR's stages against their equations in float64, with SciPy's filters, on the
toy denoiser of `equations`; the perceptual distance is a stand-in, known by a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, gaussian_filter, grey_closing, grey_dilation
from torch import nn

from adbench.datasets.base import Spec
from adbench.engine.runtime.rng import Rng
from adbench.methods.autoddpm import AutoDDPM
from adbench.methods.thor import THOR
from equations import (
    Array,
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

A, X, RNG = linear_alpha_bar(), pictures(), Rng(["a", "b"])
SHAPE = X.shape[1:]
UNIT = (0.0, 1.0)


class Squares(nn.Module):
    """The stand-in for a perceptual distance: 3 |x - y|^2, the mean over channels."""

    def distance(self, x: Any, y: Any, **_: bool) -> Any:
        return 3 * ((x - y) ** 2).mean(1)


def method(cls: type, **more: object) -> Any:
    built = build_small(cls, Spec(1, (16, 16)), sampling_steps=None, **more).eval()
    built.denoiser.add_module("net", ToyNetwork())
    built.noise = built.inpaint_noise = TableNoise()
    built.perceptual = Squares()
    return built


def soft_map(normal: Array) -> Array:
    """The perceptual distance times the residual over its 95th percentile, at most 1."""
    residual = np.abs(normal - X).mean(1)
    high = np.quantile(residual, 0.95, axis=(1, 2), keepdims=True)
    return Squares().distance(normal, X) * np.minimum(residual / high, 1)


def coarse(level: int) -> Array:
    x = q_sample(X, table("start", level, SHAPE), A[level])
    return np.clip(ancestral_chain(x, level, A, clip=UNIT), *UNIT)


def resampled(initial: Array, mask: Array, level: int, repeats: int, last: bool) -> Array:
    """RePaint from `initial`, each step made several times, with beta_l to go up again; at level 1
    once, or, as the authors have it, not at all, with the surroundings put in."""
    x = q_sample(initial, table("start", level, SHAPE), A[level])
    for at in range(level, 0 if last else 1, -1):
        for repeat in range(repeats if at > 1 else 1):
            draw = repeats - 1 if at == 1 else repeat
            clean = np.clip(x0_from_noise(x, toy(x, at), A[at]), *UNIT)
            inside = ancestral_step(x, clean, table("region", at, SHAPE, draw), A, at)
            outside = q_sample(X, table("known", at, SHAPE, draw), A[at - 1])
            x = mask * inside + (1 - mask) * outside
            if at > 1 and repeat < repeats - 1:
                again = table("again", at, SHAPE, repeat)
                x = np.sqrt(A[at] / A[at - 1]) * x + np.sqrt(1 - A[at] / A[at - 1]) * again
    return mask * x + (1 - mask) * X


@torch.no_grad()
@pytest.mark.parametrize(
    ("leave_last", "restored", "number"),
    [(False, 0.404928323, 0.0586680595), (True, 0.405676686, 0.0586935544)],
)
def test_autoddpms_two_passes(leave_last: bool, restored: float, number: float) -> None:
    """The coarse chain, the soft map, the mask grown by a pixel, RePaint, the map and the score."""
    built = method(AutoDDPM, inpaint_level=12, resamples=3, inpaint_steps=None,
        leave_last=leave_last)  # fmt: skip
    built.tau.fill_(0.4)
    first = coarse(60)
    ours, ours_soft = built._coarse_reconstruction(tensor(X), [60], RNG)
    agree(ours[0, :, 0], first, 0.437067576)
    soft = soft_map(first)
    agree(ours_soft[0], soft, 0.143984612)
    square = np.ones((3, 3), dtype=bool)
    mask = np.stack([binary_dilation(m > 0.4, square) for m in soft])[:, None].astype(np.float64)
    assert 0.1 < mask.mean() < 0.9
    fine = np.clip(resampled(first, mask, 12, 3, not leave_last), *UNIT)
    results = built.detect(tensor(X), [60], RNG)
    agree(results.reconstruction[0], fine, restored)
    residual = np.abs(fine - X)[:, 0] * soft
    agree(results.map[0], residual, number)
    agree(results.score[0], residual.mean((1, 2)), number)


def harmonised(level: int, marks: set[int], back: set[int]) -> tuple[Array, Array]:
    """THOR's chain: the reconstruction and the harmonic mean of the maps on the way."""
    inner, shape = 2 * X - 1, X.shape[1:]
    start = table("start", level, shape)
    x, maps = q_sample(inner, start, A[level]), []
    for at in range(level, 0, -1):
        clean = np.clip(x0_from_noise(x, toy(x, at), A[at]), -1, 1)
        x = ancestral_step(x, clean, table("step", at, shape), A, at)
        if at in marks | back:
            one, other = X, (clean + 1) / 2
            apart = np.stack([gaussian_filter(m, 2) for m in Squares().distance(one, other)])
            m = np.clip(apart, 0, 1) * np.abs(one - other).mean(1)
            m = m / m.max((1, 2), keepdims=True)
            maps.append(m)
            if at in back:
                wide = np.stack([grey_dilation(grey_closing(y, 3), 3) for y in m])
                share = ((wide + m) / 2)[:, None]
                x = q_sample(share * clean + (1 - share) * inner, start, A[at - 1])
    harmonic = len(maps) / sum(1 / np.maximum(m, 1e-6) for m in maps)
    return x, np.minimum(harmonic, 0.999)


@torch.no_grad()
def test_thors_chain_map_and_score() -> None:
    """Maps at levels 41, 21 and 1 and at 31, where the input is blended in as well."""
    built = method(THOR, harmonise=(31,), every=20, kernel=3, blur=2.0)
    x, harmonic = harmonised(50, {41, 21, 1}, {31})
    results = built.detect(tensor(X), [50], RNG)
    agree(results.reconstruction[0], (x + 1) / 2, 0.488426884)
    agree(results.map[0], harmonic, 0.411010975, 1e-4)
    agree(results.score[0], harmonic.mean((1, 2)), 0.411010975)
    one = np.stack([gaussian_filter(m, 2) for m in Squares().distance(X, X[::-1])])
    one = one * np.abs(X - X[::-1]).mean(1)
    ours = built.intermediate_map(tensor(2 * X - 1), tensor(2 * X[::-1].copy() - 1))
    agree(ours, one / one.max((1, 2), keepdims=True), 0.292783974)


@pytest.mark.parametrize("cls", [AutoDDPM, THOR])
def test_the_loss(cls: type) -> None:
    """The squared error of the noise at one of all levels."""
    built, inner = method(cls), X if cls is AutoDDPM else 2 * X - 1
    ours = built.denoiser.loss(tensor(inner), RNG, noise=built.noise)
    levels, losses = (1 + RNG.fork("level").integers(1000)).tolist(), []
    for x, level in zip(inner, levels, strict=True):
        noise = table("noise", level, SHAPE)
        losses.append(((toy(q_sample(x, noise, A[level]), level) - noise) ** 2).mean())
    expected = {AutoDDPM: 0.497145849, THOR: 0.496594708}[cls]
    agree(ours, np.array(losses), expected)
