"""Tiles cover an image, know where they lay, and put together give it back."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.base import Sample
from adbench.datasets.transforms.tiles import cut_tiles, tile_starts


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 59))
def test_tiles_cover_all_and_reach_no_further(extent, tile, overlap) -> None:
    if not overlap < tile <= extent:
        with pytest.raises(ValueError, match="do not fit"):
            tile_starts(extent, tile, overlap)
        return
    starts = tile_starts(extent, tile, overlap)
    assert {i for at in starts for i in range(at, at + tile)} == set(range(extent))
    assert starts == sorted(set(starts))
    assert all(b - a <= tile - overlap for a, b in pairwise(starts))


@given(st.integers(5, 20), st.integers(5, 20), st.integers(1, 5), st.integers(0, 4))
def test_what_is_cut_can_be_put_together(height, width, tile, overlap) -> None:
    if overlap >= tile:
        overlap = tile - 1
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, height, width, generator=generator)
    mask = x[0] > 0.9
    whole = Sample(x, "a/b", "g", True, mask, roi=x[1] > 0.1, tags={"kind": "hole"})
    image, drawn = torch.full_like(x, -1), torch.zeros_like(mask)
    keys = set()
    for part in cut_tiles(whole, (tile, tile), overlap):
        assert part.tile is not None and part.mask is not None and part.roi is not None
        assert part.tile.image_key == "a/b" and part.tile.extent == (height, width)
        top, left = part.tile.start
        image[:, top : top + tile, left : left + tile] = part.x
        drawn[top : top + tile, left : left + tile] |= part.mask
        assert part.group == "g" and part.label and part.tags == {"kind": "hole"}
        keys.add(part.key)
    assert torch.equal(image, x) and torch.equal(drawn, mask)
    assert len(keys) == len(tile_starts(height, tile, overlap)) * len(
        tile_starts(width, tile, overlap)
    )


def test_signals_and_volumes_are_cut_alike() -> None:
    line = Sample(torch.arange(10.0)[None], "s", "s", False)
    assert [p.x[0, 0].item() for p in cut_tiles(line, (4,), 1)] == [0, 3, 6]
    block = Sample(torch.zeros(1, 4, 4, 4), "v", "v", False)
    assert len(list(cut_tiles(block, (2, 2, 4)))) == 4
