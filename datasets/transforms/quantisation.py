"""Intensities as scanners store them: whole levels, which are the same on every machine."""

from __future__ import annotations

import numpy as np

from .random_fields import Floats

LEVELS = 4096  # 12 bits, as most MR scanners store


def quantise(image: Floats) -> Floats:
    """Return intensities of 0 to 1 at the nearest of 4096 levels, float32, of any shape.

    image: float64. Vector instructions of different CPUs (AVX2, AVX-512) give the sines
        and sums that an image is made of different last digits. Those of float64 are a billion
        times smaller than a level, so that the levels, and with them the fingerprint of the data,
        are the same everywhere; those of float32 are not.

    >>> one, other = quantise(np.array([0.5, 0.5 + 1e-9]))
    >>> one == other, round(float(one), 6)
    (np.True_, 0.500122)
    """
    if image.dtype != np.float64:
        raise TypeError(f"an image computed in {image.dtype} differs from machine to machine")
    return np.rint(image * (LEVELS - 1)).astype(np.float32) / np.float32(LEVELS - 1)
