"""Patches of a sample: the boxes that training disturbs, and tiles that cover everything.

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
    """Boxes of side `patch` every `stride` along every axis, the last flush with the end,
    (P, 1, *shape) bool. Every place is covered at least once while stride <= patch."""
    if not 1 <= stride <= patch:
        raise ValueError(f"a stride lies in 1..{patch} (the patch), not {stride}")
    corners = [sorted({*range(0, max(n - patch, 0) + 1, stride), max(n - patch, 0)}) for n in shape]
    tiles = []
    for corner in itertools.product(*corners):
        tile = torch.zeros(1, *shape, dtype=torch.bool)
        tile[(0, *(slice(c, c + patch) for c in corner))] = True
        tiles.append(tile)
    return torch.stack(tiles)


def stitch_tiles(
    reconstructions: Tensor, tiles: Tensor, aggregate: Literal["cut", "mean"]
) -> Tensor:
    """One sample of what each tile (P, 1, *S) says of it: (..., P, C, *S) -> (..., C, *S). Where
    tiles overlap the last one counts, or their mean."""
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
    """x (N, C, *S) with every tile (P, 1, *S) healed from its untouched surroundings, in one step
    from each level; the mean of the repeats, each clamped to `clip`, (L, N, C, *S)."""
    parts = predict_x0(denoiser, x, levels, rng, noise=noise, regions=tiles, repeats=repeats)
    parts = parts if clip is None else parts.clamp(*clip)
    return stitch_tiles(parts.mean(2), tiles, aggregate)


BoxPlacement = Literal["inside", "overhanging", "clipped"]
"""Of a box: all of it inside; over either edge, so that every place is covered alike; or over the
high edges alone, so that low corners are hardly ever covered."""


def random_boxes(
    rng: Rng, shape: Sequence[int], side: int | Tensor, *, placement: BoxPlacement = "overhanging"
) -> Tensor:
    """A box per sample, its corner uniform, (N, 1, *shape) bool.

    side: one for all, or of every sample and axis, (N, len(shape)); inside, at most `shape`.
    """
    wide = side
    if isinstance(wide, int):
        wide = torch.full((len(rng), len(shape)), wide, device=rng.device)
    inside = torch.ones(len(rng), 1, *shape, dtype=torch.bool, device=rng.device)
    for axis, n in enumerate(shape):
        before = wide[:, axis] - 1 if placement == "overhanging" else wide[:, axis] * 0
        after = (wide[:, axis] - 1).clamp(max=n - 1) if placement == "inside" else 0
        low = (rng.uniform() * (n + before - after)).long() - before
        place = torch.arange(n, device=rng.device)
        within = (place >= low[:, None]) & (place < (low + wide[:, axis])[:, None])  # (N, n)
        sides = [1] * len(shape)
        sides[axis] = n
        inside &= within.view(len(rng), 1, *sides)
    return inside
