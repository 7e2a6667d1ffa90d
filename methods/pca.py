"""PCA: what is left of a sample after projecting it on the main directions of normal ones.

The linear autoencoder; on brain slices it is hard to beat with a small budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count
from ..engine.training.data_loading import evenly_spaced_indices
from .base import Detection, Method


class PCA(Method):
    """components: directions kept, as far as there are samples for them
    samples: at most so many training samples are looked at, evenly spaced over the split: the
        Gram matrix of all of them is held in memory, and the samples themselves
    """

    mean: Tensor  # (D,), D = C * prod(S)
    basis: Tensor  # (components, D), orthonormal rows; zero where there were too few samples

    def __init__(
        self, spec: Spec, *, components: Count = 64, samples: Annotated[int, Meta(ge=2)] = 1024
    ) -> None:
        super().__init__(spec)
        if components < 1 or samples < 2:
            raise ValueError(f"no PCA of {components} components from {samples} samples")
        size = torch.Size((spec.channels, *spec.shape)).numel()
        self.samples = samples
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(components, size))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        chosen = [train[i].x.flatten() for i in evenly_spaced_indices(len(train), self.samples)]
        rows = torch.stack(chosen).double()  # (M, D)
        self.mean.copy_(rows.mean(0))
        rows -= rows.mean(0)
        strength, mixed = torch.linalg.eigh(rows @ rows.T)  # ascending
        kept = (strength > 1e-9 * strength[-1].clamp(min=1e-12)).nonzero().flatten()
        kept = kept.flip(0)[: len(self.basis)]
        basis = (mixed[:, kept] / strength[kept].sqrt()).T @ rows
        self.basis.zero_()
        self.basis[: len(kept)] = basis.float()

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        normal = torch.stack([self._project(one.flatten()) for one in x]).view_as(x)
        found = (x - normal).abs().mean(1)  # (N, *S)
        return Detection.from_map(
            found.expand(len(levels), *found.shape), normal.expand(len(levels), *x.shape)
        )

    def _project(self, one: Tensor) -> Tensor:
        """(D,), one sample at a time: a product's last digits depend on how many rows it has."""
        return self.mean + self.basis.T @ (self.basis @ (one - self.mean))
