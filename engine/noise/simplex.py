"""OpenSimplex noise in three dimensions and in two: what simplex-noise detectors add to samples.

The same numbers as `opensimplex.OpenSimplex(seed).noise3` and `noise2`, bit for bit in float64: on
a CPU by a compiled loop (simplex_numba.py, where the permutations are drawn too), elsewhere by
tensor operations. In three dimensions both follow the table of simplex_tables.py. Our opposite
implementation because opensimplex computes on a CPU alone, one field at a time; it stays the
reference that the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.compiled_kernels import call_compiled
from ..runtime.transfer import to_device
from .simplex_tables import (
    GRADIENTS,
    GRADIENTS2,
    NORM,
    NORM2,
    SQUISH,
    SQUISH2,
    STRETCH,
    STRETCH2,
    VERTEX_COUNTS,
    VERTICES,
    Octaves,
)

CHUNK_POINTS = 2**20
"""Points that tensor operations take at a time, so that memory stays at some 700 MB."""


def simplex_fields(
    seeds: Tensor, shape: Sequence[int], octaves: Octaves, depth: Tensor, offset: Tensor
) -> Tensor:
    """Draw fields of three-dimensional simplex noise, (B, D, H, W) float32.

    The sum over octaves o of amplitude_o S(x / f_o, y / f_o, z / f_o), where x and y are a pixel's
    column and row. The sum is in float64, octave after octave, so that every device computes the
    same float32.

    seeds: (B,) int64, each shuffles a permutation of its own; on the CPU, where it is shuffled
    shape: (D, H, W)
    octaves: wavelengths f_o in pixels, and amplitudes
    depth: (B, D) float64, z of every plane in pixels
    offset: (B, O, 3) float64, added to (x, y, z) / f_o

    >>> from opensimplex import OpenSimplex
    >>> import torch
    >>> from adbench.engine.noise.simplex import simplex_fields
    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> octaves, depth = Octaves((8.0, 4.0), (1.0, 0.5)), torch.zeros(1, 1).double()
    >>> offset = torch.zeros(1, 2, 3).double()
    >>> field = simplex_fields(torch.tensor([7]), (1, 2, 4), octaves, depth, offset)
    >>> S = OpenSimplex(7).noise3
    >>> abs(field[0, 0, 1, 2].item() - (S(2 / 8, 1 / 8, 0) + 0.5 * S(2 / 4, 1 / 4, 0))) < 1e-6
    True
    """
    from .simplex_numba import permutations, simplex_fields_numba  # here: importing numba is slow

    draw = simplex_fields_numba if depth.device.type == "cpu" else simplex_fields_torch
    return draw(permutations(seeds.cpu().numpy()), shape, octaves, depth, offset).float()


def simplex_planes(seeds: Tensor, shape: Sequence[int], octaves: Octaves, offset: Tensor) -> Tensor:
    """Draw planes of two-dimensional simplex noise, (B, H, W) float32.

    seeds, octaves: as in `simplex_fields`
    shape: (H, W)
    offset: (B, O, 2) float64, added to (x, y) / f_o

    >>> from opensimplex import OpenSimplex
    >>> import torch
    >>> from adbench.engine.noise.simplex import simplex_planes
    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> octaves, offset = Octaves((8.0,), (1.0,)), torch.zeros(1, 1, 2).double()
    >>> plane = simplex_planes(torch.tensor([7]), (2, 4), octaves, offset)
    >>> abs(plane[0, 1, 2].item() - OpenSimplex(7).noise2(2 / 8, 1 / 8)) < 1e-6
    True
    """
    from .simplex_numba import permutations, simplex_planes_numba

    draw = simplex_planes_numba if offset.device.type == "cpu" else simplex_planes_torch
    return draw(permutations(seeds.cpu().numpy()), shape, octaves, offset).float()


def simplex_fields_torch(
    permutations: NDArray[np.int64],
    shape: Sequence[int],
    octaves: Octaves,
    depth: Tensor,
    offset: Tensor,
) -> Tensor:
    """Compute the sum of `simplex_fields` in float64 by tensor operations, (B, D, H, W).

    On the device of `depth`, without branches, CHUNK_POINTS points at a time.

    permutations: (B, 256), the permutations, wherever they are.

    >>> import torch
    >>> from adbench.engine.noise.simplex import simplex_fields, simplex_fields_torch
    >>> from adbench.engine.noise.simplex_numba import permutations
    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> seeds, octaves = torch.tensor([7, 8]), Octaves((8.0,), (1.0,))
    >>> rest = (1, 2, 4), octaves, torch.zeros(2, 1).double(), torch.zeros(2, 1, 3).double()
    >>> field = simplex_fields_torch(permutations(seeds.numpy()), *rest)
    >>> torch.equal(field.float(), simplex_fields(seeds, *rest))  # of the compiled loop
    True
    """
    device, (D, H, W) = depth.device, shape
    table = to_device(torch.from_numpy(permutations).flatten(), device)
    field = torch.empty(len(permutations) * D * H * W, dtype=torch.float64, device=device)
    for part in field.split(CHUNK_POINTS):
        index = torch.arange(len(part), device=device) + part.storage_offset()
        sample = index // (D * H * W)
        z = depth.flatten()[index // (H * W)]
        pixel = torch.stack([(index % W).double(), (index // W % H).double(), z])
        total = torch.zeros_like(z)
        for o, (wavelength, amplitude) in enumerate(zip(*octaves, strict=True)):
            point = pixel / torch.full_like(z, wavelength) + offset[sample, o].T
            values = call_compiled(_noise3, point, table, sample * 256, *_device_tables(device))
            total = total + amplitude * values
        part.copy_(total)
    return field.view(len(permutations), D, H, W)


def simplex_planes_torch(
    permutations: NDArray[np.int64], shape: Sequence[int], octaves: Octaves, offset: Tensor
) -> Tensor:
    """Compute the sum of `simplex_planes` in float64 on the device of `offset`, (B, H, W).

    >>> import torch
    >>> from adbench.engine.noise.simplex import simplex_planes, simplex_planes_torch
    >>> from adbench.engine.noise.simplex_numba import permutations
    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> seeds, octaves = torch.tensor([7, 8]), Octaves((8.0,), (1.0,))
    >>> rest = (2, 4), octaves, torch.zeros(2, 1, 2).double()
    >>> plane = simplex_planes_torch(permutations(seeds.numpy()), *rest)
    >>> torch.equal(plane.float(), simplex_planes(seeds, *rest))  # of the compiled loop
    True
    """
    device, (H, W) = offset.device, shape
    table = to_device(torch.from_numpy(permutations).flatten(), device)
    gradient = _plane_gradients(device)
    field = torch.empty(len(permutations) * H * W, dtype=torch.float64, device=device)
    for part in field.split(CHUNK_POINTS):
        index = torch.arange(len(part), device=device) + part.storage_offset()
        sample = index // (H * W)
        pixel = torch.stack([(index % W).double(), (index // W % H).double()])
        total = torch.zeros_like(part)
        for o, (wavelength, amplitude) in enumerate(zip(*octaves, strict=True)):
            point = pixel / torch.full_like(part, wavelength) + offset[sample, o].T
            values = call_compiled(_noise2, point, table, sample * 256, gradient)
            total = total + amplitude * values
        part.copy_(total)
    return field.view(len(permutations), H, W)


@cache
def _device_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """VERTICES, VERTEX_COUNTS and GRADIENTS on the device."""
    vertices, count, gradients = (torch.from_numpy(a) for a in (VERTICES, VERTEX_COUNTS, GRADIENTS))
    return to_device(vertices, device), to_device(count, device), to_device(gradients, device)


@cache
def _plane_gradients(device: torch.device) -> Tensor:
    """GRADIENTS2 on the device."""
    return to_device(torch.from_numpy(GRADIENTS2), device)


def _noise3(
    point: Tensor,
    permutations: Tensor,
    base: Tensor,
    vertex: Tensor,
    count: Tensor,
    gradient: Tensor,
) -> Tensor:
    """Evaluate S at points (3, P) float64, (P,).

    permutations: all of them in one row; base: (P,), where the permutation of each point begins.

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
        h = permutations[base + (permutations[base + (i & 255)] + j & 255)]
        h = permutations[base + (h + k & 255)]
        gx, gy, gz = gradient[h % 24].T
        bump = (2 - dx * dx - dy * dy - dz * dz).clamp(min=0)
        bump = bump * bump
        bump = bump * bump * (gx * dx + gy * dy + gz * dz)
        value = value + torch.where(n < count[code], bump, 0.0)
    return value / torch.full_like(value, NORM)


