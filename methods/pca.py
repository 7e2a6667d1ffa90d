"""PCA: the residual of a sample's projection onto the principal components of normal samples.

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
from ..engine.runtime.search_space import Interval, SearchSpace
from ..engine.runtime.setting_types import Count
from ..engine.training.data_loading import evenly_spaced_indices
from .base import Detection, Method


class PCA(Method):
    """Score every pixel by the absolute residual, mean over channels; the score is the map's mean.

    components: number of principal components, fewer where there are too few samples
    samples: number of training samples at most, evenly spaced over the split: they and their Gram
        matrix are in memory

    >>> import torch
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.pca import PCA
    >>> method = PCA(Spec(1, (2,)), components=1)
    >>> train = [Sample(torch.full((1, 2), x), f"{x}", f"{x}", False) for x in (0.0, 0.5)]
    >>> method.fit(train, [], TrainingContext())
    >>> x = torch.tensor([[[0.0, 1.0]]])  # normal samples lie on the diagonal
    >>> method.localize(x, Rng(["a"])).round(decimals=3)
    tensor([[0.5000, 0.5000]])
    """

    mean: Tensor  # (D,), D = C * prod(S)
    basis: Tensor  # (components, D), orthonormal rows; zero where there were too few samples

    search_space = SearchSpace(components=Interval(4, 128, log=True))

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
        index = evenly_spaced_indices(len(train), self.samples)
        rows = torch.stack([train[i].x.flatten() for i in index]).double()  # (M, D)
        self.mean.copy_(rows.mean(0))
        rows -= rows.mean(0)
        eigenvalues, eigenvectors = torch.linalg.eigh(rows @ rows.T)  # ascending
        largest = (eigenvalues > 1e-9 * eigenvalues[-1].clamp(min=1e-12)).nonzero().flatten()
        largest = largest.flip(0)[: len(self.basis)]
        basis = (eigenvectors[:, largest] / eigenvalues[largest].sqrt()).T @ rows
        self.basis.zero_()
        self.basis[: len(largest)] = basis.float()

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        normal = torch.stack([self._project(sample.flatten()) for sample in x]).view_as(x)
        map = (x - normal).abs().mean(1)  # (N, *S)
        return Detection.from_map(
            map.expand(len(levels), *map.shape), normal.expand(len(levels), *x.shape)
        )

    def _project(self, sample: Tensor) -> Tensor:
        """Project one sample (D,): a product's last digits depend on how many rows it has."""
        return self.mean + self.basis.T @ (self.basis @ (sample - self.mean))
