"""A UNet without time, attention or residuals: the network of a denoising autoencoder.

Ronneberger et al. 2015, in the form of Kascenas et al., MIDL 2022: SiLU, group norm, weights
standardised (Qiao et al. 2019), edges mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .average_pool import average_pool

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class PlainUNet(nn.Module):
    """A UNet (x (N, C, *S), anything) -> (N, C, *S).

    ndim, channels: of x; its sides are at least twice `side_divisor(widths)`, and divide by it
    widths: channels at each resolution

    >>> import torch
    >>> from adbench.engine.networks.plain_unet import PlainUNet
    >>> PlainUNet(1, 2, (8, 16))(torch.zeros(3, 2, 8)).shape
    torch.Size([3, 2, 8])
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        before = [channels, *widths]
        self.down = nn.ModuleList(
            _block(ndim, a, b) for a, b in zip(before[:-1], widths, strict=True)
        )
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.grown = nn.ModuleList(CONV_TRANSPOSE[ndim](a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(_block(ndim, 2 * b, b) for _, b in pairs)
        self.last = CONV[ndim](widths[0], channels, 1)

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(average_pool(x, 2) if i else x)
            skips.append(x)
        for upsample, block, skip in zip(self.grown, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([upsample(x), skip], 1))
        return self.last(x)


class WeightStandardizedConv(nn.Module):
    """A convolution of kernel 3 whose filters have standardised weights; edges are mirrored.

    ndim, channels: of the input
    out: channels of the output

    >>> import torch
    >>> from adbench.engine.networks.plain_unet import WeightStandardizedConv
    >>> WeightStandardizedConv(1, 2, 4)(torch.zeros(1, 2, 8)).shape
    torch.Size([1, 4, 8])
    """

    def __init__(self, ndim: int, channels: int, out: int) -> None:
        super().__init__()
        self.conv, self.sides = CONV[ndim](channels, out, 3), [1, 1] * ndim

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        axes = tuple(range(1, weight.ndim))
        centred = weight - weight.mean(axes, keepdim=True)
        weight = centred / (centred.std(axes, keepdim=True) + 1e-5)
        return self.conv._conv_forward(pad(x, self.sides, mode="reflect"), weight, self.conv.bias)


def _block(ndim: int, channels: int, out: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for width in (channels, out):
        parts += [
            WeightStandardizedConv(ndim, width, out),
            nn.SiLU(),
            nn.GroupNorm(group_count(out), out),
        ]
    return nn.Sequential(*parts)


def group_count(channels: int) -> int:
    """Return the middle one of the divisors of a number of channels.

    channels: at least 1

    >>> from adbench.engine.networks.plain_unet import group_count
    >>> group_count(64), group_count(128)
    (8, 16)
    """
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    return divisors[len(divisors) // 2]
