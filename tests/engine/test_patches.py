"""Tiles cover, boxes fall everywhere alike, stitching gives back what was cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.engine.patches import boxes, stitched, tiling
from adbench.engine.rng import Rng


@settings(deadline=None)
@given(
    st.lists(st.integers(3, 12), min_size=1, max_size=3),
    st.integers(2, 6).flatmap(lambda p: st.tuples(st.just(p), st.integers(1, p))),
    st.sampled_from(["cut", "mean"]),
)
def test_tiles_cover_everything_and_stitch_to_the_whole(shape, sides, aggregate) -> None:
    patch, stride = sides
    tiles = tiling(shape, patch, stride)
    assert (tiles.sum(0) >= 1).all() and tiles.shape[2:] == tuple(shape)
    whole = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    cut = torch.where(tiles, whole[:, None], torch.full_like(whole[:, None], 7.0))
    torch.testing.assert_close(stitched(cut, tiles, aggregate), whole)


def test_a_stride_beyond_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.8 \(the patch\), not 9"):
        tiling((16, 16), 8, 9)


def test_boxes_cover_every_place_alike_and_clipped_ones_do_not() -> None:
    streams = Rng([str(i) for i in range(40_000)])
    plain = boxes(streams.fork("a"), (16, 16), 8).float().mean((0, 1))
    clipped = boxes(streams.fork("b"), (16, 16), 8, clipped=True).float().mean((0, 1))
    assert plain.min() / plain.max() > 0.9
    assert clipped[0, 0] < 0.05 * clipped.max()


def test_every_box_may_have_sides_of_its_own() -> None:
    side = torch.tensor([[1, 4], [6, 2], [0, 3]])
    made = boxes(Rng([str(i) for i in range(600)]), (6, 6), side.repeat(200, 1))
    most = made.any(3).sum(2)[:, 0].view(200, 3).amax(0), made.any(2).sum(2)[:, 0].view(200, 3)
    assert most[0].tolist() == [1, 6, 0] and most[1].amax(0).tolist() == [4, 2, 0]
