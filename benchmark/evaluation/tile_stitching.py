"""Putting tiles together again: a method looks at tiles, and is judged on the whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...datasets.base import Sample, Tile
from .metrics.ranking import Array

NO_IMAGE = torch.empty(0)


def samples_without_images(split: Any) -> list[Sample]:
    """The samples of a split without their pixels: all that judging wants to know of them."""
    return [
        replace(sample, x=NO_IMAGE, counterpart=None)
        for sample in map(split.__getitem__, range(len(split)))
    ]


class TiledImages:
    """Which samples belong together. Samples that are no tiles are wholes by themselves.

    members: of each whole, in the order of first appearance, the indices of its samples
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        found: dict[str, list[int]] = {}
        for i, sample in enumerate(samples):
            found.setdefault(sample.tile.image_key if sample.tile else sample.key, []).append(i)
        self.keys, self.members = list(found), list(found.values())
        self.tiles = [sample.tile for sample in samples]
        self.tiled = any(tile is not None for tile in self.tiles)

    def take_first(self, values: Sequence[Any]) -> list[Any]:
        """Of what all samples of a whole share."""
        return [values[members[0]] for members in self.members]

    def max(self, values: Array) -> Array:
        """The highest of a whole's values: (..., N) to (..., W)."""
        return np.stack([values[..., members].max(-1) for members in self.members], -1)

    def mean(self, values: Array) -> Array:
        """The mean of a whole's values: (..., N) to (..., W)."""
        return np.stack([values[..., members].mean(-1) for members in self.members], -1)

    def stitch(self, image: int, values: Sequence[Array]) -> Array:
        """One image (..., *S) from those of the whole's samples, in the order of its members."""
        tiles = [self.tiles[i] for i in self.members[image]]
        return values[0] if tiles[0] is None else stitch_tiles(values, [t for t in tiles if t])


class StitchedMaps:
    """Maps of wholes from stored maps of tiles (L, N, *tile); read where they are asked for."""

    def __init__(self, tile_maps: Any, images: TiledImages) -> None:
        self.tile_maps, self.images = tile_maps, images
        first = images.tiles[images.members[0][0]]
        extent = tile_maps.shape[2:] if first is None else first.extent
        self.shape = (tile_maps.shape[0], len(images.members), *extent)

    def __getitem__(self, index: tuple[int, slice]) -> Array:
        level, rows = index
        found = [
            self.images.stitch(
                whole, [self.tile_maps[level, i] for i in self.images.members[whole]]
            )
            for whole in range(*rows.indices(self.shape[1]))
        ]
        return np.stack(found)


def stitch_tiles(values: Sequence[Array], tiles: Sequence[Tile]) -> Array:
    """The image (..., *extent) that tiles (..., *tile) cover; where they overlap, their mean, or
    for flags whether any is set. Raises ValueError where no tile lies."""
    axes = len(tiles[0].extent)
    shape = (*values[0].shape[:-axes], *tiles[0].extent)
    total, count = np.zeros(shape, np.float64), np.zeros(tiles[0].extent, np.int32)
    for value, tile in zip(values, tiles, strict=True):
        part = value.shape[-axes:]
        here = tuple(slice(a, a + size) for a, size in zip(tile.start, part, strict=True))
        total[(..., *here)] += value
        count[here] += 1
    if not count.all():
        raise ValueError(f"the tiles of {tiles[0].image_key!r} do not cover it")
    return total > 0 if values[0].dtype == np.bool_ else (total / count).astype(np.float32)