def _point_code(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Classify points (P,) of a skewed cube, each in [0, 1): the codes of `simplex_tables`.

    In a tetrahedron three corners compete, one for each axis: two start, and the third may push
    out the weaker. In the octahedron three pairs of opposite corners do.
    """
    where, total = torch.where, x + y + z

    # At corner 0 the larger coordinate is the closer corner; at 7 the smaller.
    swap_b, swap_a = (x >= y) & (z > y), (x < y) & (z > x)
    a, b = where(swap_a, z, x), where(swap_b, z, y)
    first, second = where(swap_a, 4, 1), where(swap_b, 4, 2)
    opposite = (1 - total > a) | (1 - total > b)
    low = where(opposite, where(b > a, second, first), first | second)

    swap_b, swap_a = (x <= y) & (z < y), (x > y) & (z < x)
    a, b = where(swap_a, z, x), where(swap_b, z, y)
    first, second = where(swap_a, 3, 6), where(swap_b, 3, 5)
    opposite = (3 - total < a) | (3 - total < b)
    high = 8 + where(opposite, where(b < a, second, first), first & second)

    a, b, c = (x + y - 1).abs(), (x + z - 1).abs(), (y + z - 1).abs()
    swap_a, swap_b = (a <= b) & (a < c), (a > b) & (b < c)
    third = where(y + z > 1, 6, 1)
    first = where(swap_a, third, where(x + y > 1, 3, 4))
    second = where(swap_b, third, where(x + z > 1, 5, 2))
    middle = 16 + 8 * first + second

    return where(total <= 1, low, where(total >= 2, high, middle))


def _noise2(point: Tensor, permutations: Tensor, base: Tensor, gradient: Tensor) -> Tensor:
    """Evaluate S at points (2, P) float64, (P,): as `_noise3`, in two dimensions.

    A skewed square is cut into two triangles. A point receives contributions from its triangle's
    corners, two of which are (1, 0) and (0, 1), and from one vertex beyond the closest edge.
    """
    x, y = point
    skewed = point + (x + y) * STRETCH2
    cell = skewed.floor()
    inner = point - (cell + (cell[0] + cell[1]) * SQUISH2)
    a, b = skewed - cell
    upper = (a + b > 1).long()
    opposite = 1 + upper - (a + b)
    aside = torch.where(
        upper == 1, (opposite < a) | (opposite < b), (opposite > a) | (opposite > b)
    )
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
        h = permutations[base + (permutations[base + (i & 255)] + j & 255)]
        gx, gy = gradient[h >> 1 & 7].T
        bump = (2 - dx * dx - dy * dy).clamp(min=0)
        bump = bump * bump
        value = value + bump * bump * (gx * dx + gy * dy)
    return value / torch.full_like(value, NORM2)
