"""Random views: what they do in cases that are known, each sample on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.augmentation import (
    random_affine,
    random_bias_field,
    random_blur,
    random_gamma,
    random_ghosting,
)

KEYS = [f"k{i}" for i in range(6)]
IMAGES = torch.stack([Rng([key]).normal((2, 8, 12))[0] for key in KEYS])


def test_without_a_range_nothing_moves() -> None:
    torch.testing.assert_close(random_affine(IMAGES, Rng(KEYS)), IMAGES, rtol=0, atol=1e-5)


def test_a_certain_flip_mirrors_left_and_right() -> None:
    transformed = random_affine(IMAGES, Rng(KEYS), flip=1.0)
    torch.testing.assert_close(transformed, IMAGES.flip(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_shifts_stay_within_their_range_along_their_axis(axis: int) -> None:
    """A bright line moves by at most a quarter of the side, and across the line only."""
    side = (12, 8)[axis]
    x = torch.zeros(6, 1, 8, 12).index_fill(3 - axis, torch.tensor(side // 2), 1.0)
    share = (0.25, 0.0) if axis == 0 else (0.0, 0.25)
    transformed = random_affine(x, Rng(KEYS), translate=share).sum((1, 2 + axis))  # along the line
    place = (transformed * torch.arange(side)).sum(1) / transformed.sum(1)
    moved = place - side // 2
    assert moved.abs().max() <= 0.25 * side + 1e-4
    assert moved.min() < -0.3 and moved.max() > 0.3


def test_signals_and_volumes_are_left_alone() -> None:
    for shape in [(3, 1, 9), (3, 1, 4, 4, 4)]:
        x = torch.ones(shape)
        assert random_affine(x, Rng(KEYS[:3]), degrees=90, flip=1.0) is x


@settings(max_examples=25)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_view_depends_on_the_sample_alone(order: list[int], count: int) -> None:
    options: dict[str, Any] = {
        "degrees": 10.0,
        "translate": (0.1, 0.1),
        "scale": (0.9, 1.1),
        "flip": 0.5,
    }
    rows = torch.tensor(order[:count])
    whole = random_affine(IMAGES, Rng(KEYS), **options)[rows]
    part = random_affine(IMAGES[rows], Rng(KEYS).rows(rows), **options)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-6)


FAULTS = [random_gamma, random_bias_field, random_blur, random_ghosting]
SHAPES = [(4, 2, 24), (4, 2, 20, 16), (4, 1, 8, 12, 10)]


def transformed(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_not_drawn_changes_nothing_and_one_that_is_does(fault, shape) -> None:
    x, rng = transformed(*shape), Rng(KEYS[:4])
    assert torch.equal(fault(x, rng.fork("a"), 0.0), x)
    result = fault(x, rng.fork("a"), 1.0)
    assert result.shape == x.shape and result.dtype == x.dtype and result.isfinite().all()
    assert (result != x).flatten(1).any(1).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_befalls_the_share_of_samples_that_it_has_a_chance_of(fault) -> None:
    x = transformed(1, 1, 12, 12).expand(2000, -1, -1, -1)
    result = fault(x, Rng([str(i) for i in range(2000)]), 0.25)
    share = (result != x).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_depends_on_the_sample_alone(fault, shape) -> None:
    x, rows = transformed(*shape), torch.tensor([3, 1])
    whole = fault(x, Rng(KEYS[:4]), 0.5)[rows]
    part = fault(x[rows], Rng(KEYS[:4]).rows(rows), 0.5)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-6)


def test_gamma_is_a_power() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    power = (
        random_gamma(x, Rng([str(i) for i in range(4000)]))[:, 0, 0, 0].log()
        / torch.tensor(0.5).log()
    )
    assert (power == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)
    moved = power[power != 1].log()
    assert moved.abs().max() <= 0.3001 and moved.mean().abs() < 0.02


@pytest.mark.parametrize(("shape", "terms"), [((30,), 4), ((9, 12), 10), ((6, 7, 8), 20)])
def test_a_bias_field_is_the_exponential_of_a_cubic_polynomial(shape, terms) -> None:
    """Nothing is left of its logarithm beside the best such polynomial; coefficients up to .5."""
    field = random_bias_field(torch.ones(3, 2, *shape), Rng(KEYS[:3]), 1.0)
    assert torch.equal(field[:, 0], field[:, 1])
    log = field[:, 0].double().log().flatten(1).numpy()
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    powers = [e for e in np.ndindex(*[4] * len(shape)) if sum(e) <= 3]
    columns = [np.prod([a**e for a, e in zip(axes, p, strict=True)], 0).ravel() for p in powers]
    coefficients, *_ = np.linalg.lstsq(np.stack(columns, 1), log.T, rcond=None)
    assert (
        len(powers) == terms
        and np.abs(coefficients).max() < 0.5
        and np.abs(coefficients).max() > 0.3
    )
    np.testing.assert_allclose(np.stack(columns, 1) @ coefficients, log.T, atol=1e-5)


def test_a_blur_is_scipys_gaussian_along_every_axis() -> None:
    x, rng = transformed(3, 1, 20, 16).double(), Rng(KEYS[:3])
    result = random_blur(x, rng, 1.0)
    for u, one, theirs in zip(Rng(KEYS[:3]).uniform((3,)), result, x[:, 0].numpy(), strict=True):
        for axis, deviation in enumerate((2 * u[1:]).tolist()):
            theirs = gaussian_filter1d(theirs, deviation, axis, mode="nearest", radius=8)
        np.testing.assert_allclose(one[0], theirs, atol=1e-6)


def test_ghosts_are_fainter_copies_a_share_of_the_side_apart() -> None:
    """Where every fourth frequency is lost to a half, a quarter of it is spread over four copies
    of the signal; with the mean kept, all of it comes back to that."""
    x = transformed(2, 1, 24)
    lost = {"counts": (4, 4), "strength": (0.5, 0.5)}
    all_lost = random_ghosting(x, Rng(KEYS[:2]), 1.0, protected=-1.0, **lost)
    copies = torch.stack([x.roll(6 * m, 2) for m in range(4)]).mean(0)
    torch.testing.assert_close(all_lost, x - 0.5 * copies)
    result = random_ghosting(x, Rng(KEYS[:2]), 1.0, **lost)
    torch.testing.assert_close(result, all_lost + 0.5 * x.mean(2, keepdim=True))


def test_ghosts_lie_along_one_axis_each_as_often() -> None:
    """A plane that differs along one axis alone has ghosts only if that is the one."""
    x = torch.rand(1, 1, 1, 24, generator=torch.Generator().manual_seed(0)).expand(600, 1, 24, 24)
    changed = (
        (random_ghosting(x, Rng([str(i) for i in range(600)]), 1.0) - x).flatten(1).abs().amax(1)
    )
    assert (changed > 1e-3).float().mean().item() == pytest.approx(0.5, abs=0.06)
