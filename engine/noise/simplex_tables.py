"""Tables and constants of OpenSimplex noise that the tensor and the compiled version share.

Space is cut into skewed cubes, each of them into a tetrahedron at (0, 0, 0), an octahedron and a
tetrahedron at (1, 1, 1). A point receives a contribution from every corner of its piece and from
two vertices beyond, selected by which corners are closest. A corner is named by three bits: 1 is
(1, 0, 0), 6 is (0, 1, 1), 7 is (1, 1, 1). The table says for each branch of the reference
implementation which lattice vertices it adds up, and in which order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRETCH, SQUISH, NORM = -1.0 / 6, 1.0 / 3, 103.0
STRETCH2, SQUISH2, NORM2 = -0.211324865405187, 0.366025403784439, 47.0
"""(1 / sqrt(3) - 1) / 2 and (sqrt(3) - 1) / 2, to the digits that the reference has."""

SIGNS = [(-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1),
         (-1, 1, -1), (1, 1, -1), (-1, -1, -1), (1, -1, -1)]  # fmt: skip
GRADIENTS = np.array([np.multiply(s, 4 + 7 * np.eye(3)[i]) for s in SIGNS for i in range(3)])
"""(24, 3): each long axis of 11 with each choice of signs, in the reference's order."""

GRADIENTS2 = np.array([(5, 2), (2, 5), (-5, 2), (-2, 5), (5, -2), (2, -5), (-5, -2), (-2, -5)],
                      np.float64)  # fmt: skip
"""(8, 2): the gradients in two dimensions."""

BETA = math.gamma(2.5) * math.gamma(9) / math.gamma(11.5)
DEVIATION = math.sqrt(51 / NORM**2 * 1024 * math.sqrt(2) * math.pi * BETA)
"""Standard deviation of one octave, 0.3139. Half a vertex stands in a unit of volume, a gradient's
components have mean square 51, so the variance is 51/103^2 times the integral of (2 - r^2)^8 r^2 2
pi r^2."""

DEVIATION2 = math.sqrt(14.5 / NORM2**2 / math.sqrt(3) * math.pi * 1024 / 90)
"""Standard deviation of one octave in two dimensions, 0.3680: likewise, 1 / sqrt(3) vertices in a
unit of area."""


class Octaves(NamedTuple):
    """The fields that are added up: their wavelengths in pixels, and the amplitude of each.

    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> Octaves(wavelengths=(64.0, 32.0), amplitudes=(1.0, 0.8)).amplitudes
    (1.0, 0.8)
    """

    wavelengths: tuple[float, ...]
    amplitudes: tuple[float, ...]


def _build_vertex_table() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertices by a point's code, (80, 8, 3), counted from its cube's first corner; their number,
    (80,).

    Code c and 8 + c: the tetrahedra at 0 and at 7; c is the closest corner that is not the
    tetrahedron's own, or what the two closest have in common with it. Code 16 + 8 a + b: the
    octahedron, a and b being the closest of opposite corners.
    """
    corner = np.array([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
    table, count = np.zeros((80, 8, 3), np.int64), np.zeros(80, np.int64)
    near, far = (1, 2, 4), (3, 5, 6)

    def fill_entry(code: int, corners: Sequence[int], *beyond: NDArray[np.int64]) -> None:
        count[code] = len(corners) + len(beyond)
        table[code, : count[code]] = [*corner[list(corners)], *beyond]

    for c in near:
        fill_entry(c, (0, *near), *(corner[c] - corner[u] for u in near if u != c))
        fill_entry(8 + c, (*far, 7), corner[c], 2 * corner[c])
    for c in far:
        fill_entry(c, (0, *near), corner[c], corner[c] - corner[7 - c])
        fill_entry(8 + c, (*far, 7), *(corner[c] + corner[u] for u in near if u & c))
    for a in range(1, 7):
        for b in range(1, 7):
            if a in far and b in far:
                beyond = corner[7], 2 * corner[a & b]
            elif a in near and b in near:
                beyond = corner[0], corner[7] - 2 * corner[7 - (a | b)]
            else:
                one, two = (a, b) if a in near else (b, a)
                beyond = corner[7] - 2 * corner[7 - two], 2 * corner[one]
            fill_entry(16 + 8 * a + b, (*near, *far), *beyond)
    return table, count


VERTICES, VERTEX_COUNTS = _build_vertex_table()
