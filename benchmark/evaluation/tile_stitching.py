"""Stitching tiles together: a method predicts tiles, and is evaluated on the whole images.

Letters: L levels, N samples, W whole images, S one to three spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...datasets.base import Sample, Split, Tile
from .metrics.ranking import Array

NO_IMAGE = torch.empty(0)


def samples_without_images(split: Split) -> list[Sample]:
    """The samples of a split with their labels, masks and tags, but without their images.

    >>> import torch
    >>> from adbench.benchmark.evaluation.tile_stitching import samples_without_images
    >>> from adbench.datasets.base import Sample
    >>> split = [Sample(torch.zeros(1, 4), "a", "a", label=True)]
    >>> [(sample.key, sample.label, sample.x.numel()) for sample in samples_without_images(split)]
    [('a', True, 0)]
    """
    return [
        replace(sample, x=NO_IMAGE, counterpart=None)
        for sample in map(split.__getitem__, range(len(split)))
    ]


def sample_metadata(split: Split) -> list[Sample]:
    """The samples of a split with their labels and tags, but without images, masks and regions.

    >>> import torch
    >>> from adbench.benchmark.evaluation.tile_stitching import sample_metadata
    >>> from adbench.datasets.base import Sample
    >>> split = [Sample(torch.zeros(1, 4), "a", "a", label=True, mask=torch.ones(4, dtype=bool))]
    >>> [(sample.key, sample.label, sample.mask) for sample in sample_metadata(split)]
    [('a', True, None)]
    """
    return [
        replace(sample, x=NO_IMAGE, counterpart=None, mask=None, roi=None)
        for sample in map(split.__getitem__, range(len(split)))
    ]


class TiledImages:
    """Which samples are tiles of the same image. Samples that are no tiles are whole images.

    keys: of the W images
    members: of each image, in the order of first appearance, the indices of its samples
    tiled: whether any sample is a tile

    >>> import numpy as np
    >>> import torch
    >>> from adbench.benchmark.evaluation.tile_stitching import TiledImages
    >>> from adbench.datasets.base import Sample, Tile
    >>> tiles = [Sample(torch.zeros(1, 2), f"a{i}", "a", label=False, tile=Tile("a", (i,), (4,)))
    ...          for i in (0, 2)]
    >>> images = TiledImages(tiles)
    >>> images.keys, images.members, images.max(np.array([0.1, 0.7])).tolist()
    (['a'], [[0, 1]], [0.7])
    >>> images.stitch(0, [np.array([1.0, 2.0]), np.array([3.0, 4.0])]).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        images: dict[str, list[int]] = {}
        for i, sample in enumerate(samples):
            images.setdefault(sample.tile.image_key if sample.tile else sample.key, []).append(i)
        self.keys, self.members = list(images), list(images.values())
        self.tiles = [sample.tile for sample in samples]
        self.tiled = any(tile is not None for tile in self.tiles)

    def take_first(self, values: Sequence[Any]) -> list[Any]:
        """The first value of each image, of what all its samples share."""
        return [values[members[0]] for members in self.members]

    def max(self, values: Array) -> Array:
        """The highest value of each image: (..., N) to (..., W)."""
        return np.stack([values[..., members].max(-1) for members in self.members], -1)

    def mean(self, values: Array) -> Array:
        """The mean value of each image: (..., N) to (..., W)."""
        return np.stack([values[..., members].mean(-1) for members in self.members], -1)

    def stitch(self, image: int, values: Sequence[Array]) -> Array:
        """One image (..., *S) from those of its samples, in the order of its members.

        image: its index
        """
        tiles = [self.tiles[i] for i in self.members[image]]
        return values[0] if tiles[0] is None else stitch_tiles(values, [t for t in tiles if t])


