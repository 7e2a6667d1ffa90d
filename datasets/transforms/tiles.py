"""Cutting images into tiles that keep their position, so that their maps can be joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..base import Sample, Tile


def tile_starts(extent: int, tile: int, overlap: int) -> list[int]:
    """Return the first indices of tiles that cover 0..extent; the last is moved back to fit.

    extent: of the axis
    tile: extent of a tile
    overlap: of neighbouring tiles

    Raises ValueError unless 0 <= overlap < tile <= extent.

    >>> tile_starts(10, 4, 0)
    [0, 4, 6]
    """
    if not 0 <= overlap < tile <= extent:
        raise ValueError(
            f"tiles of {tile} that overlap by {overlap} do not fit {extent}: it takes "
            "0 <= overlap < tile <= size"
        )
    starts = list(range(0, extent - tile + 1, tile - overlap))
    return starts if starts[-1] + tile == extent else [*starts, extent - tile]


def cut_tiles(sample: Sample, size: Sequence[int], overlap: int = 0) -> Iterator[Sample]:
    """Yield the tiles of a sample, row by row.

    A tile keeps the label of the whole image; its mask, if any, says whether it shows the anomaly.

    sample: with x (C, *S)
    size: extent of a tile along each axis of S
    overlap: of neighbouring tiles

    >>> import torch
    >>> sample = Sample(torch.zeros(1, 4, 8), "a", "a", False)
    >>> [tile.key for tile in cut_tiles(sample, (4, 4))]
    ['a/tile-0-0', 'a/tile-0-4']
    """
    extent = tuple(sample.x.shape[1:])
    axes = [tile_starts(whole, part, overlap) for whole, part in zip(extent, size, strict=True)]
    for start in itertools.product(*axes):
        region = tuple(slice(a, a + part) for a, part in zip(start, size, strict=True))
        yield replace(
            sample,
            x=sample.x[(slice(None), *region)],
            key=f"{sample.key}/tile-{'-'.join(map(str, start))}",
            mask=None if sample.mask is None else sample.mask[region],
            roi=None if sample.roi is None else sample.roi[region],
            counterpart=None
            if sample.counterpart is None
            else sample.counterpart[(slice(None), *region)],
            tile=Tile(sample.key, start, extent),
        )
