"""An autoencoder of feature maps: convolutions that halve the grid, and back.

Of Meissen et al. 2022 (FAE), whose kernels it has. Norms are over groups: theirs are over the
batch, and would make a sample depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches
from .plain_unet import group_count


class FeatureAutoencoder(BatchedModule):
    """Features (N, C, h, w) through a narrow code and back.

    channels: C
    widths: channels after each halving of the grid

    >>> import torch
    >>> from adbench.engine.networks.feature_autoencoder import FeatureAutoencoder
    >>> FeatureAutoencoder(6, (8, 8)).eval()(torch.zeros(2, 6, 7, 9)).shape
    torch.Size([2, 6, 7, 9])
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.net = _Network(channels, widths)

    def forward(self, z: Tensor) -> Tensor:
        """The reconstruction of (N, C, h, w); sides are halved and stay 1 at least."""

        def apply(rows: Tensor) -> Tensor:
            return self.call_net(lambda net, values: net(values), rows)

        return apply(z) if self.training else apply_in_batches(apply, self.batch, z)


class _Network(nn.Module):
    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise([channels, *widths]))
        self.down = nn.ModuleList([nn.Conv2d(a, b, 6, 2, 2, bias=False) for a, b in steps])
        self.down_norms = nn.ModuleList([_norm(b) for _, b in steps])
        self.middle = nn.Conv2d(widths[-1], widths[-1], 5, 1, 2, bias=False)
        back = steps[::-1]
        self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 6, 2, 2, bias=False) for a, b in back])
        self.up_norms = nn.ModuleList([_norm(a) for a, _ in back])
        self.last = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        sizes = []
        for conv, norm in zip(self.down, self.down_norms, strict=True):
            sizes.append(list(x.shape[2:]))
            x = leaky_relu(norm(conv(x)), 0.01)
        x = self.middle(x)
        for conv, norm in zip(self.up, self.up_norms, strict=True):
            x = leaky_relu(norm(conv(x, output_size=sizes.pop())), 0.01)
        return self.last(x)


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(group_count(channels), channels)
