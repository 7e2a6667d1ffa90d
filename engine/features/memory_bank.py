"""A memory of normal vectors that cover the rest: what a place looks like when it is normal.

The greedy k-centre of Sener and Savarese, "Active Learning for Convolutional Neural Networks: A
Core-Set Approach", ICLR 2018. https://arxiv.org/abs/1708.00489
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from ..runtime.context import Interrupted, TrainingContext
from ..runtime.rng import Rng

VECTORS_PER_CHUNK = 2**13
"""Vectors that are compared with a sample's places at once; how many changes no result."""


def greedy_coreset(points: Tensor, count: int, *, stop: Callable[[], bool] = bool) -> Tensor:
    """Which `count` of the points (M, D) cover the rest: the most central one, and then always the
    one that is farthest from all before it. Indices (count,), in that order, none twice."""
    if not 1 <= count <= len(points):
        raise ValueError(f"of {len(points)} points 1 to all can be kept, not {count}")
    squares = points.square().sum(1)
    chosen = torch.zeros(count, dtype=torch.long, device=points.device)
    gap = (points - points.mean(0)).square().sum(1)
    here, gap = gap.argmin(), torch.full_like(gap, math.inf)
    for i in range(count):
        if i % 256 == 0 and stop():
            raise Interrupted(f"stopped at vector {i} of {count} of a memory")
        chosen[i] = here
        gap = torch.minimum(gap, squares + squares[here] - 2 * (points @ points[here]))
        gap[here] = -math.inf
        here = gap.argmax()
    return chosen


class MemoryBank(nn.Module):
    """Vectors of C numbers each. How many there are follows the data, and so a state dict that is
    loaded brings its own number."""

    vectors: Tensor  # (M, C)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(1, channels))
        self.register_load_state_dict_pre_hook(_resize_vectors)

    @torch.no_grad()
    def fill(
        self, points: Tensor, fraction: float, context: TrainingContext, *, projection_dim: int = 64
    ) -> None:
        """Keep this share of (M, C), at least one: those that cover the rest as seen in
        `projection_dim`
        random directions, which keep distances and cost less."""
        projection_dim = min(projection_dim, points.shape[1])
        directions = Rng(["directions"], context.seed, context.device).normal(
            (points.shape[1], projection_dim)
        )[0]
        count = math.ceil(fraction * len(points))
        kept = greedy_coreset(points @ directions, count, stop=context.stop)
        self.vectors = points[kept]

    @torch.no_grad()
    def replace_by_neighbours(
        self, z: Tensor, neighbours: int, weights: Literal["softmax", "inverse"] = "softmax"
    ) -> Tensor:
        """z (N, C, *S), every place replaced by a mean of the vectors nearest to it.

        weights: by exp(-distance / the median of the place's distances), or by 1 / distance
        """
        count, out = min(neighbours, len(self.vectors)), []
        with torch.autocast(z.device.type, enabled=False):
            for one in z.float():  # by itself: products round by how many rows they have
                places = one.flatten(1).T.contiguous()  # (P, C)
                known = self.vectors[self._nearest(places, count)]  # (P, K, C)
                apart = (known - places[:, None]).square().sum(2).sqrt().clamp(min=1e-9)
                if weights == "softmax":
                    part = softmax(-apart / apart.median(1, keepdim=True).values, 1)
                else:
                    part = 1 / apart
                    part = part / part.sum(1, keepdim=True)
                mixed = (part[..., None] * known).sum(1)
                out.append(mixed.T.reshape(one.shape))
        return torch.stack(out)

    def _nearest(self, places: Tensor, count: int) -> Tensor:
        """Which vectors are closest to each of (P, C), (P, count) int64."""
        best = places.new_empty(len(places), 0)
        index = torch.empty(len(places), 0, dtype=torch.long, device=places.device)
        for start in range(0, len(self.vectors), VECTORS_PER_CHUNK):
            part = self.vectors[start : start + VECTORS_PER_CHUNK]
            apart = part.square().sum(1) - 2 * places @ part.T  # but for the place's own square
            value, at = apart.topk(min(count, len(part)), largest=False)
            best, index = torch.cat([best, value], 1), torch.cat([index, at + start], 1)
            best, at = best.topk(min(count, best.shape[1]), largest=False)
            index = index.gather(1, at)
        return index


def _resize_vectors(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    theirs = state.get(prefix + "vectors")
    if theirs is not None and isinstance(module, MemoryBank) and theirs.ndim == 2:
        module.vectors = module.vectors.new_zeros(len(theirs), module.vectors.shape[1])
