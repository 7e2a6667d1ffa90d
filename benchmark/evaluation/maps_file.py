"""The HDF5 file of a prediction, written shard by shard: memory holds one shard, never all maps.

Maps are stored in chunks of a few samples of one level, so that evaluation reads one level at a
time, and compressed without loss: measured on maps of residuals, gzip at level 1 on shuffled bytes
keeps 30 % (within a head) to 86 % (of pure noise) of the bytes and is read at 8 ns per pixel; lzf
keeps 32 to 93 % and is read no faster. A finished shard travels as compressed chunks, so the final
file takes them as they are.

Letters: L levels, N samples, S one to three spatial axes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from .hdf5_arrays import hdf5_dataset
from .metrics.connected_components import Array

SHARD_SIZE = 32
"""Samples of a shard."""

CHUNK_BYTES = 2**20
"""Bytes of a chunk at most, unless one map is larger: what reading a single sample reads."""


def chunk_samples(shape: Sequence[int]) -> int:
    """How many samples share a chunk: a power of two that divides SHARD_SIZE.

    shape: S of a map

    >>> chunk_samples((256, 256)), chunk_samples((64,)), chunk_samples((96, 96, 96))
    (4, 32, 1)
    """
    fitting = CHUNK_BYTES // (4 * max(1, math.prod(shape)))
    return 2 ** min(max(fitting, 1).bit_length() - 1, SHARD_SIZE.bit_length() - 1)


def create_maps(file: h5py.File, levels: int, samples: int, shape: Sequence[int]) -> h5py.Dataset:
    """Create the dataset `map` (L, N, *S) float32 of a file, chunked and compressed.

    >>> with h5py.File(io.BytesIO(), "w") as file:
    ...     maps = create_maps(file, 3, 70, (256, 256))
    ...     maps.shape, maps.chunks
    ((3, 70, 256, 256), (1, 4, 256, 256))
    """
    return file.create_dataset(
        "map",
        (levels, samples, *shape),
        np.float32,
        maxshape=(levels, None, *shape),
        chunks=(1, chunk_samples(shape), *shape),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )


def compress_maps(maps: Array) -> Array:
    """The maps of a shard (L, n, *S) as a small HDF5 file with compressed chunks, (bytes,) uint8.

    >>> compressed = compress_maps(np.zeros((2, 5, 64, 64), np.float32))
    >>> compressed.dtype, compressed.size < 2 * 5 * 64 * 64
    (dtype('uint8'), True)
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        create_maps(file, maps.shape[0], maps.shape[1], maps.shape[2:])[...] = maps
    return np.frombuffer(buffer.getvalue(), np.uint8)


class PredictionWriter:
    """Writes a prediction into an open HDF5 file, shard after shard.

    The file gets score (L, N), map (L, N, *S), reconstruction (L, gallery, C, *S), psnr and ssim
    (L, N), those that the shards have, and gallery and levels.

    samples: N, of all shards together

    >>> buffer = io.BytesIO()
    >>> with h5py.File(buffer, "w") as file:
    ...     writer = PredictionWriter(file, samples=40)
    ...     for first, count in ((0, 32), (32, 8)):
    ...         values = np.full((1, count, 4), first, np.float32)
    ...         writer.add(first, {"score": values[..., 0], "map_chunks": compress_maps(values)})
    ...     writer.finish(levels=[250], gallery=[])
    >>> with h5py.File(buffer) as file:
    ...     [*file], file["map"].shape, file["map"][0, 31:33, 0].tolist()
    (['gallery', 'levels', 'map', 'score'], (1, 40, 4), [0.0, 32.0])
    """

    def __init__(self, file: h5py.File, samples: int) -> None:
        self.file, self.samples = file, samples
        self._maps: h5py.Dataset | None = None
        self._small: dict[str, list[Array]] = {}

    def add(self, first: int, shard: Mapping[str, Any]) -> None:
        """Add the shard whose first sample has this index.

        shard: score, psnr, ssim (L, n), reconstruction (L, m, C, *S) and map_chunks, what
            `compress_maps` returned; arrays or tensors
        """
        for name in ("score", "reconstruction", "psnr", "ssim"):
            if name in shard:
                self._small.setdefault(name, []).append(np.asarray(shard[name]))
        if "map_chunks" in shard:
            self._copy_chunks(first, np.asarray(shard["map_chunks"]))

    def _copy_chunks(self, first: int, compressed: Array) -> None:
        with h5py.File(io.BytesIO(compressed.tobytes()), "r") as part:
            source = hdf5_dataset(part, "map")
            levels, count, *shape = source.shape
            if self._maps is None:
                self._maps = create_maps(self.file, levels, self.samples, shape)
            if first % chunk_samples(shape):  # of shards that are no whole number of chunks
                self._maps[:, first : first + count] = source[()]
                return
            zeros = (0,) * len(shape)
            for level in range(levels):
                for offset in range(0, count, chunk_samples(shape)):
                    mask, chunk = source.id.read_direct_chunk((level, offset, *zeros))
                    self._maps.id.write_direct_chunk((level, first + offset, *zeros), chunk, mask)

    def finish(self, *, levels: Sequence[int], gallery: Sequence[int]) -> None:
        """Write what all shards have in common, and what is small."""
        for name, values in self._small.items():
            self.file[name] = np.concatenate(values, 1)
        self.file["gallery"] = np.array(gallery, dtype=np.int64)
        self.file["levels"] = np.array(levels, dtype=np.int64)
