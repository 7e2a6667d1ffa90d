"""The compiled loop behind simplex.py; apart, so that numba is imported when a field is drawn.

It is entered by as many threads as torch has: numba's own pools spin between calls, and survive
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

from .simplex import COUNT, GRADIENTS, NORM, SQUISH, STRETCH, VERTICES, Octaves

SHARE = 2**15
"""Values of single octaves below which one more thread costs more than it brings."""


def by_loop(
    tables: NDArray[np.int64],
    shape: Sequence[int],
    octaves: Octaves,
    depth: Tensor,
    offset: Tensor,
) -> Tensor:
    """What `simplex.by_tensors` makes, to the last bit; on a CPU."""
    D, H, W = shape
    made = np.zeros((len(tables) * D * H, W))
    steps = np.concatenate([VERTICES, VERTICES.sum(2, keepdims=True) * SQUISH], 2)
    given = (
        (D, H), tables, GRADIENTS[tables % 24], VERTICES, steps, COUNT,
        np.array(octaves.wavelengths), np.array(octaves.heights),
        np.ascontiguousarray(depth), np.ascontiguousarray(offset),
    )  # fmt: skip

    def share(start: int, stop: int) -> None:
        _rows(made[start:stop], start, *given)

    threads = min(torch.get_num_threads(), made.size * len(octaves.heights) // SHARE)
    if threads < 2:
        share(0, len(made))
    else:
        edges = [len(made) * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(share, edges[:-1], edges[1:]))
    return torch.from_numpy(made).view(len(tables), D, H, W)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """With IEEE arithmetic, nothing fused or reordered; kept on disk if numba finds a folder."""
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # it found none that it may write to
        return numba.njit(nogil=True, error_model="numpy")(function)


@_compiled
def permutations(seeds):
    """(B,) int64 -> (B, 256): the shuffle that opensimplex makes of each seed."""
    made = np.empty((len(seeds), 256), np.int64)
    for b in range(len(seeds)):
        source, state = np.arange(256), seeds[b]
        for i in range(258, -1, -1):  # three steps to warm up
            state = state * 6364136223846793005 + 1442695040888963407  # which wraps
            if i < 256:
                pick = (state % (i + 1) + 31) % (i + 1)  # of state + 31, were that not to wrap
                made[b, i] = source[pick]
                source[pick] = source[i]
    return made


@_compiled
def _code(x, y, z):
    """`simplex._code` for one place."""
    total = x + y + z
    if total <= 1:
        a, first, b, second = x, 1, y, 2
        if x >= y and z > y:
            b, second = z, 4
        elif x < y and z > x:
            a, first = z, 4
        if 1 - total > a or 1 - total > b:
            return second if b > a else first
        return first | second
    if total >= 2:
        a, first, b, second = x, 6, y, 5
        if x <= y and z < y:
            b, second = z, 3
        elif x > y and z < x:
            a, first = z, 3
        if 3 - total < a or 3 - total < b:
            return 8 + (second if b < a else first)
        return 8 + (first & second)
    a, first = abs(x + y - 1), 3 if x + y > 1 else 4
    b, second = abs(x + z - 1), 5 if x + z > 1 else 2
    c, third = abs(y + z - 1), 6 if y + z > 1 else 1
    if a <= b and a < c:
        first = third
    elif a > b and b < c:
        second = third
    return 16 + 8 * first + second


@_compiled
def _rows(made, start, size, table, slope, vertices, steps, count, waves, heights, depth, offset):
    """Add to rows (R, W), the first of which is row `start` of all samples' planes. Octaves go
    outside, as in the long ones neighbours take the same branches."""
    D, H = size
    for r in range(made.shape[0]):
        row = start + r
        b, d, h = row // (D * H), row // H % D, row % H
        perm, gradient = table[b], slope[b]
        for o in range(len(waves)):
            for w in range(made.shape[1]):
                x = w / waves[o] + offset[b, o, 0]
                y = h / waves[o] + offset[b, o, 1]
                z = depth[b, d] / waves[o] + offset[b, o, 2]
                skew = (x + y + z) * STRETCH
                xs, ys, zs = x + skew, y + skew, z + skew
                xf, yf, zf = np.floor(xs), np.floor(ys), np.floor(zs)
                back = (xf + yf + zf) * SQUISH
                x, y, z = x - (xf + back), y - (yf + back), z - (zf + back)
                xi, yi, zi = int(xf), int(yf), int(zf)
                code = _code(xs - xf, ys - yf, zs - zf)
                value = 0.0
                for n in range(count[code]):
                    back = steps[code, n, 3]
                    dx = x - steps[code, n, 0] - back
                    dy = y - steps[code, n, 1] - back
                    dz = z - steps[code, n, 2] - back
                    bump = max(2 - dx * dx - dy * dy - dz * dz, 0.0)
                    bump *= bump
                    i, j, k = vertices[code, n, 0], vertices[code, n, 1], vertices[code, n, 2]
                    g = (perm[(perm[(xi + i) & 255] + yi + j) & 255] + zi + k) & 255
                    along = gradient[g, 0] * dx + gradient[g, 1] * dy + gradient[g, 2] * dz
                    value += bump * bump * along
                made[r, w] += heights[o] * (value / NORM)
