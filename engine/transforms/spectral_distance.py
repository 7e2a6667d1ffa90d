"""The distance of two signals' spectra in short windows of time: how different they sound."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

WINDOW_SIZES = (64, 256)
"""Samples in a window; windows begin a quarter of it apart."""

AMPLITUDE_FLOOR = 1e-4
"""Added to amplitudes, about -80 dB of 1: differences below it do not count."""


def spectral_distance(x: Tensor, y: Tensor, sizes: tuple[int, ...] = WINDOW_SIZES) -> Tensor:
    """Return the mean absolute difference of log amplitudes over frequencies and window sizes, (N,
    L).

    x, y: (N, C, L) about 0. Two channels are one complex signal; of any other number, the mean
    sizes: of the windows

    >>> import torch
    >>> from adbench.engine.transforms.spectral_distance import spectral_distance
    >>> x = torch.zeros(1, 1, 512)
    >>> spectral_distance(x, x).max()
    tensor(0.)
    """
    # one by one: transforms then round alike in any batch
    return torch.stack([_sample_distance(a, b, sizes) for a, b in zip(x, y, strict=True)])


def _sample_distance(x: Tensor, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
    total = torch.zeros_like(x[0])
    for size in sizes:
        difference = (_log_spectrogram(x, size) - _log_spectrogram(y, size)).abs()
        distance = difference.mean((0, 1))[None, None]  # (1, 1, windows)
        distance = interpolate(distance, size=x.shape[-1], mode="linear", align_corners=True)
        total = total + distance[0, 0].to(total.dtype) / len(sizes)
    return total


def _log_spectrogram(x: Tensor, size: int) -> Tensor:
    """(C, L) -> (channels, frequencies, windows)."""
    wave = x.float()
    if len(wave) == 2:
        wave = torch.complex(wave[:1], wave[1:])
    window = torch.hann_window(size, device=x.device)
    spectrum = torch.stft(wave, size, size // 4, window=window, pad_mode="constant",
        onesided=not wave.is_complex(), return_complex=True)  # fmt: skip
    return (spectrum.abs() / window.sum() + AMPLITUDE_FLOOR).log()
