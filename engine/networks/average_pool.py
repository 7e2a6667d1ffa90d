"""Average pooling in one to three axes, in every precision on every device."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d


def average_pool(x: Tensor, size: int) -> Tensor:
    """The means of blocks of `size` along every axis of S, in the precision of x.

    x: (N, C, *S)        Volumes are averaged in float32: torch has no bfloat16 for them on a CPU.

    >>> import torch
    >>> average_pool(torch.arange(8.0).view(1, 1, 2, 2, 2).bfloat16(), 2).item()
    3.5
    """
    if x.ndim == 5:
        return avg_pool3d(x.float(), size).to(x.dtype)
    return (avg_pool1d if x.ndim == 3 else avg_pool2d)(x, size)


class AveragePool3d(nn.AvgPool3d):
    """torch's pooling of volumes, computed in float32 (see `average_pool`).

    >>> import torch
    >>> AveragePool3d(2)(torch.ones(1, 1, 2, 2, 2).bfloat16()).dtype
    torch.bfloat16
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)