class StitchedMaps:
    """Maps (L, W, *S) of whole images from stored maps of tiles; read when they are asked for.

    tile_maps: (L, N, *tile), an array or an HDF5 dataset

    >>> import numpy as np
    >>> import torch
    >>> from adbench.benchmark.evaluation.tile_stitching import StitchedMaps, TiledImages
    >>> from adbench.datasets.base import Sample, Tile
    >>> tiles = [Sample(torch.zeros(1, 2), f"a{i}", "a", label=False, tile=Tile("a", (i,), (4,)))
    ...          for i in (0, 2)]
    >>> maps = StitchedMaps(np.array([[[1.0, 2.0], [3.0, 4.0]]]), TiledImages(tiles))
    >>> maps.shape, maps[0, 0:1].tolist()
    ((1, 1, 4), [[1.0, 2.0, 3.0, 4.0]])
    """

    def __init__(self, tile_maps: Any, images: TiledImages) -> None:
        self.tile_maps, self.images = tile_maps, images
        first = images.tiles[images.members[0][0]]
        extent = tile_maps.shape[2:] if first is None else first.extent
        self.shape = (tile_maps.shape[0], len(images.members), *extent)

    def __getitem__(self, index: tuple[int, slice]) -> Array:
        level, rows = index
        if not range(*rows.indices(self.shape[1])):
            return np.zeros((0, *self.shape[2:]), np.float32)
        return np.stack(
            [
                self.images.stitch(
                    image, [self.tile_maps[level, i] for i in self.images.members[image]]
                )
                for image in range(*rows.indices(self.shape[1]))
            ]
        )


class StitchedMasks:
    """Masks (W, *S) bool of whole images from those of tiles; of them only [i:j] and [[i, j, ...]]
    are ever read.

    tile_masks: (N, *tile) bool, an array or on disk

    >>> import numpy as np
    >>> import torch
    >>> from adbench.benchmark.evaluation.tile_stitching import StitchedMasks, TiledImages
    >>> from adbench.datasets.base import Sample, Tile
    >>> tiles = [Sample(torch.zeros(1, 2), f"a{i}", "a", label=False, tile=Tile("a", (i,), (4,)))
    ...          for i in (0, 2)]
    >>> masks = StitchedMasks(np.array([[True, False], [False, True]]), TiledImages(tiles))
    >>> masks[0:1].tolist()
    [[True, False, False, True]]
    """

    def __init__(self, tile_masks: Any, images: TiledImages) -> None:
        self.tile_masks, self.images = tile_masks, images
        first = images.tiles[images.members[0][0]]
        extent = tile_masks.shape[1:] if first is None else first.extent
        self.shape = (len(images.members), *extent)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        chosen = range(*index.indices(len(self))) if isinstance(index, slice) else index
        masks = np.zeros((len(chosen), *self.shape[1:]), bool)
        for row, image in enumerate(chosen):
            tiles = self.tile_masks[np.array(self.images.members[image])]
            masks[row] = self.images.stitch(image, list(tiles))
        return masks


def stitch_tiles(values: Sequence[Array], tiles: Sequence[Tile]) -> Array:
    """The image (..., *extent) that tiles (..., *tile) cover.

    Where tiles overlap, their mean; of flags, whether any is set.

    Raises ValueError where a pixel lies in no tile.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.tile_stitching import stitch_tiles
    >>> from adbench.datasets.base import Tile
    >>> tiles = [Tile("a", (0,), (3,)), Tile("a", (1,), (3,))]
    >>> stitch_tiles([np.array([1.0, 2.0]), np.array([4.0, 5.0])], tiles).tolist()
    [1.0, 3.0, 5.0]
    """
    axes = len(tiles[0].extent)
    shape = (*values[0].shape[:-axes], *tiles[0].extent)
    total, count = np.zeros(shape, np.float64), np.zeros(tiles[0].extent, np.int32)
    for value, tile in zip(values, tiles, strict=True):
        size = value.shape[-axes:]
        covered = tuple(slice(a, a + n) for a, n in zip(tile.start, size, strict=True))
        total[(..., *covered)] += value
        count[covered] += 1
    if not count.all():
        raise ValueError(f"the tiles of {tiles[0].image_key!r} do not cover it")
    return total > 0 if values[0].dtype == np.bool_ else (total / count).astype(np.float32)
