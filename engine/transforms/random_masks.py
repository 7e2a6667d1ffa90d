"""Random masks of blocks that lie around a random place: what a network learns to fill in.

After Liang et al., "IterMask2", MICCAI 2024, arXiv 2406.02422, and "IterMask3D", whose code draws
the blocks one after the other from a normal distribution of random place and shape. Here every
block of a grid is masked by itself, with the chance that any of so many draws would have met it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.rng import Rng


@dataclass(frozen=True)
class BlockMasks:
    """Masks of blocks of several sizes around one place of the foreground.

    blocks: sides of the blocks, as shares of the longest side of S; at least one pixel
    draws: expected hits of the block at the very place, for each of these sizes
    spread: smallest and largest standard deviation of the distance from the place, along each
        principal axis of the distribution, as shares of the longest side

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.random_masks import BlockMasks
    >>> masks = BlockMasks()(torch.ones(2, 1, 16, 16, dtype=torch.bool), Rng(["a", "b"]))
    >>> masks.shape, masks.dtype, bool(masks.flatten(1).any(1).all())
    (torch.Size([2, 1, 16, 16]), torch.bool, True)
    """

    blocks: Sequence[float] = (1 / 60, 1 / 30, 1 / 15)
    draws: Sequence[float] = (4.0, 1.0, 1.0)
    spread: tuple[float, float] = (0.02, 0.13)

    def __call__(self, inside: Tensor, rng: Rng) -> Tensor:
        """Draw a mask per sample, (N, 1, *S) bool, within the foreground.

        inside: foreground (N, 1, *S) bool; where a sample has none its mask is empty
        rng: one stream per sample
        """
        shape, side = inside.shape[2:], max(inside.shape[2:])
        place = self._random_place(inside, rng.fork("place"))  # (N, axes)
        whiten = self._random_whitening(len(shape), side, rng)  # (N, axes, axes)
        mask = torch.zeros_like(inside)
        for number, (block, draws) in enumerate(zip(self.blocks, self.draws, strict=True)):
            size = max(1, round(block * side))
            cells = [-(-n // size) + 1 for n in shape]  # one more, as the grid is moved
            shift = rng.fork("shift", number).integers(size, (len(shape),))
            square = torch.zeros(len(inside), *cells, dtype=torch.float64, device=inside.device)
            for component in whiten.unbind(1):
                offset = torch.zeros_like(square)
                for axis, n in enumerate(cells):
                    middle = (torch.arange(n, device=inside.device) + 0.5) * size
                    along = middle - shift[:, axis, None] - place[:, axis, None]  # (N, cells)
                    view = [len(inside), *[1] * len(shape)]
                    view[1 + axis] = n
                    per_sample = component[:, axis].view(-1, *[1] * len(shape))
                    offset = offset + per_sample * along.view(view)
                square = square + offset.square()
            chance = 1 - (-draws * (-square / 2).exp()).exp()
            hit = rng.fork("hit", number).uniform(cells) < chance
            for axis, n in enumerate(shape):  # from blocks to pixels
                index = (torch.arange(n, device=inside.device) + shift[:, axis, None]) // size
                view = [len(inside), *[1] * len(shape)]
                view[1 + axis] = n
                hit = hit.take_along_dim(index.view(view), 1 + axis)
            mask = mask | hit[:, None]
        return mask & inside

    def _random_place(self, inside: Tensor, rng: Rng) -> Tensor:
        """A pixel of the foreground of each sample, (N, axes) float64, every one alike probable."""
        flat = inside.flatten(1)
        chosen = (rng.uniform((flat.shape[1],)) * flat).argmax(1)
        place = []
        for n in reversed(inside.shape[2:]):
            place.append(chosen % n)
            chosen = chosen // n
        return torch.stack(place[::-1], 1).double() + 0.5

    def _random_whitening(self, axes: int, side: int, rng: Rng) -> Tensor:
        """A matrix per sample, (N, axes, axes) float64, that makes the distribution standard."""
        directions = rng.fork("directions").normal((axes, axes)).double()
        basis = []  # Gram-Schmidt: no decomposition waits for the device
        for row in directions.unbind(1):
            for other in basis:
                row = row - (row * other).sum(1, keepdim=True) * other
            basis.append(row / row.norm(dim=1, keepdim=True).clamp(min=1e-12))
        low, high = self.spread
        scale = low * (high / low) ** rng.fork("spread").uniform((axes,)) * side
        return torch.stack(basis, 1) / scale[..., None]
