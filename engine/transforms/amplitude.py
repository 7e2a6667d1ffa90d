"""The amplitude of signals: their power about silence, the unit it is measured in, signals in that
unit, and maps smoothed along time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from ..training.data_loading import Examples, evenly_spaced_indices

SILENCE = 0.5
"""The value of no signal in data of the scale [0, 1]."""

Amplitude = Literal["train", "sample", "none"]
"""The unit of amplitude: the root mean square about silence of the training samples, that of each
sample, or 1, which leaves signals as they were recorded."""

PEAK = 6.0
"""Units that hardly any value of a normal signal exceeds: 16 dB above its root mean square."""


def power(x: Tensor) -> Tensor:
    """Return the mean square about silence of each sample, (N,) float64.

    x: (N, C, L) in [0, 1]

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import power
    >>> power(torch.tensor([[[0.0, 1.0]]]))
    tensor([0.2500], dtype=torch.float64)
    """
    return (x - SILENCE).double().square().flatten(1).mean(1)


def rms(x: Tensor) -> Tensor:
    """Return the root mean square about silence of each sample, (N, 1, 1), at least 1e-6.

    x: (N, C, L) in [0, 1]

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import rms
    >>> rms(torch.tensor([[[0.0, 1.0]]]))
    tensor([[[0.5000]]])
    """
    return power(x).sqrt().clamp(min=1e-6).float()[:, None, None]


def rms_unit(data: Examples, max_samples: int = 512) -> Tensor:
    """Return the root mean square about silence of a data set, ().

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


def fit_unit(amplitude: Amplitude, data: Examples) -> Tensor:
    """Return the unit that a method stores in training, (): `rms_unit` of the data for "train",
    else 1.

    amplitude: which unit
    data: the training split

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import fit_unit
    >>> fit_unit("none", [])
    tensor(1.)
    """
    return rms_unit(data) if amplitude == "train" else torch.ones(())


def unit_of(amplitude: Amplitude | None, x: Tensor, stored: Tensor | None) -> Tensor | None:
    """Return the unit of each sample: its own root mean square (N, 1, 1) for "sample", else
    `stored`.

    amplitude: which unit; None, of images and volumes, for none
    x: (N, C, L) in [0, 1]
    stored: (), the result of `fit_unit`

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import unit_of
    >>> unit_of("sample", torch.tensor([[[0.0, 1.0]]]), torch.ones(()))
    tensor([[[0.5000]]])
    """
    if amplitude == "sample":
        return rms(x)
    return None if amplitude is None or stored is None else stored.to(x.device)


def to_units(x: Tensor, unit: Tensor | None) -> Tensor:
    """Convert signals (N, C, L) of [0, 1] about silence to units of amplitude about 0.

    x: (N, C, L) in [0, 1]
    unit: () or (N, 1, 1); None leaves x as it is

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import to_units
    >>> to_units(torch.tensor([[[0.5, 1.0]]]), torch.tensor(0.25))
    tensor([[[0., 2.]]])
    """
    return x if unit is None else (x - SILENCE) / unit


def from_units(z: Tensor, unit: Tensor | None) -> Tensor:
    """Convert signals (N, C, L) in units of amplitude about 0 to the scale of the data.

    z: (N, C, L), the result of `to_units` or a reconstruction of it; not clamped to [0, 1]
    unit: () or (N, 1, 1); None leaves z as it is

    >>> import torch
    >>> from adbench.engine.transforms.amplitude import from_units
    >>> from_units(torch.tensor([[[0.0, 2.0]]]), torch.tensor(0.25))
    tensor([[[0.5000, 1.0000]]])
    """
    return z if unit is None else z * unit + SILENCE


def moving_average(map: Tensor, length: int) -> Tensor:
    """Return the moving average of a map along time, (N, L); the ends are repeated outwards.

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
