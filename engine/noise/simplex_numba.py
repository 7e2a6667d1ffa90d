"""The compiled loop behind simplex.py; apart, so that numba is imported when a field is drawn.

A row goes through three passes, COLUMNS of it at a time: where its points lie, which numbers the
permutation gives their vertices, and the sum of the contributions. The first and the last have
neither branch nor table, so that the compiler vectorises them. The second is skipped where the row
before had the same point of the lattice in this column, as long waves mostly do.

It is called by as many threads as torch has: numba's own pools spin between calls, and survive
neither a fork nor two callers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

VALUES_PER_THREAD = 2**15
"""Values of single octaves below which one more thread costs more than it brings."""

COLUMNS = 256
"""Points of a row that are in the passes' memory at a time, which with that stays in a fast cache.
"""


def simplex_fields_numba(
    permutation_tables: NDArray[np.int64],
    shape: Sequence[int],
    octaves: Octaves,
    depth: Tensor,
    offset: Tensor,
) -> Tensor:
    """Compute the sum of `simplex_fields` on a CPU, as `simplex_fields_torch` to the last bit.

    >>> from opensimplex import OpenSimplex
    >>> import numpy as np
    >>> import torch
    >>> from adbench.engine.noise.simplex_numba import permutations, simplex_fields_numba
    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> tables, octaves = permutations(np.array([7])), Octaves((8.0,), (1.0,))
    >>> depth, offset = torch.tensor([[3.0]]).double(), torch.zeros(1, 1, 3).double()
    >>> field = simplex_fields_numba(tables, (1, 2, 4), octaves, depth, offset)
    >>> field[0, 0, 1, 2].item() == OpenSimplex(7).noise3(2 / 8, 1 / 8, 3.0 / 8)
    True
    """
    D, H, W = shape
    arguments = (
        (D, H), permutation_tables, GRADIENT_WORDS[permutation_tables % 24], VERTEX_WORDS,
        np.array(octaves.wavelengths), np.array(octaves.amplitudes),
        np.ascontiguousarray(depth), np.ascontiguousarray(offset),
    )  # fmt: skip
    rows = (len(permutation_tables) * D * H, W)
    field = _run_in_threads(_fill_field_rows, rows, len(octaves.amplitudes), arguments)
    return field.view(len(permutation_tables), D, H, W)


def simplex_planes_numba(
    permutation_tables: NDArray[np.int64], shape: Sequence[int], octaves: Octaves, offset: Tensor
) -> Tensor:
    """Compute the sum of `simplex_planes` on a CPU, as `simplex_planes_torch` to the last bit.

    >>> from opensimplex import OpenSimplex
    >>> import numpy as np
    >>> import torch
    >>> from adbench.engine.noise.simplex_numba import permutations, simplex_planes_numba
    >>> from adbench.engine.noise.simplex_tables import Octaves
    >>> tables, octaves = permutations(np.array([7])), Octaves((8.0,), (1.0,))
    >>> plane = simplex_planes_numba(tables, (2, 4), octaves, torch.zeros(1, 1, 2).double())
    >>> plane[0, 1, 2].item() == OpenSimplex(7).noise2(2 / 8, 1 / 8)
    True
    """
    H, W = shape
    arguments = (
        H, permutation_tables, GRADIENTS2[permutation_tables >> 1 & 7],
        np.array(octaves.wavelengths), np.array(octaves.amplitudes), np.ascontiguousarray(offset),
    )  # fmt: skip
    rows = (len(permutation_tables) * H, W)
    field = _run_in_threads(_fill_plane_rows, rows, len(octaves.amplitudes), arguments)
    return field.view(len(permutation_tables), H, W)


def _run_in_threads(
    fill_rows: Callable[..., None],
    shape: tuple[int, int],
    octave_count: int,
    arguments: tuple[Any, ...],
) -> Tensor:
    """An array of the shape, float64, filled by `fill_rows` with one thread per share of its rows.

    fill_rows: takes the share, the number of its first row, and `arguments`
    octave_count: how much work a value is
    """
    values = np.zeros(shape)

    def fill_share(start: int, stop: int) -> None:
        fill_rows(values[start:stop], start, *arguments)

    threads = min(torch.get_num_threads(), values.size * octave_count // VALUES_PER_THREAD)
    if threads < 2:
        fill_share(0, len(values))
    else:
        edges = [len(values) * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill_share, edges[:-1], edges[1:]))
    return torch.from_numpy(values)


def _high_words(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """The first 16 bits of small whole numbers as float64, whose other bits are all 0."""
    return numbers.astype(np.float64).view(np.int64) >> 48 & 0xFFFF


def _build_vertex_words() -> NDArray[np.int64]:
    """Three words per code and vertex, (80, 8, 3), from which `_gather_vertices` builds two words
    of four short floats: a mask for the gradient (0 for no vertex) and i; j and k; and i, j, k in
    8 bits each."""
    i, j, k = VERTICES.transpose(2, 0, 1)
    present = np.arange(8) < VERTEX_COUNTS[:, None]
    first = np.where(present, np.int64(-1) << 16, 0) | _high_words(i)
    second = _high_words(j) << 48 | _high_words(k) << 32
    return np.stack([first, second, i & 255 | (j & 255) << 8 | (k & 255) << 16], 2)


VERTEX_WORDS = _build_vertex_words()
GRADIENT_WORDS = _high_words(GRADIENTS) @ (np.int64(1) << np.array([48, 32, 16]))
"""(24,): a gradient's components, three short floats in a word."""

