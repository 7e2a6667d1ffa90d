"""Random affine views: what they do in cases that are known, each sample on its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.engine.augment import affine
from adbench.engine.rng import Rng

KEYS = [f"k{i}" for i in range(6)]
IMAGES = torch.stack([Rng([key]).normal((2, 8, 12))[0] for key in KEYS])


def test_without_a_range_nothing_moves() -> None:
    torch.testing.assert_close(affine(IMAGES, Rng(KEYS)), IMAGES, rtol=0, atol=1e-5)


def test_a_certain_flip_mirrors_left_and_right() -> None:
    seen = affine(IMAGES, Rng(KEYS), flip=1.0)
    torch.testing.assert_close(seen, IMAGES.flip(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_shifts_stay_within_their_range_along_their_axis(axis: int) -> None:
    """A bright line moves by at most a quarter of the side, and across the line only."""
    side = (12, 8)[axis]
    x = torch.zeros(6, 1, 8, 12).index_fill(3 - axis, torch.tensor(side // 2), 1.0)
    share = (0.25, 0.0) if axis == 0 else (0.0, 0.25)
    seen = affine(x, Rng(KEYS), translate=share).sum((1, 2 + axis))  # along the line
    place = (seen * torch.arange(side)).sum(1) / seen.sum(1)
    moved = place - side // 2
    assert moved.abs().max() <= 0.25 * side + 1e-4
    assert moved.min() < -0.3 and moved.max() > 0.3


def test_signals_and_volumes_are_left_alone() -> None:
    for shape in [(3, 1, 9), (3, 1, 4, 4, 4)]:
        x = torch.ones(shape)
        assert affine(x, Rng(KEYS[:3]), degrees=90, flip=1.0) is x


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_view_depends_on_the_sample_alone(order: list[int], count: int) -> None:
    what: dict[str, Any] = {
        "degrees": 10.0,
        "translate": (0.1, 0.1),
        "scale": (0.9, 1.1),
        "flip": 0.5,
    }
    rows = torch.tensor(order[:count])
    whole = affine(IMAGES, Rng(KEYS), **what)[rows]
    part = affine(IMAGES[rows], Rng(KEYS).rows(rows), **what)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-6)
