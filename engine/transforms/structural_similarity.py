"""The structural similarity of two images, position by position: a loss and a map.

Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004,
equation 13. MONAI's is a number an image; this one is a map, and alike in any batch.
"""

from __future__ import annotations

from math import exp

from torch import Tensor
from torch.nn.functional import pad

C1, C2 = 0.01**2, 0.03**2
"""The constants of the paper for values in a range of 1."""


def structural_similarity(
    x: Tensor, y: Tensor, *, window: int = 5, deviation: float = 1.5
) -> Tensor:
    """The similarity of x and y around every position, channel by channel, at most 1; (N, C, H, W).

    x, y: (N, C, H, W); beyond their edges lie zeros
    window: side of the neighbourhood, odd
    deviation: of the Gaussian that weights the neighbourhood

    >>> import torch
    >>> from adbench.engine.transforms.structural_similarity import structural_similarity
    >>> x = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> structural_similarity(x, x).min().round(decimals=3)
    tensor(1.)
    """
    mean_x, mean_y = (_local_mean(v, window, deviation) for v in (x, y))
    variance_x = _local_mean(x * x, window, deviation) - mean_x.square()
    variance_y = _local_mean(y * y, window, deviation) - mean_y.square()
    covariance = _local_mean(x * y, window, deviation) - mean_x * mean_y
    above = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    below = (mean_x.square() + mean_y.square() + C1) * (variance_x + variance_y + C2)
    return above / below


def _local_mean(x: Tensor, window: int, deviation: float) -> Tensor:
    """The Gaussian mean of every neighbourhood; no conv2d, whose rows round by their batch."""
    reach = window // 2
    weights = [exp(-(i**2) / (2 * deviation**2)) for i in range(-reach, reach + 1)]
    for axis in (2, 3):
        size = x.shape[axis]
        padded = pad(x, [reach, reach] if axis == 3 else [0, 0, reach, reach])
        parts = [w * padded.narrow(axis, i, size) for i, w in enumerate(weights)]
        x = sum(parts[1:], parts[0]) / sum(weights)
    return x
