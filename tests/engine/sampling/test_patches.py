"""Tiles cover, boxes fall everywhere alike, stitching gives back what was cut."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.patches import BoxPlacement, random_boxes, stitch_tiles, tile_masks


@given(
    st.lists(st.integers(3, 12), min_size=1, max_size=3),
    st.integers(2, 6).flatmap(lambda p: st.tuples(st.just(p), st.integers(1, p))),
    st.sampled_from(["cut", "mean"]),
)
def test_tiles_cover_everything_and_stitch_to_the_whole(shape, sides, aggregate) -> None:
    patch, stride = sides
    tiles = tile_masks(shape, patch, stride)
    assert (tiles.sum(0) >= 1).all() and tiles.shape[2:] == tuple(shape)
    whole = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    cut = torch.where(tiles, whole[:, None], torch.full_like(whole[:, None], 7.0))
    torch.testing.assert_close(stitch_tiles(cut, tiles, aggregate), whole)


def test_a_stride_beyond_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.8 \(the patch\), not 9"):
        tile_masks((16, 16), 8, 9)


def test_boxes_cover_every_position_alike_and_clipped_ones_do_not() -> None:
    streams = Rng([str(i) for i in range(40_000)])
    plain = random_boxes(streams.fork("a"), (16, 16), 8).float().mean((0, 1))
    clipped = random_boxes(streams.fork("b"), (16, 16), 8, placement="clipped").float().mean((0, 1))
    assert plain.min() / plain.max() > 0.9
    assert clipped[0, 0] < 0.05 * clipped.max()


def test_every_box_may_have_sides_of_its_own() -> None:
    side = torch.tensor([[1, 4], [6, 2], [0, 3]])
    boxes = random_boxes(Rng([str(i) for i in range(600)]), (6, 6), side.repeat(200, 1))
    most = boxes.any(3).sum(2)[:, 0].view(200, 3).amax(0), boxes.any(2).sum(2)[:, 0].view(200, 3)
    assert most[0].tolist() == [1, 6, 0] and most[1].amax(0).tolist() == [4, 2, 0]


def test_boxes_inside_are_of_full_size_with_every_corner_as_often() -> None:
    boxes = random_boxes(Rng([str(i) for i in range(9000)]), (6, 3, 9), 4, placement="inside")
    assert (boxes.flatten(1).sum(1) == 4 * 3 * 4).all()  # the short axis is covered
    first = boxes.any(4).any(3)[:, 0].float().argmax(1), boxes.any(3).any(2)[:, 0].float().argmax(1)
    for low, corners in zip(first, (3, 6), strict=True):
        often = torch.bincount(low, minlength=corners) / len(low)
        assert len(often) == corners and (often - 1 / corners).abs().max() < 0.02


def test_boxes_of_every_kind_have_their_mean_size() -> None:
    """Of 48 in 96: all of it inside; 57 % of it where the corner may be anywhere; less over both
    edges."""
    streams = Rng([str(i) for i in range(4000)])
    share = {
        where: random_boxes(streams.fork(where), (96, 96), 48, placement=where)
        .float()
        .mean()
        .item()
        * 4
        for where in get_args(BoxPlacement)
    }
    assert share["inside"] == 1
    assert share["clipped"] == pytest.approx((1 - 47 / 192) ** 2, abs=0.015)
    assert share["overhanging"] == pytest.approx((96 / 143) ** 2, abs=0.015)
