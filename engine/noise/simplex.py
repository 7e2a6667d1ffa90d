"""OpenSimplex noise in three dimensions and in two: what simplex-noise detectors disturb with.

The same numbers as `opensimplex.OpenSimplex(seed).noise3` and `noise2`, bit for bit in float64: on
a CPU by a compiled loop (simplex_cpu.py, where the permutations are made too), elsewhere by
tensors. In three dimensions both follow one table, which says for each branch of the reference
which lattice vertices it adds up, and in which order.

Space is cut into skewed cubes, each of them into a tetrahedron at (0, 0, 0), an octahedron and a
tetrahedron at (1, 1, 1). A point gets a bump from every corner of its piece and from two vertices
beyond, chosen by which corners are closest. A corner is named by three bits: 1 is (1, 0, 0), 6 is
(0, 1, 1), 7 is (1, 1, 1).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STRETCH, SQUISH, NORM = -1.0 / 6, 1.0 / 3, 103.0
STRETCH2, SQUISH2, NORM2 = -0.211324865405187, 0.366025403784439, 47.0
"""(1 / sqrt(3) - 1) / 2 and (sqrt(3) - 1) / 2, to the digits that the reference has."""

SIGNS = [(-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1),
         (-1, 1, -1), (1, 1, -1), (-1, -1, -1), (1, -1, -1)]  # fmt: skip
GRADIENTS = np.array([np.multiply(s, 4 + 7 * np.eye(3)[i]) for s in SIGNS for i in range(3)])
"""(24, 3): each long axis of 11 with each choice of signs, in the reference's order."""

GRADIENTS2 = np.array([(5, 2), (2, 5), (-5, 2), (-2, 5), (5, -2), (2, -5), (-5, -2), (-2, -5)],
                      np.float64)  # fmt: skip
"""(8, 2), in two dimensions."""

BETA = math.gamma(2.5) * math.gamma(9) / math.gamma(11.5)
DEVIATION = math.sqrt(51 / NORM**2 * 1024 * math.sqrt(2) * math.pi * BETA)
"""Of one octave, 0.3139. Half a vertex stands in a unit of volume, a gradient's components have
mean square 51, so the variance is 51/103^2 times the integral of (2 - r^2)^8 r^2 2 pi r^2."""

DEVIATION2 = math.sqrt(14.5 / NORM2**2 / math.sqrt(3) * math.pi * 1024 / 90)
"""Of one octave in two dimensions, 0.3680: likewise, 1 / sqrt(3) vertices in a unit of area."""

CHUNK_POINTS = 2**20
"""Points that tensor operations take at a time, so that memory stays at some 700 MB."""


class Octaves(NamedTuple):
    """Which fields are added up: their wavelengths in pixels, and the height of each."""

    wavelengths: tuple[float, ...]
    amplitudes: tuple[float, ...]


def simplex_fields(
    seeds: Tensor, shape: Sequence[int], octaves: Octaves, depth: Tensor, offset: Tensor
) -> Tensor:
    """(B, D, H, W) float32: the sum over octaves o of height_o S(x / f_o, y / f_o, z / f_o).

    seeds: (B,) int64, a permutation each; x, y are a pixel's column and row.
    depth: (B, D) float64, its z in pixels. offset: (B, O, 3) float64, added to (x, y, z) / f_o.
    The sum is in float64, octave after octave, so every device makes the same float32.
    """
    from .simplex_numba import (  # here: importing numba takes a while
        permutations,
        simplex_fields_numba,
    )

    by = simplex_fields_numba if seeds.device.type == "cpu" else simplex_fields_torch
    return by(permutations(seeds.cpu().numpy()), shape, octaves, depth, offset).float()


def simplex_planes(seeds: Tensor, shape: Sequence[int], octaves: Octaves, offset: Tensor) -> Tensor:
    """(B, H, W) float32: as `fields`, of the two-dimensional generator; offset: (B, O, 2)."""
    from .simplex_numba import permutations, simplex_planes_numba

    by = simplex_planes_numba if seeds.device.type == "cpu" else simplex_planes_torch
    return by(permutations(seeds.cpu().numpy()), shape, octaves, offset).float()


