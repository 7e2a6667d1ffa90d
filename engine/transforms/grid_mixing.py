"""Samples as patchwork: cells of a grid that are chosen by chance, or come from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..runtime.rng import Rng


def random_cells(rng: Rng, shape: Sequence[int], side: int, share: Tensor) -> Tensor:
    """A share (N,) of the cells of that side, rounded up, (N, 1, *shape) bool. Cells at the high
    edges may be cut."""
    grid = [-(-n // side) for n in shape]
    count = math.prod(grid)
    rank = rng.uniform((count,)).argsort(1).argsort(1)
    chosen = rank >= (count * (1 - share)).floor()[:, None]
    return _expand_cells(chosen.view(-1, *grid), shape, side)[:, None]


def mix_cells(bank: Tensor, rng: Rng, side: int) -> Tensor:
    """A sample per stream, (N, C, *S), every cell of which is some cell of some of the bank
    (K, C, *S)."""
    shape = bank.shape[2:]
    grid = [-(-n // side) for n in shape]
    index = [_expand_cells(rng.fork("which").integers(len(bank), grid), shape, side)]
    for axis, n in enumerate(shape):
        cell = rng.fork("cell", axis).integers(max(1, n // side), grid)
        sides = [1] * len(shape)
        sides[axis] = n
        within = torch.arange(n, device=rng.device).remainder(side).view(sides)
        index.append((_expand_cells(cell, shape, side) * side + within).clamp(max=n - 1))
    return bank.movedim(1, -1)[tuple(at.to(bank.device) for at in index)].movedim(-1, 1)


def _expand_cells(cells: Tensor, shape: Sequence[int], side: int) -> Tensor:
    """(N, *grid) -> (N, *shape), each cell's value all over it."""
    for axis, n in enumerate(shape, 1):
        cells = cells.repeat_interleave(side, axis).narrow(axis, 0, n)
    return cells
