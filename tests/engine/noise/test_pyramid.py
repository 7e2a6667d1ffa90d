"""Noise on coarse grids: its variance in closed form, numpy's interpolation of the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adbench.engine.noise.pyramid import Coarse, Pyramid
from adbench.engine.runtime.rng import Rng


@pytest.mark.parametrize("shape", [(1, 21), (1, 16, 11), (1, 8, 5, 6)])
def test_pyramid_noise_has_unit_variance_everywhere(shape: tuple[int, ...]) -> None:
    field = Pyramid()(Rng([str(i) for i in range(4000)]), shape, torch.ones(4000))
    variance = field.square().mean(0)
    assert variance.min() > 0.85 and variance.max() < 1.15
    assert variance.mean().item() == pytest.approx(1, abs=0.03)


def alike(field: Tensor) -> float:
    """How alike neighbours in a row are: their correlation."""
    pair = torch.stack([field[..., 1:].flatten(), field[..., :-1].flatten()])
    return torch.corrcoef(pair)[0, 1].item()


def test_pyramid_noise_is_coarse_and_more_so_with_persistence() -> None:
    rng, level = Rng([str(i) for i in range(20)]), torch.ones(20)
    flat, some, much = (
        alike(Pyramid(octaves, persistence)(rng, (1, 64, 64), level))
        for octaves, persistence in ((1, 1.0), (6, 0.5), (6, 1.0))
    )
    assert abs(flat) < 0.02 and flat + 0.1 < some < much - 0.1
    one = Pyramid(1)(Rng(["a"]), (2, 9), level[:1])
    torch.testing.assert_close(one, Rng(["a"]).normal((2, 9)))


def test_coarse_noise_is_a_stretched_grid_rolled_around() -> None:
    """Against numpy's interpolation of the same draws, corners on corners, at every offset."""
    rng = Rng(["a"])
    result = Coarse(4, 2.0)(rng, (1, 16), torch.tensor([1]))[0, 0].double().numpy()
    grid = 2.0 * Rng(["a"]).normal((1, 4))[0, 0].double().numpy()
    centres = np.linspace(0, 15, 4)
    field = np.interp(np.arange(16), centres, grid)
    assert any(np.allclose(result, np.roll(field, by), atol=1e-6) for by in range(16))
    many = Coarse(4, 2.0)(Rng([str(i) for i in range(3000)]), (1, 16, 16), torch.ones(3000))
    spread = many.square().mean(0)[0]
    assert spread.std() < 0.05 * spread.mean(), "rolled, every place is alike"
    weights = np.stack([np.interp(np.arange(16), centres, row) for row in np.eye(4)])
    expected = 4 * ((weights**2).sum(0).mean()) ** 2
    assert spread.mean().item() == pytest.approx(expected, rel=0.05)


def test_a_shared_roll_moves_different_fields_alike() -> None:
    """The field of each sample is the one that it has by itself, and so are the rolls: the same
    draw for all, whoever they are with, another at another step."""
    rng, shape, level = Rng(["fit/0", "fit/1"]).fork("noise"), (1, 24, 16), torch.ones(2)
    places = [np.linspace(0, n - 1, 6) for n in shape[1:]]
    weights = [
        np.stack([np.interp(np.arange(n), at, row) for row in np.eye(6)], 1)
        for n, at in zip(shape[1:], places, strict=True)
    ]
    rolls = []
    for step in range(4):
        result = Coarse(6, shared_roll=True)(rng.at(step), shape, level)[:, 0].double().numpy()
        fields = [
            weights[0] @ grid[0] @ weights[1].T
            for grid in 0.2 * rng.at(step).normal((1, 6, 6)).double().numpy()
        ]
        assert not np.allclose(*fields)
        shifts = [
            {
                (down, right)
                for down in range(24)
                for right in range(16)
                if np.allclose(one, np.roll(field, (down, right), (0, 1)), atol=1e-6)
            }
            for one, field in zip(result, fields, strict=True)
        ]
        assert len(shifts[0]) == 1 and shifts[0] == shifts[1]
        rolls += shifts[0]
    assert len(set(rolls)) > 1
    separate = Coarse(6)(rng, shape, level)
    assert not torch.equal(separate, Coarse(6, shared_roll=True)(rng, shape, level))
