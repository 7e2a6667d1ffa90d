"""The networks of Fixed-Point GAN: a generator that translates samples from one label to another,
and its discriminator.

Those of Rahman Siddiquee et al., ICCV 2019, whose parameters they have; there for images, here for
one to three axes. Norms are over each sample alone: theirs also track running statistics, and never
use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.precision import LowPrecisionModule
from .residual_autoencoder import gradient_penalty

LEAKY_SLOPE = 0.01


class FixedPointGenerator(BatchedModule):
    """The generator: (x (N, C, *S) in [-1, 1], label (N,) 0 or 1) -> x under that label, (N, C,
    *S).

    The result is the hyperbolic tangent of x plus a change.

    shape, channels: of the samples
    widths: channels at each resolution, halved in between
    blocks: residual ones at the last resolution

    >>> import torch
    >>> from adbench.engine.networks.fixed_point_gan import FixedPointGenerator
    >>> generator = FixedPointGenerator((8, 8), 1, (4, 8), blocks=1).eval()
    >>> y = generator(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
    >>> y.shape, bool(y.abs().max() <= 1)
    (torch.Size([2, 1, 8, 8]), True)
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
                f"a generator that halves {len(widths) - 1} times needs sides that divide by "
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
        inputs = torch.cat([x, plane], 1)
        if self.training:
            return torch.tanh(x + self._change(inputs))
        change = apply_in_batches(self._change, self.batch, inputs)
        return torch.tanh(x + change)

    def _change(self, inputs: Tensor) -> Tensor:
        return self.call_net(lambda net, rows: net(rows), inputs)


class FixedPointDiscriminator(LowPrecisionModule):
    """The discriminator: x (N, C, *S) -> how real it is, the mean over patches, and the logit of
    label 1, (N,) each.

    shape, channels: of the samples
    width: channels after the first layer; they double at each
    layers: each halves the sides

    >>> import torch
    >>> from adbench.engine.networks.fixed_point_gan import FixedPointDiscriminator
    >>> discriminator = FixedPointDiscriminator((8, 8), 1, width=4, layers=2)
    >>> real, label = discriminator(torch.zeros(3, 1, 8, 8))
    >>> real.shape, label.shape
    (torch.Size([3]), torch.Size([3]))
    """

    def __init__(
        self, shape: Sequence[int], channels: int, *, width: int = 64, layers: int = 6
    ) -> None:
        super().__init__()
        ndim, factor = len(shape), 2**layers
        if any(n % factor for n in shape):
            raise ValueError(
                f"a discriminator of {layers} layers needs sides that divide by {factor}, "
                f"not {tuple(shape)}"
            )
        parts: list[nn.Module] = []
        for a, b in pairwise([channels, *(width << i for i in range(layers))]):
            parts += [_conv(ndim, a, b, 4, 2, bias=True), nn.LeakyReLU(LEAKY_SLOPE)]
        last, kernel = width << (layers - 1), tuple(n // factor for n in shape)
        self.trunk = nn.Sequential(*parts)
        self.patches = _conv(ndim, last, 1, 3)
        self.label = CONV[ndim](last, 1, kernel, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        patches, logit = self.autocast(self._heads, x)
        return patches.flatten(1).mean(1), logit.flatten()

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.patches(h), self.label(h)

    def slope_penalty(self, x: Tensor) -> Tensor:
        """The gradient penalty of the patches' sum, (N,): of the sum, as the authors', though the
        loss has the mean."""
        flat = nn.Sequential(nn.Unflatten(1, x.shape[1:]), self.trunk, self.patches)
        return gradient_penalty(lambda rows: self.autocast(flat, rows), x.flatten(1))


CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class _ResidualBlock(nn.Module):
    """A residual block of two convolutions."""

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