def _build_vertex_table() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(80, 8, 3): by a point's code, the vertices it adds, counted from its cube's first corner;
    and (80,): how many they are. Code c and 8 + c: the tetrahedra at 0 and at 7; c is the closest
    corner that is not the tetrahedron's own, or what the two closest have in common with it.
    Code 16 + 8 a + b: the octahedron, a and b being the closest of opposite corners."""
    corner = np.array([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
    table, count = np.zeros((80, 8, 3), np.int64), np.zeros(80, np.int64)
    near, far = (1, 2, 4), (3, 5, 6)

    def enter(code: int, corners: Sequence[int], *beyond: NDArray[np.int64]) -> None:
        count[code] = len(corners) + len(beyond)
        table[code, : count[code]] = [*corner[list(corners)], *beyond]

    for c in near:
        enter(c, (0, *near), *(corner[c] - corner[u] for u in near if u != c))
        enter(8 + c, (*far, 7), corner[c], 2 * corner[c])
    for c in far:
        enter(c, (0, *near), corner[c], corner[c] - corner[7 - c])
        enter(8 + c, (*far, 7), *(corner[c] + corner[u] for u in near if u & c))
    for a in range(1, 7):
        for b in range(1, 7):
            if a in far and b in far:
                beyond = corner[7], 2 * corner[a & b]
            elif a in near and b in near:
                beyond = corner[0], corner[7] - 2 * corner[7 - (a | b)]
            else:
                one, two = (a, b) if a in near else (b, a)
                beyond = corner[7] - 2 * corner[7 - two], 2 * corner[one]
            enter(16 + 8 * a + b, (*near, *far), *beyond)
    return table, count


VERTICES, VERTEX_COUNTS = _build_vertex_table()


COMPILED_DEVICES = frozenset({"cuda"})
"""Kinds of device on which noise is compiled: some 400 operations become one kernel."""

BACKEND = "inductor"

EXACT_ROUNDING_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
}
"""What keeps the compiler from rounding a product and a sum once instead of twice."""


def simplex_fields_torch(
    permutations: NDArray[np.int64],
    shape: Sequence[int],
    octaves: Octaves,
    depth: Tensor,
    offset: Tensor,
) -> Tensor:
    """The sum that `fields` rounds, on the device of `depth`; no branch, POINTS points at a time.

    permutations: (B, 256), the permutations, wherever they are.
    """
    device, (D, H, W) = depth.device, shape
    table = torch.from_numpy(permutations).flatten().to(device)
    made = torch.empty(len(permutations) * D * H * W, dtype=torch.float64, device=device)
    for part in made.split(CHUNK_POINTS):
        at = torch.arange(len(part), device=device) + part.storage_offset()
        sample = at // (D * H * W)
        z = depth.flatten()[at // (H * W)]
        pixel = torch.stack([(at % W).double(), (at // W % H).double(), z])
        total = torch.zeros_like(z)
        for o, (wavelength, height) in enumerate(zip(*octaves, strict=True)):
            point = pixel / torch.full_like(z, wavelength) + offset[sample, o].T
            total = total + height * _call_compiled(
                _noise3, point, table, sample * 256, *_device_tables(device)
            )
        part.copy_(total)
    return made.view(len(permutations), D, H, W)


def simplex_planes_torch(
    permutations: NDArray[np.int64], shape: Sequence[int], octaves: Octaves, offset: Tensor
) -> Tensor:
    """The sum that `planes` rounds, on the device of `offset`."""
    device, (H, W) = offset.device, shape
    table = torch.from_numpy(permutations).flatten().to(device)
    gradient = torch.from_numpy(GRADIENTS2).to(device)
    made = torch.empty(len(permutations) * H * W, dtype=torch.float64, device=device)
    for part in made.split(CHUNK_POINTS):
        at = torch.arange(len(part), device=device) + part.storage_offset()
        sample = at // (H * W)
        pixel = torch.stack([(at % W).double(), (at // W % H).double()])
        total = torch.zeros_like(part)
        for o, (wavelength, height) in enumerate(zip(*octaves, strict=True)):
            point = pixel / torch.full_like(part, wavelength) + offset[sample, o].T
            total = total + height * _call_compiled(_noise2, point, table, sample * 256, gradient)
        part.copy_(total)
    return made.view(len(permutations), H, W)


def _call_compiled(noise: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """`noise`, as one kernel where that is worth it; as it stands where that cannot be had."""
    kind = arguments[0].device.type
    if kind in COMPILED_DEVICES and (kind, BACKEND) not in _failed_backends:
        try:
            return _compile(noise, BACKEND)(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of a compiler, which may fail in any way
            _failed_backends.add((kind, BACKEND))
            what = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"simplex noise could not be compiled for {kind} and takes longer: {what}",
                stacklevel=2,
            )
    return noise(*arguments)


_failed_backends: set[tuple[str, str]] = set()


@cache
def _compile(noise: Callable[..., Tensor], backend: str) -> Callable[..., Tensor]:
    return torch.compile(
        noise,
        backend=backend,
        dynamic=True,
        fullgraph=True,
        options=dict(EXACT_ROUNDING_OPTIONS) if backend == "inductor" else None,
    )


@cache
def _device_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """VERTICES, COUNT and GRADIENTS there."""
    vertices, count, gradients = (torch.from_numpy(a) for a in (VERTICES, VERTEX_COUNTS, GRADIENTS))
    return vertices.to(device), count.to(device), gradients.to(device)


def _noise3(
    point: Tensor,
    permutations: Tensor,
    base: Tensor,
    vertex: Tensor,
    count: Tensor,
    gradient: Tensor,
) -> Tensor:
    """S at points (3, P) float64, (P,). permutations: flat permutations; base: (P,) where each
    one's is.

    Divisions are by tensors: by a number, a GPU multiplies with its inverse, which rounds twice.
    """
    x, y, z = point
    skewed = point + (x + y + z) * STRETCH
    cell = skewed.floor()
    inner = point - (cell + (cell[0] + cell[1] + cell[2]) * SQUISH)
    code = _point_code(*(skewed - cell))
    cell = cell.long()
    value = torch.zeros_like(x)
    for n in range(vertex.shape[1]):
        v = vertex[code, n].T
        squish = v.sum(0).double() * SQUISH
        dx, dy, dz = inner - v - squish
        i, j, k = cell + v
        h = permutations[
            base + (permutations[base + (permutations[base + (i & 255)] + j & 255)] + k & 255)
        ]
        gx, gy, gz = gradient[h % 24].T
        bump = (2 - dx * dx - dy * dy - dz * dz).clamp(min=0)
        bump = bump * bump
        bump = bump * bump * (gx * dx + gy * dy + gz * dz)
        value = value + torch.where(n < count[code], bump, 0.0)
    return value / torch.full_like(value, NORM)


def _point_code(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Of a place (P,) in its skewed cube, each in [0, 1): what `_vertices` calls a point's code.

    In a tetrahedron three corners compete, one for each axis: two start, and the third may push
    out the weaker. In the octahedron three pairs of opposite corners do.
    """
    where, total = torch.where, x + y + z

    # At corner 0 the larger coordinate is the closer corner; at 7 the smaller.
    swap_b, swap_a = (x >= y) & (z > y), (x < y) & (z > x)
    a, b = where(swap_a, z, x), where(swap_b, z, y)
    first, second = where(swap_a, 4, 1), where(swap_b, 4, 2)
    own = (1 - total > a) | (1 - total > b)
    low = where(own, where(b > a, second, first), first | second)

    swap_b, swap_a = (x <= y) & (z < y), (x > y) & (z < x)
    a, b = where(swap_a, z, x), where(swap_b, z, y)
    first, second = where(swap_a, 3, 6), where(swap_b, 3, 5)
    own = (3 - total < a) | (3 - total < b)
    high = 8 + where(own, where(b < a, second, first), first & second)

    a, b, c = (x + y - 1).abs(), (x + z - 1).abs(), (y + z - 1).abs()
    swap_a, swap_b = (a <= b) & (a < c), (a > b) & (b < c)
    third = where(y + z > 1, 6, 1)
    first = where(swap_a, third, where(x + y > 1, 3, 4))
    second = where(swap_b, third, where(x + z > 1, 5, 2))
    middle = 16 + 8 * first + second

    return where(total <= 1, low, where(total >= 2, high, middle))


