"""Cutting images into tiles of one size; where each lay travels with it, so that maps of tiles
can be put together again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..base import Sample, Tile


def tile_starts(extent: int, tile: int, overlap: int) -> list[int]:
    """First indices of tiles that cover 0..extent; the last is moved back so as to fit.

    Raises ValueError where a tile does not fit into the extent, or overlaps itself wholly.
    """
    if not 0 <= overlap < tile <= extent:
        raise ValueError(
            f"tiles of {tile} that overlap by {overlap} do not fit {extent}: it takes "
            "0 <= overlap < tile <= size"
        )
    starts = list(range(0, extent - tile + 1, tile - overlap))
    return starts if starts[-1] + tile == extent else [*starts, extent - tile]


def cut_tiles(sample: Sample, size: Sequence[int], overlap: int = 0) -> Iterator[Sample]:
    """The tiles of a sample, row by row. A tile keeps the label of the whole; its mask, where
    there is one, says whether the anomaly lies in it."""
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
