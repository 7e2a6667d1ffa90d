"""Patches of other samples: whose they are, where, and how often."""

from __future__ import annotations

import pytest
import torch

from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.patch_interpolation import PatchInterpolation, random_blobs

KEYS = [str(i) for i in range(300)]


@pytest.mark.parametrize("shape", [(24,), (20, 16), (8, 10, 12)])
def test_patches_are_samples_of_the_bank_and_shapes_are_soft(shape: tuple[int, ...]) -> None:
    bank = torch.stack([torch.full((2, *shape), 0.1 * i) for i in range(1, 5)])
    drawn = PatchInterpolation(bank)(Rng(KEYS), (2, *shape), torch.ones(300))
    other, inside = drawn[:, :-1], drawn[:, -1]
    source = other.flatten(1).amax(1)
    assert torch.equal(source, other.flatten(1).amin(1))
    assert len(source.unique()) == 4
    assert inside.min() >= 0 and inside.max() <= 1
    assert ((inside > 0.1) & (inside < 0.9)).any()


def test_a_patch_comes_from_about_the_same_position() -> None:
    """It is rolled by at most a quarter of the side, along every axis by itself."""
    bank = torch.zeros(1, 1, 16, 16)
    bank[..., 8, 8] = 1
    other = PatchInterpolation(bank)(Rng(KEYS), (1, 16, 16), torch.ones(300))[:, 0]
    where = other.flatten(1).argmax(1)
    rows, columns = where // 16, where % 16
    for place in (rows, columns):
        assert place.min() == 4 and place.max() == 12
    assert (rows != columns).any()


def test_anomalies_are_as_often_as_asked() -> None:
    bank = torch.ones(2, 1, 12, 12)
    inside = PatchInterpolation(bank, probability=0.3)(Rng(KEYS), (1, 12, 12), torch.ones(300))[
        :, -1
    ]
    assert (inside.flatten(1).amax(1) > 0).float().mean().item() == pytest.approx(0.3, abs=0.06)


def test_patches_may_be_brighter_or_darker_by_a_normal_amount_and_stay_in_range() -> None:
    bank = torch.full((2, 1, 12, 12), 0.5)
    other = PatchInterpolation(bank, shift=0.1)(Rng(KEYS), (1, 12, 12), torch.ones(300))[:, 0]
    by = other[:, 0, 0] - 0.5
    assert torch.equal(other, (0.5 + by).view(-1, 1, 1).expand_as(other))
    assert by.std().item() == pytest.approx(0.1, rel=0.15) and by.mean().abs() < 0.02
    wild = PatchInterpolation(bank, shift=3.0)(Rng(KEYS), (1, 12, 12), torch.ones(300))[:, 0]
    assert wild.min() == 0 and wild.max() == 1


def test_a_sample_gets_the_same_in_any_company() -> None:
    foreign = PatchInterpolation(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    whole = foreign(Rng(KEYS[:4]), (1, 8, 8), torch.ones(4))
    alone = foreign(Rng(KEYS[2:3]), (1, 8, 8), torch.ones(1))
    assert torch.equal(whole[2:3], alone)


def test_larger_radii_make_larger_shapes_anywhere_but_near_the_edge() -> None:
    small, large = (random_blobs(Rng(KEYS), (24, 24), (r, r)) for r in (0.08, 0.3))
    assert 3 * (small > 0.5).sum() < (large > 0.5).sum()
    cover = (large > 0.5).float().mean((0, 1))
    assert cover[6:18, 6:18].min() > 0.1
