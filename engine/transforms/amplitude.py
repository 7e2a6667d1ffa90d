"""The amplitude of signals: their power about silence, its unit over a data set, and maps smoothed
along time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from ..training.data_loading import Examples, evenly_spaced_indices

SILENCE = 0.5
"""The value of no signal in data of the scale [0, 1]."""


def power(x: Tensor) -> Tensor:
    """The mean square about silence of each sample, (N,) float64.

    x: (N, C, L) in [0, 1]

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import power
    >>> power(torch.tensor([[[0.0, 1.0]]]))
    tensor([0.2500], dtype=torch.float64)
    """
    return (x - SILENCE).double().square().flatten(1).mean(1)


def rms(x: Tensor) -> Tensor:
    """The root mean square about silence of each sample, (N, 1, 1), at least 1e-6.

    x: (N, C, L) in [0, 1]

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import rms
    >>> rms(torch.tensor([[[0.0, 1.0]]]))
    tensor([[[0.5000]]])
    """
    return power(x).sqrt().clamp(min=1e-6).float()[:, None, None]


def rms_unit(data: Examples, max_samples: int = 512) -> Tensor:
    """The root mean square about silence of a data set, ().

    data: the training split; ValueError where it is empty
    max_samples: of which it is taken, evenly spaced

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import rms_unit
    >>> from types import SimpleNamespace
    >>> rms_unit([SimpleNamespace(x=torch.tensor([[0.0, 1.0]]), label=False)])
    tensor(0.5000)
    """
    index = evenly_spaced_indices(len(data), max_samples)
    if not index:
        raise ValueError("amplitudes cannot be measured: the training split is empty")
    powers = [power(data[i].x[None]) for i in index]
    return torch.cat(powers).mean().sqrt().clamp(min=1e-6).float()


def moving_average(map: Tensor, length: int) -> Tensor:
    """The moving average of a map along time, (N, L); the ends are repeated outwards.

    map: (N, L)
    length: of the window, in samples of the signal; 1 or less changes nothing

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import moving_average
    >>> moving_average(torch.tensor([[0.0, 3.0, 0.0]]), 3)
    tensor([[1., 1., 1.]])
    """
    if length <= 1:
        return map
    padded = pad(map[:, None], (length // 2, length - 1 - length // 2), mode="replicate")
    return avg_pool1d(padded, length, 1)[:, 0]
