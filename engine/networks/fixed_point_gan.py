"""A network that translates samples from one label to another, and the critic it learns from.

Those of Fixed-Point GAN (Rahman Siddiquee et al., ICCV 2019), whose parameters they have; there for
images, here for one to three axes. Norms are over each sample alone: theirs also keep running
statistics, and never use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches
from .residual_autoencoder import gradient_penalty

LEAKY_SLOPE = 0.01


class FixedPointGenerator(BatchedModule):
    """(x (N, C, *S) within [-1, 1], label (N,) 0 or 1) -> what x would be under that label: the
    hyperbolic tangent of x and a change, (N, C, *S).

    widths: channels at each resolution, halved in between. blocks: residual ones at the last.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        widths: Sequence[int] = (64, 128, 256),
        *,
        blocks: int = 6,
    ) -> None:
        super().__init__()
        ndim, factor = len(shape), 2 ** (len(widths) - 1)
        if any(n % factor for n in shape) or math.prod(shape) < 2 * factor**ndim:
            raise ValueError(
                f"a translator that halves {len(widths) - 1} times wants sides that divide by "
                f"{factor}, one of them {2 * factor} or more, not {tuple(shape)}; "
                "give it fewer widths"
            )
        first, last = widths[0], widths[-1]
        parts = [_with_norm(ndim, _conv(ndim, channels + 1, first, 7), first), nn.ReLU()]
        for a, b in pairwise(widths):
            parts += [_with_norm(ndim, _conv(ndim, a, b, 4, 2), b), nn.ReLU()]
        parts += [_ResidualBlock(ndim, last) for _ in range(blocks)]
        for a, b in pairwise(reversed(widths)):
            parts += [_with_norm(ndim, _conv_transpose(ndim, a, b), b), nn.ReLU()]
        self.net = nn.Sequential(*parts, _conv(ndim, first, channels, 7))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        plane = label.to(x).view(-1, *[1] * (x.ndim - 1)).expand(-1, 1, *x.shape[2:])
        told = torch.cat([x, plane], 1)
        change = self.net(told) if self.training else apply_in_batches(self.net, self.batch, told)
        return torch.tanh(x + change)


class FixedPointDiscriminator(nn.Module):
    """x (N, C, *S) -> how real it looks, the mean over patches, and the logit of label 1, (N,)
    each.

    width: channels after the first of `layers` halvings; they double at each
    """

    def __init__(
        self, shape: Sequence[int], channels: int, *, width: int = 64, layers: int = 6
    ) -> None:
        super().__init__()
        ndim, factor = len(shape), 2**layers
        if any(n % factor for n in shape):
            raise ValueError(
                f"a critic of {layers} layers wants sides that divide by {factor}, "
                f"not {tuple(shape)}"
            )
        parts: list[nn.Module] = []
        for a, b in pairwise([channels, *(width << i for i in range(layers))]):
            parts += [_conv(ndim, a, b, 4, 2, bias=True), nn.LeakyReLU(LEAKY_SLOPE)]
        deep, left = width << (layers - 1), tuple(n // factor for n in shape)
        self.trunk = nn.Sequential(*parts)
        self.patches = _conv(ndim, deep, 1, 3)
        self.label = CONV[ndim](deep, 1, left, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.patches(h).float().flatten(1).mean(1), self.label(h).float().flatten()

    def slope_penalty(self, x: Tensor) -> Tensor:
        """How far the slope of the patches' sum is from 1, squared, (N,). Of the sum, as the
        authors', though what is made large is the mean."""
        flat = nn.Sequential(nn.Unflatten(1, x.shape[1:]), self.trunk, self.patches)
        return gradient_penalty(flat, x.flatten(1))


CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class _ResidualBlock(nn.Module):
    """What is added to x: two convolutions."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        first, second = (_with_norm(ndim, _conv(ndim, width, width, 3), width) for _ in range(2))
        self.net = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def _conv(
    ndim: int, width: int, out: int, kernel: int, stride: int = 1, *, bias: bool = False
) -> nn.Module:
    return CONV[ndim](width, out, kernel, stride, (kernel - 1) // 2, bias=bias)


def _conv_transpose(ndim: int, width: int, out: int) -> nn.Module:
    return CONV_TRANSPOSE[ndim](width, out, 4, 2, 1, bias=False)


def _with_norm(ndim: int, layer: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(layer, NORM[ndim](width, affine=True))
