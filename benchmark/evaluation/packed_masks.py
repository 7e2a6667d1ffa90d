"""Masks of more samples than memory holds, a bit a pixel in a temporary file.

Letters: N samples, S one to three spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .metrics.connected_components import Array
from .metrics.scratch import scratch_file


class PackedMasks:
    """Masks (N, *S) bool on disk; of them only [i:j] and [[i, j, ...]] are ever read.

    shape: (N, *S)

    >>> masks = PackedMasks((3, 2, 2))
    >>> masks.write([0, 1], np.array([[[1, 0], [0, 0]], [[1, 1], [1, 1]]], bool))
    >>> masks[1:3].sum((1, 2)).tolist(), masks[np.array([1, 0])].sum((1, 2)).tolist()
    ([4, 0], [4, 1])
    """

    def __init__(self, shape: Sequence[int], folder: Path | None = None) -> None:
        """folder: on whose disk; None for the system's folder of temporary files"""
        self.shape = tuple(shape)
        self.ndim = len(self.shape)
        self._pixels = math.prod(self.shape[1:])
        self._bytes = -(-self._pixels // 8)
        self._file = scratch_file(folder)
        self._file.truncate(self.shape[0] * self._bytes)

    def __len__(self) -> int:
        return self.shape[0]

    def write(self, samples: Sequence[int] | Array, masks: Array) -> None:
        """Set the masks (n, *S) of some samples. Raises OSError where the disk is full."""
        packed = np.packbits(np.reshape(masks, (len(samples), -1)), axis=1)
        for first, last in consecutive_runs(samples):
            self._file.seek(int(samples[first]) * self._bytes)
            self._file.write(packed[first:last].tobytes())

    def __getitem__(self, index: Any) -> Array:
        samples = _indices(index, len(self))
        parts = [np.zeros(0, np.uint8)]
        for first, last in consecutive_runs(samples):
            self._file.seek(int(samples[first]) * self._bytes)
            parts.append(np.frombuffer(self._file.read((last - first) * self._bytes), np.uint8))
        packed = np.concatenate(parts).reshape(len(samples), self._bytes)
        bits = np.unpackbits(packed, axis=1, count=self._pixels)
        return bits.view(bool).reshape(len(samples), *self.shape[1:])


class FullMasks:
    """Masks (N, *S) that are true everywhere, and take no memory.

    >>> FullMasks((100, 4, 4))[2:4].all(), FullMasks((100, 4, 4))[2:4].shape
    (np.True_, (2, 4, 4))
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        return np.ones((len(_indices(index, len(self))), *self.shape[1:]), bool)


class ConcatenatedMasks:
    """Masks of two splits, one after the other; read when they are asked for.

    first, second: arrays or masks on disk

    >>> ConcatenatedMasks(np.zeros((2, 3), bool), np.ones((1, 3), bool))[1:3].any(1).tolist()
    [False, True]
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second, self._size = first, second, first.shape[0]
        self.shape = (self._size + second.shape[0], *first.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        samples = np.asarray(_indices(index, len(self)))
        masks = np.zeros((len(samples), *self.shape[1:]), bool)
        before = samples < self._size
        masks[before] = self.first[samples[before]]
        masks[~before] = self.second[samples[~before] - self._size]
        return masks


def _indices(index: Any, size: int) -> Sequence[int]:
    return range(*index.indices(size)) if isinstance(index, slice) else np.asarray(index).tolist()


def consecutive_runs(samples: Sequence[int] | Array) -> list[tuple[int, int]]:
    """The stretches [first, last) of a list of samples in which each follows the one before.

    >>> consecutive_runs([4, 5, 6, 2])
    [(0, 3), (3, 4)]
    """
    numbers = np.asarray(samples, np.int64)
    if not numbers.size:
        return []
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    ends = [0, *cuts.tolist(), numbers.size]
    return list(pairwise(ends))
