"""The peak throughput of a machine: matrix products and convolutions of sizes that suit it, timed.

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
"""(batch, channels, side) of the inputs of a 3 x 3 convolution, channels last."""


class PeakThroughput(NamedTuple):
    """The best rates of a machine.

    flops: the best of all, FLOP/s
    rates: of every shape, by name

    >>> import torch
    >>> from adbench.engine.profiling.peak_throughput import measure_peak
    >>> peak = measure_peak("cpu", torch.float32, seconds=0.0)
    >>> peak.flops == max(peak.rates.values())
    True
    """

    flops: float
    rates: dict[str, float]


class Workload(NamedTuple):
    """An operation to time, and its floating-point operations.

    >>> import torch
    >>> from adbench.engine.profiling.peak_throughput import Workload
    >>> a = torch.ones(4, 4)
    >>> work = Workload(flops=2 * 4**3, run=lambda: a @ a)
    >>> work.flops, work.run()[0, 0]
    (128, tensor(4.))
    """

    flops: int
    run: Callable[[], Tensor]


def measure_peak(device: str, dtype: torch.dtype, seconds: float = 0.5) -> PeakThroughput:
    """Measure the rates of all workloads and return the best of each and of all, in FLOP/s.

    device, dtype: of the operations
    seconds: for which each shape is repeated

    >>> import torch
    >>> from adbench.engine.profiling.peak_throughput import measure_peak
    >>> measure_peak("cpu", torch.float32, seconds=0.0).flops > 0
    True
    """
    with torch.no_grad():
        rates = {
            name: _best_rate(work, device, seconds)
            for name, work in workloads(device, dtype).items()
        }
    return PeakThroughput(max(rates.values()), rates)


def workloads(device: str, dtype: torch.dtype) -> dict[str, Workload]:
    """Return the operations that are timed, by name.

    Two floating-point operations per multiply-add, also at a convolution's padded border, as FLOPs
    of networks are counted. Values are random: with equal ones a GPU is faster than it ever is in
    practice.

    device, dtype: of the tensors

    >>> import torch
    >>> from adbench.engine.profiling.peak_throughput import workloads
    >>> list(workloads("cpu", torch.float32))[0]
    'matmul 512'
    """
    kind, result = torch.device(device).type, {}
    rng = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, device=device).to(dtype)

    for n in MATRIX_SIDES.get(kind, MATRIX_SIDES["cpu"]):
        a, b = random(n, n), random(n, n)
        result[f"matmul {n}"] = Workload(2 * n**3, partial(torch.mm, a, b))
    for count, channels, side in CONVOLUTION_SHAPES.get(kind, CONVOLUTION_SHAPES["cpu"]):
        x, weight = random(count, channels, side, side), random(channels, channels, 3, 3)
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        flops = 2 * count * side**2 * channels**2 * 9
        result[f"conv {count}x{channels}x{side}x{side}"] = Workload(
            flops, partial(conv2d, x, weight, padding=1)
        )
    return result


def _best_rate(work: Workload, device: str, seconds: float) -> float:
    """FLOP/s of the fastest of at least three calls, after one that does not count."""
    work.run()
    synchronize(device)
    end, durations = time.perf_counter() + seconds, list[float]()
    while len(durations) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work.run()
        synchronize(device)
        durations.append(time.perf_counter() - start)
    return work.flops / min(durations)
