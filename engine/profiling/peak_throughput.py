"""What a machine can do at best: matrix products and convolutions of sizes that suit it, timed.

A network's speed says little by itself; its share of this peak says how much is left to gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from .cost import synchronize

MATRIX_SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
"""Sides of the square matrices that are multiplied."""

CONVOLUTION_SHAPES = {
    "cpu": ((8, 64, 64), (8, 128, 32)),
    "cuda": ((64, 128, 64), (64, 256, 64), (256, 512, 32)),
}
"""(batch, channels, side) of what a 3 x 3 convolution is made on, channels last."""


class PeakThroughput(NamedTuple):
    """flops: the best rate, FLOP/s; rates: of every shape, by name."""

    flops: float
    rates: dict[str, float]


class Workload(NamedTuple):
    flops: int
    run: Callable[[], Tensor]


def measure_peak(device: str, dtype: torch.dtype, seconds: float = 0.5) -> PeakThroughput:
    """The best rate of any shape and repeat, each shape repeated for so many seconds."""
    with torch.no_grad():
        rates = {
            name: _best_rate(work, device, seconds)
            for name, work in workloads(device, dtype).items()
        }
    return PeakThroughput(max(rates.values()), rates)


def workloads(device: str, dtype: torch.dtype) -> dict[str, Workload]:
    """Two floating-point operations per multiply-add, which for a convolution with its border
    padded is how FLOPs of networks are counted, too. Values are random: of equal ones a GPU is
    faster than it ever is at work."""
    kind, made = torch.device(device).type, {}
    rng = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, device=device).to(dtype)

    for n in MATRIX_SIDES.get(kind, MATRIX_SIDES["cpu"]):
        a, b = drawn(n, n), drawn(n, n)
        made[f"matmul {n}"] = Workload(2 * n**3, partial(torch.mm, a, b))
    for count, channels, side in CONVOLUTION_SHAPES.get(kind, CONVOLUTION_SHAPES["cpu"]):
        x, weight = drawn(count, channels, side, side), drawn(channels, channels, 3, 3)
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        flops = 2 * count * side**2 * channels**2 * 9
        made[f"conv {count}x{channels}x{side}x{side}"] = Workload(
            flops, partial(conv2d, x, weight, padding=1)
        )
    return made


def _best_rate(work: Workload, device: str, seconds: float) -> float:
    """FLOP/s of the fastest of at least three calls, behind one that does not count."""
    work.run()
    synchronize(device)
    end, took = time.perf_counter() + seconds, list[float]()
    while len(took) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work.run()
        synchronize(device)
        took.append(time.perf_counter() - start)
    return work.flops / min(took)
