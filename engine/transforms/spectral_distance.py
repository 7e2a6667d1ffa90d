"""How different two signals sound: the distance of their spectra in short stretches of time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

WINDOW_SIZES = (64, 256)
"""Samples in a stretch; a quarter of it is the way to the next."""

AMPLITUDE_FLOOR = 1e-4
"""Added to amplitudes, about -80 dB of 1: below it nothing is told apart."""


def spectral_distance(x: Tensor, y: Tensor, sizes: tuple[int, ...] = WINDOW_SIZES) -> Tensor:
    """(N, L) of two (N, C, L) about 0: the mean absolute difference of log amplitudes, over
    frequencies and `sizes`. Two channels are one complex signal; of any other number, the mean."""
    # one by one: transforms then round alike in any batch
    return torch.stack([_sample_distance(a, b, sizes) for a, b in zip(x, y, strict=True)])


def _sample_distance(x: Tensor, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
    total = torch.zeros_like(x[0])
    for size in sizes:
        far = (
            (_log_spectrogram(x, size) - _log_spectrogram(y, size)).abs().mean((0, 1))
        )  # (stretches,)
        wide = interpolate(far[None, None], size=x.shape[-1], mode="linear", align_corners=True)
        total = total + wide[0, 0].to(total.dtype) / len(sizes)
    return total


def _log_spectrogram(x: Tensor, size: int) -> Tensor:
    """(C, L) -> (channels, frequencies, stretches)."""
    wave = x.float()
    if len(wave) == 2:
        wave = torch.complex(wave[:1], wave[1:])
    window = torch.hann_window(size, device=x.device)
    seen = torch.stft(wave, size, size // 4, window=window, pad_mode="constant",
        onesided=not wave.is_complex(), return_complex=True)  # fmt: skip
    return (seen.abs() / window.sum() + AMPLITUDE_FLOOR).log()