HIGH = np.int64(-1) << np.int64(48)


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with IEEE arithmetic, nothing fused or reordered; cached on disk if numba finds a
    folder that it may write to."""
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # numba found no such folder
        return numba.njit(nogil=True, error_model="numpy")(function)


@_jit
def permutations(seeds):
    """Return the permutations that opensimplex shuffles by each seed: (B,) int64 -> (B, 256).

    >>> import numpy as np
    >>> from adbench.engine.noise.simplex_numba import permutations
    >>> tables = permutations(np.array([7, 8]))
    >>> [sorted(table.tolist()) == list(range(256)) for table in tables]
    [True, True]
    """
    tables = np.empty((len(seeds), 256), np.int64)
    for b in range(len(seeds)):
        source, state = np.arange(256), seeds[b]
        for i in range(258, -1, -1):  # three steps to warm up
            state = state * 6364136223846793005 + 1442695040888963407  # which wraps
            if i < 256:
                pick = (state % (i + 1) + 31) % (i + 1)  # of state + 31, were that not to wrap
                tables[b, i] = source[pick]
                source[pick] = source[i]
    return tables


@_jit
def _locate_points(dx, dy, dz, key, start, wave, x0, y, z):
    """Write for the columns from `start` on the position in the cube into dx, dy and dz, and into
    key the code and the cube, in 8 bits each.

    The code is `simplex._point_code`, here in place and without a branch: with one, the compiler
    would not vectorise the loop.
    """
    for w in range(len(key)):
        x = (start + w) / wave + x0
        skew = (x + y + z) * STRETCH
        xs, ys, zs = x + skew, y + skew, z + skew
        xf, yf, zf = np.floor(xs), np.floor(ys), np.floor(zs)
        back = (xf + yf + zf) * SQUISH
        dx[w], dy[w], dz[w] = x - (xf + back), y - (yf + back), z - (zf + back)
        i, j, k = np.int64(xf) & 255, np.int64(yf) & 255, np.int64(zf) & 255
        xs, ys, zs = xs - xf, ys - yf, zs - zf
        total = xs + ys + zs

        swap_b, swap_a = (xs >= ys) & (zs > ys), (xs < ys) & (zs > xs)
        a = zs if swap_a else xs
        b = zs if swap_b else ys
        first = 4 if swap_a else 1
        second = 4 if swap_b else 2
        opposite = (1 - total > a) | (1 - total > b)
        nearer = second if b > a else first
        low = nearer if opposite else first | second

        swap_b, swap_a = (xs <= ys) & (zs < ys), (xs > ys) & (zs < xs)
        a = zs if swap_a else xs
        b = zs if swap_b else ys
        first = 3 if swap_a else 6
        second = 3 if swap_b else 5
        opposite = (3 - total < a) | (3 - total < b)
        nearer = second if b < a else first
        high = 8 + (nearer if opposite else first & second)

        a, b, c = abs(xs + ys - 1), abs(xs + zs - 1), abs(ys + zs - 1)
        swap_a, swap_b = (a <= b) & (a < c), (a > b) & (b < c)
        third = 6 if ys + zs > 1 else 1
        first = 3 if xs + ys > 1 else 4
        second = 5 if xs + zs > 1 else 2
        first = third if swap_a else first
        second = third if swap_b else second
        middle = 16 + 8 * first + second

        code = low if total <= 1 else (high if total >= 2 else middle)
        key[w] = code << 24 | k << 16 | j << 8 | i


@_jit
def _gather_vertices(one, two, cached_keys, key, permutation, gradients, vertices):
    """Write into one and two, (8 * COLUMNS,), the words of each vertex that `_vertex_contribution`
    reads; where the key equals the cached one they are there already."""
    for w in range(len(key)):
        if key[w] == cached_keys[w]:
            continue
        cached_keys[w] = key[w]
        code, i, j, k = np.uint64(key[w] >> 24), key[w], key[w] >> 8, key[w] >> 16
        for n in range(8):
            v = vertices[code, np.uint64(n), np.uint64(2)]
            p = permutation[np.uint64(i + v & 255)]
            p = permutation[np.uint64(p + j + (v >> 8) & 255)]
            p = gradients[np.uint64(p + k + (v >> 16) & 255)]
            first = vertices[code, np.uint64(n), np.uint64(0)]
            one[n * COLUMNS + w] = p & first | first & 0xFFFF
            two[n * COLUMNS + w] = vertices[code, np.uint64(n), np.uint64(1)]


@_jit
def _vertex_contribution(a, b, x, y, z):
    """The contribution of a vertex, from its two words and the position in the cube."""
    gx = np.int64(a & HIGH).view(np.float64)
    gy = np.int64(a << 16 & HIGH).view(np.float64)
    gz = np.int64(a << 32 & HIGH).view(np.float64)
    i = np.int64(a << 48).view(np.float64)
    j = np.int64(b & HIGH).view(np.float64)
    k = np.int64(b << 16).view(np.float64)
    back = (i + j + k) * SQUISH
    dx, dy, dz = x - i - back, y - j - back, z - k - back
    bump = 2 - dx * dx - dy * dy - dz * dz
    bump = bump if bump > 0 else 0.0
    bump *= bump
    return bump * bump * (gx * dx + gy * dy + gz * dz)


@_jit
def _add_octave(row, dx, dy, dz, one, two, amplitude):
    """Add the octave's values to row (up to COLUMNS,). Written out, as an inner loop over the
    vertices would be vectorised instead of the loop over columns."""
    for w in range(len(row)):
        x, y, z = dx[w], dy[w], dz[w]
        value = _vertex_contribution(one[w], two[w], x, y, z)
        value += _vertex_contribution(one[w + COLUMNS], two[w + COLUMNS], x, y, z)
        value += _vertex_contribution(one[w + 2 * COLUMNS], two[w + 2 * COLUMNS], x, y, z)
        value += _vertex_contribution(one[w + 3 * COLUMNS], two[w + 3 * COLUMNS], x, y, z)
        value += _vertex_contribution(one[w + 4 * COLUMNS], two[w + 4 * COLUMNS], x, y, z)
        value += _vertex_contribution(one[w + 5 * COLUMNS], two[w + 5 * COLUMNS], x, y, z)
        value += _vertex_contribution(one[w + 6 * COLUMNS], two[w + 6 * COLUMNS], x, y, z)
        value += _vertex_contribution(one[w + 7 * COLUMNS], two[w + 7 * COLUMNS], x, y, z)
        row[w] += amplitude * (value / NORM)


@_jit
def _fill_field_rows(
    values, start, size, tables, gradients, vertices, waves, amplitudes, depth, offset
):
    """Add to rows (R, W), the first of which is row `start` of all samples' planes. Octaves are the
    outer loop, since from one row to the next the long ones find their vertices cached."""
    D, H = size
    dx, dy, dz = np.empty(COLUMNS), np.empty(COLUMNS), np.empty(COLUMNS)
    one, two = np.empty(8 * COLUMNS, np.int64), np.empty(8 * COLUMNS, np.int64)
    keys, cached_keys = np.empty(COLUMNS, np.int64), np.empty(COLUMNS, np.int64)
    for first in range(0, values.shape[1], COLUMNS):
        for o in range(len(waves)):
            sample = -1
            for r in range(values.shape[0]):
                index = start + r
                b, d, h = index // (D * H), index // H % D, index % H
                if b != sample:
                    sample, cached_keys[:] = b, -1
                y = h / waves[o] + offset[b, o, 1]
                z = depth[b, d] / waves[o] + offset[b, o, 2]
                row = values[r, first : first + COLUMNS]
                key = keys[: len(row)]
                _locate_points(dx, dy, dz, key, first, waves[o], offset[b, o, 0], y, z)
                _gather_vertices(one, two, cached_keys, key, tables[b], gradients[b], vertices)
                _add_octave(row, dx, dy, dz, one, two, amplitudes[o])


@_jit
def _plane_vertex_contribution(permutation, gradients, i, j, v, w, x, y):
    """The contribution of vertex (v, w) of the square (i, j) at (x, y) from its corner."""
    back = (v + w) * SQUISH2
    dx, dy = x - v - back, y - w - back
    bump = 2 - dx * dx - dy * dy
    if bump <= 0:
        return 0.0
    p = np.uint64(permutation[np.uint64(i + v & 255)] + j + w & 255)
    bump *= bump
    return bump * bump * (gradients[p, 0] * dx + gradients[p, 1] * dy)


@_jit
def _fill_plane_rows(values, start, H, tables, gradients, waves, amplitudes, offset):
    """Add to rows as `_fill_field_rows`, in two dimensions, a point at a time: four vertices are
    soon added up."""
    for r in range(values.shape[0]):
        b, h = (start + r) // H, (start + r) % H
        permutation, slopes = tables[b], gradients[b]
        for o in range(len(waves)):
            y = h / waves[o] + offset[b, o, 1]
            for w in range(values.shape[1]):
                x = w / waves[o] + offset[b, o, 0]
                skew = (x + y) * STRETCH2
                xs, ys = x + skew, y + skew
                xf, yf = np.floor(xs), np.floor(ys)
                back = (xf + yf) * SQUISH2
                dx, dy = x - (xf + back), y - (yf + back)
                xs, ys = xs - xf, ys - yf
                i, j, u = np.int64(xf), np.int64(yf), np.int64(xs + ys > 1)
                opposite = 1 + u - (xs + ys)
                aside = opposite < max(xs, ys) if u else opposite > min(xs, ys)
                far, near = (1 + u, u - 1) if xs > ys else (u - 1, 1 + u)
                far, near = (far, near) if aside else (1 - u, 1 - u)
                value = _plane_vertex_contribution(permutation, slopes, i, j, 1, 0, dx, dy)
                value += _plane_vertex_contribution(permutation, slopes, i, j, 0, 1, dx, dy)
                value += _plane_vertex_contribution(permutation, slopes, i, j, u, u, dx, dy)
                value += _plane_vertex_contribution(permutation, slopes, i, j, far, near, dx, dy)
                values[r, w] += amplitudes[o] * (value / NORM2)
