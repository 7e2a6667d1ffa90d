"""The high frequencies of a sample: what is left of it without its slow changes in intensity.

Liang et al., "IterMask2", MICCAI 2024, arXiv 2406.02422: a hint of the structure below a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor


def high_frequencies(x: Tensor, radius: float) -> Tensor:
    """Return samples (N, C, *S) with the magnitude of every low frequency set to 1; phases stay.

    x: (N, C, *S)
    radius: frequencies nearer to 0 than this are low, in cycles per side; 0 leaves x as it is

    >>> import torch
    >>> from adbench.engine.transforms.high_frequency import high_frequencies
    >>> slow, fast = torch.tensor([4.0, 4.0, 4.0, 4.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    >>> high_frequencies((slow + fast).view(1, 1, 4), 1)  # the mean is 1 / 4 now
    tensor([[[ 1.2500, -0.7500,  1.2500, -0.7500]]])
    """
    axes = tuple(range(1, x.ndim - 1))
    low = _distance_from_zero(x.shape[2:], x.device) < radius
    return torch.stack([_flatten_spectrum(sample, low, axes) for sample in x])


def _flatten_spectrum(sample: Tensor, low: Tensor, axes: tuple[int, ...]) -> Tensor:
    """One sample at a time and in float64: how a transform rounds depends on where in memory and
    in which batch the sample lies."""
    spectrum = torch.fft.fftn(sample.double(), dim=axes)
    phase = torch.polar(torch.ones_like(spectrum.real), spectrum.angle())
    return torch.fft.ifftn(torch.where(low, phase, spectrum), dim=axes).real.to(sample.dtype)


def _distance_from_zero(shape: torch.Size, device: torch.device) -> Tensor:
    """The length of every frequency, (*S), in cycles per side."""
    square = torch.zeros(shape, device=device)
    for axis, n in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = n
        square = square + torch.fft.fftfreq(n, 1 / n, device=device).view(view).square()
    return square.sqrt()
