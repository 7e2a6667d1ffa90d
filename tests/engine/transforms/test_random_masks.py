"""Random masks: where they lie, how large they are, and whose streams they come from."""

from __future__ import annotations

import math

import pytest
import torch

from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.random_masks import BlockMasks

KEYS = [f"sample {i}" for i in range(400)]


@pytest.mark.parametrize("shape", [(24, 16), (12, 8, 10)])
def test_they_lie_in_the_foreground_and_belong_to_the_sample(shape: tuple[int, ...]) -> None:
    inside = torch.zeros(3, 1, *shape, dtype=torch.bool)
    inside[:2, :, 4:] = True  # the third sample has no foreground
    masks = BlockMasks()(inside, Rng(["a", "b", "c"]))
    assert masks.shape == inside.shape
    assert not (masks & ~inside).any()
    assert masks[:2].flatten(1).any(1).all() and not masks[2].any()
    alone = BlockMasks()(inside[1:2], Rng(["b"]))
    assert torch.equal(alone[0], masks[1])


@pytest.mark.parametrize("axes", [2, 3])
def test_a_block_is_hit_with_the_chance_of_so_many_draws(axes: int) -> None:
    """One pixel blocks of a round distribution: P = 1 - exp(-draws exp(-d^2 / 2)), d in sigmas."""
    n, sigma, draws = 17, 2.0, 1.5
    inside = torch.zeros(len(KEYS), 1, *[n] * axes, dtype=torch.bool)
    middle = (slice(None), 0, *[n // 2] * axes)
    inside[middle] = True  # the place is there, in all samples
    sampler = BlockMasks((1 / n,), (draws,), (sigma / n, sigma / n))
    rng = Rng(KEYS)
    place = sampler._random_place(inside, rng)
    assert (place == n // 2 + 0.5).all()
    hits = sampler(inside, rng).float()
    at_place = 1 - math.exp(-draws)
    assert hits[middle].mean().item() == pytest.approx(at_place, abs=0.08)


def test_blocks_are_squares() -> None:
    """With enough draws and a wide spread every block is hit; with none, none is."""
    inside = torch.ones(2, 1, 12, 12, dtype=torch.bool)
    full = BlockMasks((1 / 3,), (1e9,), (1.0, 1.0))(inside, Rng(["a", "b"]))
    assert full.all()
    assert not BlockMasks((1 / 3,), (0.0,))(inside, Rng(["a", "b"])).any()
    some = BlockMasks((1 / 3,), (0.7,), (1.0, 1.0))(inside, Rng([*"ab"]))
    changes = (some[..., 1:] != some[..., :-1]).nonzero()
    assert {int(c) % 4 for c in changes[changes[:, 0] == 0][:, 3]} != {0, 1, 2, 3}  # one offset


def test_their_directions_are_all_alike_probable() -> None:
    whiten = BlockMasks(spread=(0.1, 0.1))._random_whitening(2, 10, Rng(KEYS))
    product = whiten @ whiten.transpose(1, 2)
    torch.testing.assert_close(product, torch.eye(2).double().expand_as(product))
    angle = torch.atan2(whiten[:, 0, 1], whiten[:, 0, 0])
    assert abs(angle.cos().mean().item()) < 0.15 and abs(angle.sin().mean().item()) < 0.15
