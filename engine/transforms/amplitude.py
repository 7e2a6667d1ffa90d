"""What methods for signals share: their unit of amplitude, and maps smoothed along time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from ..training.data_loading import Examples, evenly_spaced_indices

SILENCE = 0.5
"""What stands for no signal in data of the scale [0, 1]."""


def power(x: Tensor) -> Tensor:
    """Mean square about silence of each (N, C, L) in [0, 1], (N,) float64."""
    return (x - SILENCE).double().square().flatten(1).mean(1)


def rms(x: Tensor) -> Tensor:
    """Each sample's root mean square about silence, (N, C, L) in [0, 1] -> (N, 1, 1)."""
    return power(x).sqrt().clamp(min=1e-6).float()[:, None, None]


def rms_unit(data: Examples, max_samples: int = 512) -> Tensor:
    """The root mean square about silence of up to `max_samples` samples spread over the data,
    ()."""
    index = evenly_spaced_indices(len(data), max_samples)
    if not index:
        raise ValueError("amplitudes cannot be measured: the training split is empty")
    rows = [power(data[i].x[None]) for i in index]
    return torch.cat(rows).mean().sqrt().clamp(min=1e-6).float()


def moving_average(map: Tensor, length: int) -> Tensor:
    """(N, L), the moving average over `length` samples; the ends are repeated outwards."""
    if length <= 1:
        return map
    wide = pad(map[:, None], (length // 2, length - 1 - length // 2), mode="replicate")
    return avg_pool1d(wide, length, 1)[:, 0]
