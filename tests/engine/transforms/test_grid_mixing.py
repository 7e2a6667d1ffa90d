"""Cells of a grid: how many, where, and from where."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.grid_mixing import mix_cells, random_cells

SHAPES = st.sampled_from([(12,), (7, 9), (8, 8), (4, 5, 6)])


@settings(max_examples=30)
@given(shape=SHAPES, side=st.integers(1, 9), share=st.floats(0, 1))
def test_whole_cells_are_chosen_and_just_so_many(
    shape: tuple[int, ...], side: int, share: float
) -> None:
    got = random_cells(Rng(["a", "b"]), shape, side, torch.tensor([share, 0], dtype=torch.float64))
    assert got.shape == (2, 1, *shape) and not got[1].any()
    corners = got[0, 0][tuple(slice(None, None, side) for _ in shape)]
    count = math.prod(-(-n // side) for n in shape)
    assert corners.sum() == count - math.floor(count * (1 - share))
    whole = corners
    for axis, n in enumerate(shape):
        whole = whole.repeat_interleave(side, axis).narrow(axis, 0, n)
    assert torch.equal(whole, got[0, 0])


def test_every_cell_is_chosen_alike_often_and_each_sample_by_itself() -> None:
    keys = [f"s{i}" for i in range(4000)]
    share = torch.full((4000,), 0.25).double()
    got = random_cells(Rng(keys), (8, 8), 2, share)
    often = got.double().mean(0)[0, ::2, ::2]
    assert (often - 0.25).abs().max() < 4 * math.sqrt(0.25 * 0.75 / 4000)
    alone = random_cells(Rng(keys[7:8]), (8, 8), 2, share[:1])
    assert torch.equal(alone[0], got[7])


@pytest.mark.parametrize(("shape", "side"), [((12,), 3), ((8, 6), 2), ((5, 7), 2), ((4, 4, 6), 2)])
def test_a_shuffled_cell_is_a_cell_of_the_bank(shape: tuple[int, ...], side: int) -> None:
    """A bank whose values say which sample, and which place, they are of."""
    count = math.prod(shape)
    bank = torch.arange(3 * count).view(3, 1, *shape).repeat(1, 2, *[1] * len(shape))
    got = mix_cells(bank, Rng(["a", "b"]), side)
    assert got.shape == (2, 2, *shape) and torch.equal(got[:, 0], got[:, 1])
    assert not torch.equal(got[0], got[1])
    place = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij"))
    for one in got[:, 0]:
        index = one // count
        source = torch.stack(torch.unravel_index(one % count, shape))
        begin = tuple(place // side * side)  # of the cell that each place lies in
        assert torch.equal(index, index[begin])
        assert (source[:, *begin] % side == 0).all()
        assert torch.equal(source - source[:, *begin], place % side)


def test_the_bank_is_drawn_from_evenly() -> None:
    bank = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    got = mix_cells(bank, Rng([f"s{i}" for i in range(500)]), 2)
    shares = torch.stack([(got == i).double().mean() for i in range(4)])
    assert (shares - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 2000)
