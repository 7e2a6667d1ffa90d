"""Simplex noise as AnoDDPM's authors have it: opensimplex's own arrays, an octave at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from opensimplex import OpenSimplex

from adbench.engine.noise.noise import Simplex


def reference_simplex(noise: Simplex, seed: int, side: int, t: float) -> NDArray[np.float64]:
    """(side, side): the octaves of `noise` added up, each by opensimplex."""
    generator, total = OpenSimplex(seed), np.zeros((side, side))
    for octave in range(noise.octaves):
        wavelength = noise.frequency / 2**octave
        axis = np.arange(side) / wavelength
        field = generator.noise3array(axis, axis, np.array([t / wavelength]))[0]
        total += noise.persistence**octave * field
    return total
