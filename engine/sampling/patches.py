"""Patches of a sample: the boxes in which training adds noise, and tiles that cover everything.

Behrendt et al., MIDL 2023 (pDDPM), for any number of axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..noise.noise import Noise
from ..runtime.rng import Rng
from .reconstruct import predict_x0


def tile_masks(shape: Sequence[int], patch: int, stride: int) -> Tensor:
    """Return boxes of side `patch` every `stride` along every axis, (P, 1, *shape) bool.

    The last is flush with the end, so that every pixel is covered at least once.

    shape: of the samples, without channels
    patch: side of a box
    stride: 1 to `patch`; ValueError for another

    >>> from adbench.engine.sampling.patches import tile_masks
    >>> tile_masks([5], patch=3, stride=3).int()[:, 0]
    tensor([[1, 1, 1, 0, 0],
            [0, 0, 1, 1, 1]], dtype=torch.int32)
    """
    if not 1 <= stride <= patch:
        raise ValueError(f"a stride lies in 1..{patch} (the patch), not {stride}")
    corners = [sorted({*range(0, max(n - patch, 0) + 1, stride), max(n - patch, 0)}) for n in shape]
    tiles = []
    for corner in itertools.product(*corners):
        tile = torch.zeros(1, *shape, dtype=torch.bool)
        tile[(0, *(slice(c, c + patch) for c in corner))] = True
        tiles.append(tile)
    return torch.stack(tiles)


def patch_conflict(shape: Sequence[int], patch: int) -> str:
    """Return why a patch is no part of a sample, which it covers; empty if it is one.

    shape: of the samples, without channels
    patch: side of a box

    >>> from adbench.engine.sampling.patches import patch_conflict
    >>> patch_conflict([16, 16], patch=64)
    'patch=64 covers all of 16 x 16, so that nothing is left around it to reconstruct from'
    >>> patch_conflict([16, 16], patch=8)
    ''
    """
    if max(shape) > patch:
        return ""
    extent = " x ".join(map(str, shape))
    around = "nothing is left around it to reconstruct from"
    return f"patch={patch} covers all of {extent}, so that {around}"


def stitch_tiles(
    reconstructions: Tensor, tiles: Tensor, aggregate: Literal["cut", "mean"]
) -> Tensor:
    """Join the reconstructions of all tiles to one sample, (..., C, *S).

    reconstructions: of the whole sample, one for each tile, (..., P, C, *S)
    tiles: (P, 1, *S) bool; where each reconstruction counts
    aggregate: where tiles overlap, the last one counts (cut) or their mean

    >>> import torch
    >>> from adbench.engine.sampling.patches import stitch_tiles, tile_masks
    >>> tiles = tile_masks([3], patch=2, stride=1)
    >>> stitch_tiles(torch.tensor([[[1.0, 1, 1]], [[2.0, 2, 2]]]), tiles, "mean")
    tensor([[1.0000, 1.5000, 2.0000]])
    """
    axis = -tiles.ndim
    if aggregate == "mean":
        return (reconstructions * tiles).sum(axis) / tiles.sum(0)
    parts = reconstructions.unbind(axis)
    whole = parts[0]
    for part, tile in zip(parts, tiles, strict=True):
        whole = torch.where(tile, part, whole)
    return whole


def reconstruct_patches(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    rng: Rng,
    *,
    noise: Noise,
    tiles: Tensor,
    repeats: int = 1,
    aggregate: Literal["cut", "mean"] = "mean",
    clip: tuple[float, float] | None = None,
) -> Tensor:
    """Reconstruct every tile of x from its noise-free surroundings in one step, (L, N, C, *S).

    denoiser: in evaluation mode
    x: (N, C, *S), in the denoiser's range
    levels: on the 1000-step scale
    rng: one stream per sample
    noise: what is added within a tile
    tiles: (P, 1, *S) bool
    repeats: draws of noise, whose mean is taken
    aggregate: of overlapping tiles, as in `stitch_tiles`
    clip: the range of each reconstruction

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.patches import reconstruct_patches, tile_masks
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> x, tiles = torch.ones(1, 1, 3), tile_masks([3], patch=2, stride=1)
    >>> reconstruct_patches(denoiser, x, [500], Rng(["a"]), noise=gaussian, tiles=tiles)
    tensor([[[[0., 0., 0.]]]])
    """
    parts = predict_x0(denoiser, x, levels, rng, noise=noise, regions=tiles, repeats=repeats)
    parts = parts if clip is None else parts.clamp(*clip)
    return stitch_tiles(parts.mean(2), tiles, aggregate)


BoxPlacement = Literal["inside", "overhanging", "clipped"]
"""Of a box: all of it inside; over either edge, so that every pixel is covered alike; or over the
high edges alone, so that low corners are hardly ever covered."""


def random_boxes(
    rng: Rng, shape: Sequence[int], side: int | Tensor, *, placement: BoxPlacement = "overhanging"
) -> Tensor:
    """Draw a box per sample, its corner uniform, (N, 1, *shape) bool.

    rng: one stream per sample
    shape: of the samples, without channels
    side: one for all, or of every sample and axis, (N, len(shape)); inside, at most `shape`
    placement: how a box lies to the edges

    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.patches import random_boxes
    >>> random_boxes(Rng(["a", "b"]), [8, 8], 3, placement="inside").sum((1, 2, 3))
    tensor([9, 9])
    """
    sides = side
    if isinstance(sides, int):
        sides = torch.full((len(rng), len(shape)), sides, device=rng.device)
    low = []
    for axis, n in enumerate(shape):
        extent = sides[:, axis]
        before = extent - 1 if placement == "overhanging" else extent * 0
        after = (extent - 1).clamp(max=n - 1) if placement == "inside" else 0
        low.append((rng.uniform() * (n + before - after)).long() - before)
    return box_masks(shape, torch.stack(low, 1), sides)


def box_masks(shape: Sequence[int], low: Tensor, sides: Tensor) -> Tensor:
    """Mask the box of every sample, (N, 1, *shape) bool.

    shape: of the samples, without channels
    low, sides: the lowest corner and the extent along every axis, (N, len(shape)) int64; what
        reaches over an edge is cut off

    >>> import torch
    >>> from adbench.engine.sampling.patches import box_masks
    >>> box_masks([5], torch.tensor([[1], [4]]), torch.tensor([[2], [3]])).int()[:, 0]
    tensor([[0, 1, 1, 0, 0],
            [0, 0, 0, 0, 1]], dtype=torch.int32)
    """
    inside = torch.ones(len(low), 1, *shape, dtype=torch.bool, device=low.device)
    for axis, n in enumerate(shape):
        index = torch.arange(n, device=low.device)
        first, extent = low[:, axis, None], sides[:, axis, None]
        covered = (index >= first) & (index < first + extent)  # (N, n)
        view = [1] * len(shape)
        view[axis] = n
        inside &= covered.view(len(low), 1, *view)
    return inside
