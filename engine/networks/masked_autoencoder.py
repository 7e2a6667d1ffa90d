"""Masked pre-training of a residual encoder: reconstruct the cells of a sample that are hidden.

Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling"
(SparK), ICLR 2023. https://arxiv.org/abs/2301.03580

As there: hidden cells are no input, a learnt vector fills them at each resolution, and a decoder of
few layers joins all resolutions. Differs: hidden positions are set to 0 after each resolution, not
after each layer, by which SparK imitates sparse convolutions; the error is of plain intensities,
SparK's of cells brought to mean 0 and variance 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..runtime.precision import LowPrecisionModule
from ..runtime.rng import Rng
from ..transforms.grid_mixing import random_cells
from .context_encoder import ContextEncoder


class MaskedAutoencoder(LowPrecisionModule):
    """An encoder with a decoder that serves its pre-training alone.

    encoder: whose weights are trained, but for its last, linear layer
    channels: C of the samples
    cell: side of the cells that are hidden or not, in pixels
    hidden: share of the cells that are hidden, rounded up; at least one cell stays
    width: channels of the decoder

    >>> import torch
    >>> from adbench.engine.networks.context_encoder import ContextEncoder
    >>> from adbench.engine.networks.masked_autoencoder import MaskedAutoencoder
    >>> from adbench.engine.runtime.rng import Rng
    >>> encoder = ContextEncoder(1, 1, 4, layers=(1, 1, 1, 1), width=4)
    >>> pretraining = MaskedAutoencoder(encoder, 1, cell=16)
    >>> pretraining.loss(torch.rand(2, 1, 64), Rng(["a", "b"])).shape
    torch.Size([2])
    """

    def __init__(
        self,
        encoder: ContextEncoder,
        channels: int,
        *,
        cell: int = 32,
        hidden: float = 0.65,
        width: int = 128,
    ) -> None:
        super().__init__()
        if cell < 1 or not 0 < hidden < 1:
            raise ValueError(
                f"a cell's side is at least 1 and hidden lies between 0 and 1: {cell}, {hidden}"
            )
        self.encoder, self.cell, self.hidden = encoder, cell, hidden
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[encoder.ndim - 1]
        self.fill = nn.ParameterList(torch.zeros(n) for n in encoder.widths)
        self.enter = nn.ModuleList(conv(n, width, 1) for n in encoder.widths)
        groups = math.gcd(32, width)
        self.join = nn.ModuleList(
            nn.Sequential(conv(width, width, 3, padding=1), nn.GroupNorm(groups, width), nn.SiLU())
            for _ in encoder.widths
        )
        self.leave = conv(width, channels, 3, padding=1)

    def loss(self, x: Tensor, rng: Rng) -> Tensor:
        """The mean squared error in the hidden cells of each sample, (N,).

        x: (N, C, *S); ValueError where S has but one cell
        rng: one stream per sample, which cells are hidden
        """
        shape = x.shape[2:]
        count = math.prod(-(-n // self.cell) for n in shape)
        if count < 2:
            raise ValueError(
                f"masked pre-training needs two cells of side {self.cell} at least, and samples of "
                f"{tuple(shape)} have one: choose a smaller cell"
            )
        share = torch.full((len(x),), min(self.hidden, (count - 1) / count), dtype=torch.float64)
        masked = random_cells(rng.fork("hidden"), shape, self.cell, share.to(rng.device))
        error = (self.autocast(self.reconstruct, x, ~masked) - x).float().square() * masked
        return error.flatten(1).sum(1) / (masked.flatten(1).sum(1) * x.shape[1])

    def reconstruct(self, x: Tensor, visible: Tensor) -> Tensor:
        """Reconstruct samples of which cells are visible, (N, C, *S).

        x: (N, C, *S)
        visible: (N, 1, *S) bool; what is not changes nothing
        """
        features = self.encoder.feature_maps(x, visible)
        y = None
        for level in reversed(range(len(features))):
            feature = features[level]
            seen = interpolate(visible.to(feature), size=feature.shape[2:])
            fill = self.fill[level].view(1, -1, *[1] * (x.ndim - 2))
            entered = self.enter[level](feature * seen + fill * (1 - seen))
            y = entered if y is None else interpolate(y, size=feature.shape[2:]) + entered
            y = self.join[level](y)
        assert y is not None
        return self.leave(interpolate(y, size=x.shape[2:]))
