"""Tiles: cut from an image, and put together again before they are evaluated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adbench.benchmark.evaluation.tile_stitching import (
    StitchedMaps,
    TiledImages,
    samples_without_images,
    stitch_tiles,
)
from adbench.benchmark.experiments.splits import Splits
from adbench.datasets.base import Dataset, Sample, Spec, Tile
from adbench.datasets.transforms.tiles import cut_tiles, tile_starts


def image(key: str, height: int, width: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random((2, height, width), np.float32))
    mask = torch.from_numpy(rng.random((height, width)) > 0.8)
    return Sample(x, key, key, label=bool(mask.any()), mask=mask, roi=~mask, tags={"kind": key})


@st.composite
def cuts(draw) -> tuple[Sample, tuple[int, int], int]:
    height, width = draw(st.integers(3, 17)), draw(st.integers(3, 17))
    size = (draw(st.integers(2, height)), draw(st.integers(2, width)))
    overlap = draw(st.integers(0, min(size) - 1))
    return image("a", height, width, draw(st.integers(0, 99))), size, overlap


@given(cuts())
def test_what_is_cut_and_joined_is_what_it_was(example) -> None:
    whole, size, overlap = example
    tiles = list(cut_tiles(whole, size, overlap))
    assert all(tile.x.shape[1:] == size for tile in tiles)
    wholes = TiledImages(tiles)
    assert wholes.keys == ["a"] and wholes.tiled
    again = wholes.stitch(0, [tile.x.numpy() for tile in tiles])
    np.testing.assert_allclose(again, whole.x.numpy(), atol=1e-7)
    for name in ("mask", "roi"):
        result = wholes.stitch(0, [getattr(tile, name).numpy() for tile in tiles])
        assert result.dtype == bool and (result == getattr(whole, name).numpy()).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 59))
def test_tiles_cover_everything_once_at_least(extent: int, tile: int, overlap: int) -> None:
    if not overlap < tile <= extent:
        with pytest.raises(ValueError, match="do not fit"):
            tile_starts(extent, tile, overlap)
        return
    starts = tile_starts(extent, tile, overlap)
    assert starts == sorted(set(starts)) and starts[0] == 0
    assert set(range(extent)) == {a + i for a in starts for i in range(tile)}


def test_where_tiles_overlap_their_mean_counts() -> None:
    tiles = [Tile("a", (0,), (5,)), Tile("a", (2,), (5,))]
    result = stitch_tiles([np.array([1, 1, 1], np.float32), np.array([3, 3, 3], np.float32)], tiles)
    assert result.tolist() == [1, 1, 2, 3, 3]
    with pytest.raises(ValueError, match="do not cover"):
        stitch_tiles([np.ones(2, np.float32)], [Tile("a", (0,), (5,))])


def test_maps_on_disk_are_joined_where_they_are_asked_for() -> None:
    images = [image(key, 8, 12, seed) for seed, key in enumerate("abc")]
    tiles = [tile for whole in images for tile in cut_tiles(whole, (4, 4), 1)]
    order = np.random.default_rng(0).permutation(len(tiles))  # in any order
    tiles = [tiles[i] for i in order]
    wholes = TiledImages(tiles)
    maps = np.stack([np.stack([t.x[c].numpy() for t in tiles]) for c in (0, 1)])  # (L, N, *tile)
    stitched = StitchedMaps(maps, wholes)
    assert stitched.shape == (2, 3, 8, 12)
    by_key = {whole.key: whole for whole in images}
    for level in (0, 1):
        for i, key in enumerate(wholes.keys):
            want = by_key[key].x[level].numpy()
            np.testing.assert_allclose(stitched[level, i : i + 1][0], want, atol=1e-7)
    score = np.arange(len(tiles), dtype=float)[None]
    best = {key: max(i for i, t in enumerate(tiles) if t.group == key) for key in wholes.keys}
    assert wholes.max(score).tolist() == [[best[key] for key in wholes.keys]]
    assert wholes.take_first([t.group for t in tiles]) == wholes.keys


def test_samples_that_are_no_tiles_stay_as_they_are() -> None:
    samples = [image(key, 4, 4, i) for i, key in enumerate("ab")]
    wholes = TiledImages(samples)
    assert not wholes.tiled and wholes.keys == ["a", "b"]
    assert wholes.stitch(1, [samples[1].x.numpy()]) is not None
    assert [s.key for s in samples_without_images(samples)] == [
        "a",
        "b",
    ] and not samples_without_images(samples)[0].x.numel()


def test_a_limit_takes_whole_images() -> None:
    tiles = [t for n in range(6) for t in cut_tiles(image(f"i{n}", 8, 8, n), (4, 4))]

    class Tiled(Dataset):
        spec = Spec(2, (4, 4))

        def train(self, *, labelled: bool = False):
            return tiles

        calibration = val = test = lambda self: tiles

    split = Splits(Tiled(), limit=3)["test"]
    selected = [split[i] for i in range(len(split))]
    assert len(selected) == 3 * 4 and len({t.group for t in selected}) == 3
