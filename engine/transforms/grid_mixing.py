"""Samples cut into a grid of cells: cells selected at random, or taken from other samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..runtime.rng import Rng


def random_cells(rng: Rng, shape: Sequence[int], side: int, share: Tensor) -> Tensor:
    """Select a share of the cells of a grid, rounded up, (N, 1, *shape) bool.

    rng: one stream per sample
    shape: of the samples, without channels
    side: of a cell; cells at the high edges may be cut
    share: of the cells, (N,)

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.grid_mixing import random_cells
    >>> random_cells(Rng(["a"]), [4, 4], 2, torch.tensor([0.5])).sum()
    tensor(8)
    """
    grid = [-(-n // side) for n in shape]
    count = math.prod(grid)
    rank = rng.uniform((count,)).argsort(1).argsort(1)
    selected = rank >= (count * (1 - share)).floor()[:, None]
    return _expand_cells(selected.view(-1, *grid), shape, side)[:, None]


def mix_cells(bank: Tensor, rng: Rng, side: int) -> Tensor:
    """Build a sample per stream, each of whose cells is a random cell of a random sample of the
    bank, (N, C, *S).

    bank: (K, C, *S)
    rng: one stream per sample
    side: of a cell

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.grid_mixing import mix_cells
    >>> mix_cells(torch.zeros(3, 1, 4, 4), Rng(["a", "b"]), 2).shape
    torch.Size([2, 1, 4, 4])
    """
    shape = bank.shape[2:]
    grid = [-(-n // side) for n in shape]
    index = [_expand_cells(rng.fork("which").integers(len(bank), grid), shape, side)]
    for axis, n in enumerate(shape):
        cell = rng.fork("cell", axis).integers(max(1, n // side), grid)
        view = [1] * len(shape)
        view[axis] = n
        within = torch.arange(n, device=rng.device).remainder(side).view(view)
        index.append((_expand_cells(cell, shape, side) * side + within).clamp(max=n - 1))
    return bank.movedim(1, -1)[tuple(i.to(bank.device) for i in index)].movedim(-1, 1)


def _expand_cells(cells: Tensor, shape: Sequence[int], side: int) -> Tensor:
    """Repeat each cell's value over the cell, (N, *grid) -> (N, *shape)."""
    for axis, n in enumerate(shape, 1):
        cells = cells.repeat_interleave(side, axis).narrow(axis, 0, n)
    return cells