def _noise2(point: Tensor, permutations: Tensor, base: Tensor, gradient: Tensor) -> Tensor:
    """S at points (2, P) float64, (P,): as `_noise`, in two dimensions.

    A skewed square is cut into two triangles. A point gets a bump from its triangle's corners, two
    of which are (1, 0) and (0, 1), and from one vertex beyond the closest edge.
    """
    x, y = point
    skewed = point + (x + y) * STRETCH2
    cell = skewed.floor()
    inner = point - (cell + (cell[0] + cell[1]) * SQUISH2)
    a, b = skewed - cell
    upper = (a + b > 1).long()
    own = 1 + upper - (a + b)
    aside = torch.where(upper == 1, (own < a) | (own < b), (own > a) | (own > b))
    far, near = 1 + upper, upper - 1
    beyond = torch.where(
        aside, torch.where(a > b, torch.stack([far, near]), torch.stack([near, far])), 1 - upper
    )
    one, zero = torch.ones_like(upper), torch.zeros_like(upper)
    cell = cell.long()
    value = torch.zeros_like(x)
    for v in (torch.stack([one, zero]), torch.stack([zero, one]), upper.expand(2, -1), beyond):
        dx, dy = inner - v - v.sum(0).double() * SQUISH2
        i, j = cell + v
        gx, gy = gradient[
            permutations[base + (permutations[base + (i & 255)] + j & 255)] >> 1 & 7
        ].T
        bump = (2 - dx * dx - dy * dy).clamp(min=0)
        bump = bump * bump
        value = value + bump * bump * (gx * dx + gy * dy)
    return value / torch.full_like(value, NORM2)
