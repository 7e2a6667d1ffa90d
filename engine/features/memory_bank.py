"""A memory bank of normal feature vectors that cover all others, found as a coreset.

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
"""Vectors that are compared with a sample's positions at once; how many changes no result."""


def greedy_coreset(points: Tensor, count: int, *, stop: Callable[[], bool] = bool) -> Tensor:
    """Select `count` points that cover the rest: the most central one, and then always the one that
    is farthest from all before it.

    Returns indices (count,), in that order, none twice.

    points: (M, D)
    count: 1 to M; ValueError for another
    stop: called now and then; True raises Interrupted

    >>> import torch
    >>> from adbench.engine.features.memory_bank import greedy_coreset
    >>> greedy_coreset(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), 2)
    tensor([2, 3])
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"a coreset of {len(points)} points has 1 to all of them, not {count}")
    squares = points.square().sum(1)
    selected = torch.zeros(count, dtype=torch.long, device=points.device)
    gap = (points - points.mean(0)).square().sum(1)
    farthest, gap = gap.argmin(), torch.full_like(gap, math.inf)
    for i in range(count):
        if i % 256 == 0 and stop():
            raise Interrupted(f"stopped at vector {i} of {count} of a memory bank")
        selected[i] = farthest
        index = farthest.view(1)  # an index () of a GPU would be read by the host, which waits
        point = points.index_select(0, index)[0]
        distance = squares + squares.index_select(0, index) - 2 * (points @ point)
        gap = torch.minimum(gap, distance).index_fill_(0, index, -math.inf)
        farthest = gap.argmax()
    return selected


class MemoryBank(nn.Module):
    """Feature vectors of C numbers each. How many there are follows the data, and so a state dict
    that is loaded brings its own number.

    channels: C

    >>> import torch
    >>> from adbench.engine.features.memory_bank import MemoryBank
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> bank = MemoryBank(2)
    >>> bank.fill(torch.eye(2), 1.0, TrainingContext())
    >>> bank.replace_by_neighbours(torch.tensor([[[0.9], [0.0]]]), 1).flatten()
    tensor([1., 0.])
    """

    vectors: Tensor  # (M, C)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(1, channels))
        self.register_load_state_dict_pre_hook(_resize_vectors)

    @torch.no_grad()
    def fill(
        self, points: Tensor, fraction: float, context: TrainingContext, *, projection_dim: int = 64
    ) -> None:
        """Store a coreset of the points, at least one.

        points: (M, C)
        fraction: of the points that are stored
        context: of the training, for its seed and stop
        projection_dim: number of random directions in which distances are taken, which preserve
            them and cost less
        """
        projection_dim = min(projection_dim, points.shape[1])
        rng = Rng(["directions"], context.seed, context.device)
        directions = rng.normal((points.shape[1], projection_dim))[0]
        count = math.ceil(fraction * len(points))
        index = greedy_coreset(points @ directions, count, stop=context.stop)
        self.vectors = points[index]

    @torch.no_grad()
    def replace_by_neighbours(
        self, z: Tensor, neighbours: int, weights: Literal["softmax", "inverse"] = "softmax"
    ) -> Tensor:
        """Replace every position by a mean of the stored vectors nearest to it, (N, C, *S).

        z: (N, C, *S)
        neighbours: number of vectors
        weights: exp(-distance / the median of the position's distances), or 1 / distance
        """
        count, edited = min(neighbours, len(self.vectors)), []
        with torch.autocast(z.device.type, enabled=False):
            for sample in z.float():  # by itself: products round by how many rows they have
                places = sample.flatten(1).T.contiguous()  # (P, C)
                nearest = self.vectors[self._nearest(places, count)]  # (P, K, C)
                distance = (nearest - places[:, None]).square().sum(2).sqrt().clamp(min=1e-9)
                if weights == "softmax":
                    share = softmax(-distance / distance.median(1, keepdim=True).values, 1)
                else:
                    share = 1 / distance
                    share = share / share.sum(1, keepdim=True)
                mean = (share[..., None] * nearest).sum(1)
                edited.append(mean.T.reshape(sample.shape))
        return torch.stack(edited)

    @torch.no_grad()
    def distances_to_nearest(self, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The distances of vectors from the stored ones nearest to them, ascending, and which
        those are; (P, count) each, or as many as are stored.

        places: (P, C) of one sample: products round by how many rows they have
        count: number of neighbours

        >>> import torch
        >>> from adbench.engine.features.memory_bank import MemoryBank
        >>> bank = MemoryBank(1)
        >>> bank.vectors = torch.tensor([[0.0], [4.0], [9.0]])
        >>> bank.distances_to_nearest(torch.tensor([[3.0]]), 2)
        (tensor([[1., 3.]]), tensor([[1, 0]]))
        """
        index = self._nearest(places, min(count, len(self.vectors)))
        distance = (self.vectors[index] - places[:, None]).square().sum(2).sqrt()
        distance, order = distance.sort(dim=1, stable=True)
        return distance, index.gather(1, order)

    def _nearest(self, places: Tensor, count: int) -> Tensor:
        """The vectors closest to each of (P, C), (P, count) int64."""
        best = places.new_empty(len(places), 0)
        index = torch.empty(len(places), 0, dtype=torch.long, device=places.device)
        for start in range(0, len(self.vectors), VECTORS_PER_CHUNK):
            chunk = self.vectors[start : start + VECTORS_PER_CHUNK]
            distance = chunk.square().sum(1) - 2 * places @ chunk.T  # without the place's square
            value, nearest = distance.topk(min(count, len(chunk)), largest=False)
            best, index = torch.cat([best, value], 1), torch.cat([index, nearest + start], 1)
            best, nearest = best.topk(min(count, best.shape[1]), largest=False)
            index = index.gather(1, nearest)
        return index


def _resize_vectors(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    vectors = state.get(prefix + "vectors")
    if vectors is not None and isinstance(module, MemoryBank) and vectors.ndim == 2:
        module.vectors = module.vectors.new_zeros(len(vectors), module.vectors.shape[1])
