"""High frequencies: a wave that is kept, one whose magnitude becomes 1, and their direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.high_frequency import high_frequencies


@pytest.mark.parametrize("shape", [(16,), (16, 12), (8, 6, 10)])
def test_they_are_those_of_the_authors_formula(shape: tuple[int, ...]) -> None:
    """IterMask2's: the shifted spectrum within a circle around its middle has magnitude 1."""
    x = Rng(["a"]).normal((2, *shape))
    ours = high_frequencies(x, 3.0)[0].double().numpy()
    for channel, result in zip(x[0].double().numpy(), ours, strict=True):
        spectrum = np.fft.fftshift(np.fft.fftn(channel))
        grid = np.ogrid[tuple(slice(n) for n in shape)]
        distance = sum((g - n // 2) ** 2 for g, n in zip(grid, shape, strict=True)) ** 0.5
        magnitude = np.where(distance < 3, 1, np.abs(spectrum))
        expected = np.fft.ifftn(np.fft.ifftshift(magnitude * np.exp(1j * np.angle(spectrum))))
        np.testing.assert_allclose(result, expected.real, atol=1e-6)


def test_a_fast_wave_stays_and_a_slow_one_is_nearly_gone() -> None:
    position = torch.arange(64) * 2 * torch.pi / 64
    slow, fast = 5 * (2 * position).sin(), (20 * position).cos()
    left = high_frequencies((slow + fast).view(1, 1, 64), 10.0).flatten()
    assert (left - fast).abs().max() < 0.3  # 21 frequencies of magnitude 1 / 64 each at most


def test_radius_0_changes_nothing() -> None:
    x = Rng(["a", "b"]).normal((1, 8, 8))
    torch.testing.assert_close(high_frequencies(x, 0.0), x)
