"""FAE: structural similarity against SciPy, its loss and map; a planted patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.structural_similarity import structural_similarity
from adbench.methods.fae import FAE
from small import build_small

SPEC = Spec(1, (64, 64))


def fae(**settings: Any) -> Any:
    more = {"size": 64, "depths": (1, 2), "widths": (16, 24)} | settings
    return build_small(FAE, SPEC, **more).eval()


def image(name: str) -> Tensor:
    """(1, 64, 64) in [0, 1]: a ramp with a disc, and noise."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((y - 30) ** 2 + (x - 24) ** 2 < 150).float()
    return (0.3 + x / 200 + 0.3 * disc + 0.02 * Rng([name]).normal((1, 64, 64))[0]).clamp(0, 1)


def similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wang et al. 2004, equation 13, of one channel in float64, by a two-dimensional window."""
    offset = np.arange(-2, 3)
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        return convolve2d(values, window, mode="same")

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x**2) - mx**2, mean(y**2) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.0001, 0.0009
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_similarity_is_the_papers() -> None:
    x, y = Rng(["x", "y"]).normal((3, 9, 12)).double()
    got = structural_similarity(x[None], y[None])[0].numpy()
    for channel in range(3):
        expected = similarity(x[channel].numpy(), y[channel].numpy())
        np.testing.assert_allclose(got[channel], expected, rtol=1e-9)
    assert structural_similarity(x[None], x[None]).min() == pytest.approx(1)


class Half(nn.Module):
    """A reconstruction that is known."""

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * z + 0.1


@torch.no_grad()
def test_the_map_is_one_minus_the_mean_similarity_of_the_channels() -> None:
    method, x = fae(), image("x")[None]
    method.coder = Half()
    z = method.maps.embed(x)[0].double().numpy()
    expected = 1 - np.mean([similarity(c, 0.5 * c + 0.1) for c in z], axis=0)
    grid = torch.from_numpy(expected)[None, None]
    wide = torch.nn.functional.interpolate(grid, size=(64, 64), mode="bilinear")[0, 0]
    detection = method.detect(x, [0], Rng(["x"]))
    torch.testing.assert_close(detection.map[0, 0].double(), wide, rtol=1e-3, atol=1e-4)
    assert detection.score.item() == pytest.approx(wide.max().item(), rel=1e-3)


def test_a_planted_patch_is_where_it_looks_unusual() -> None:
    keys = [f"t{i}" for i in range(8)]
    train = [Sample(image(k), k, k, False, torch.zeros(64, 64) > 0) for k in keys]
    method = fae(steps=25, batch=4, lr=0.005)
    method.fit(train, [], TrainingContext())
    normal = image("x")
    ill = normal.clone()
    ill[:, 40:54, 40:54] = 1 - ill[:, 40:54, 40:54]
    detection = method.detect(torch.stack([normal, ill]), [0], Rng(["n", "i"]))
    gain = (detection.map[0, 1] - detection.map[0, 0]).detach()
    row, column = divmod(int(gain.argmax()), 64)
    assert 34 <= row < 60 and 34 <= column < 60
    assert detection.map[0, 1, 40:54, 40:54].mean() > 1.3 * detection.map[0, 1].mean()


def test_a_grid_too_small_for_the_widths_is_refused() -> None:
    with pytest.raises(ValueError, match="16 x 16 5 times: fewer widths or a larger size"):
        fae(widths=(4, 4, 4, 4, 4))
