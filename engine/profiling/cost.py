"""The cost of a computation, measured: evaluations, FLOPs, seconds, memory."""

from __future__ import annotations

import copy
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Denoiser
from ..runtime.context import BatchedModule


@dataclass
class CostMeter:
    """A context that measures seconds and evaluations: rows of the denoisers' calls, not padding.

    module: whose denoisers are counted

    >>> from adbench.engine.profiling.cost import CostMeter
    >>> from torch import nn
    >>> with CostMeter(nn.Linear(1, 1)) as meter:
    ...     pass
    >>> meter.evaluations
    0
    """

    module: nn.Module
    seconds: float = 0.0
    evaluations: int = 0

    def __enter__(self) -> CostMeter:
        synchronize(_module_device(self.module))
        self._before, self._start = _count_evaluations(self.module), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronize(_module_device(self.module))
        self.seconds += time.perf_counter() - self._start
        self.evaluations += _count_evaluations(self.module) - self._before


class FlopCount(NamedTuple):
    """Floating-point operations of a computation.

    flops: of everything
    denoiser_flops: of the denoisers' networks alone
    evaluations: of these networks, rows without padding

    >>> from adbench.engine.profiling.cost import FlopCount
    >>> FlopCount(flops=300, denoiser_flops=200, evaluations=4).flops_per_evaluation
    50.0
    """

    flops: int
    denoiser_flops: int
    evaluations: int

    @property
    def flops_per_evaluation(self) -> float:
        """FLOPs of the denoisers' networks in one evaluation."""
        return self.denoiser_flops / max(self.evaluations, 1)


def count_flops(module: nn.Module, work: Callable[[], object]) -> FlopCount:
    """Count the floating-point operations of `work` while it is done: convolutions, matrix products
    and attention, of any network, two per multiply-add.

    Networks compute one row at a time meanwhile, so that padding does not count, and without
    compilation.

    module: that the work uses
    work: is called once

    >>> import torch
    >>> from adbench.engine.profiling.cost import count_flops
    >>> from torch import nn
    >>> net = nn.Linear(3, 2)
    >>> count_flops(net, lambda: net(torch.ones(1, 3))).flops
    12
    """
    from .flop_counter import FlopCounter

    counter, denoiser_flops = FlopCounter(), 0

    def before_call(net: nn.Module, inputs: object) -> None:
        nonlocal denoiser_flops
        denoiser_flops -= counter.total

    def after_call(net: nn.Module, inputs: object, output: object) -> None:
        nonlocal denoiser_flops
        denoiser_flops += counter.total

    evaluations = _count_evaluations(module)
    eager = torch.compiler.set_stance("force_eager")
    with (
        _network_hooks(module, before_call, after_call),
        single_row_batches(module),
        eager,
        counter,
    ):
        work()
    evaluations = _count_evaluations(module) - evaluations
    return FlopCount(counter.total, denoiser_flops, evaluations)


class BatchUtilization(NamedTuple):
    """How well a computation used the denoisers' networks; the shares are 0 without a denoiser.

    rows: of the networks' calls, with padding
    filled_share: share of these rows that is no padding
    network_share: share of the seconds that the networks took

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.profiling.cost import measure_utilization
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule()).eval()
    >>> work = lambda: denoiser(torch.ones(3, 1, 4), torch.tensor([1, 2, 3]))
    >>> utilization = measure_utilization(denoiser, work)
    >>> utilization.rows, utilization.filled_share  # three samples in a batch of eight
    (8, 0.375)
    """

    rows: int
    filled_share: float
    network_share: float


def measure_utilization(module: nn.Module, work: Callable[[], object]) -> BatchUtilization:
    """Measure how well `work` uses the denoisers' networks, without compilation, and waiting for
    the device at every call.

    module: that the work uses
    work: is called once

    >>> from adbench.engine.profiling.cost import measure_utilization
    >>> from torch import nn
    >>> measure_utilization(nn.Linear(1, 1), lambda: None).rows
    0
    """
    device, rows, network_seconds = _module_device(module), 0, 0.0

    def before_call(net: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal rows, network_seconds
        synchronize(device)
        rows += len(inputs[0])
        network_seconds -= time.perf_counter()

    def after_call(net: nn.Module, inputs: object, output: object) -> None:
        nonlocal network_seconds
        synchronize(device)
        network_seconds += time.perf_counter()

    eager = torch.compiler.set_stance("force_eager")
    with _network_hooks(module, before_call, after_call), eager, CostMeter(module) as meter:
        work()
    filled_share = meter.evaluations / max(rows, 1)
    return BatchUtilization(rows, filled_share, network_seconds / meter.seconds)


@contextmanager
def _network_hooks(
    module: nn.Module, before_call: Callable[..., None], after_call: Callable[..., None]
) -> Iterator[None]:
    """A context with functions before and after each call of a denoiser's network."""
    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, Denoiser):
                net = part.net_in_use()
                stack.callback(net.register_forward_pre_hook(before_call).remove)
                stack.callback(net.register_forward_hook(after_call).remove)
        yield


@contextmanager
def single_row_batches(module: nn.Module) -> Iterator[None]:
    """Return a context in which the networks of `module` compute one row at a time.

    module: its batches are restored afterwards

    >>> from adbench.engine.profiling.cost import single_row_batches
    >>> from adbench.engine.runtime.context import BatchedModule
    >>> part = BatchedModule()
    >>> with single_row_batches(part):
    ...     print(part.batch)
    1
    """
    sizes = [(part, part.batch) for part in module.modules() if isinstance(part, BatchedModule)]
    try:
        for part, _ in sizes:
            part.batch = 1
        yield
    finally:
        for part, size in sizes:
            part.batch = size


def time_interleaved(
    workloads: Sequence[Callable[[], object]], rounds: int, device: str
) -> list[list[float]]:
    """Measure the seconds of every workload in every round, (workloads, rounds).

    Rounds are interleaved and each begins with another workload, so that other processes slow all
    of them alike; compare within rounds.

    workloads: each is called once a round
    rounds: number of them
    device: that is waited for

    >>> from adbench.engine.profiling.cost import time_interleaved
    >>> len(time_interleaved([lambda: None, lambda: None], rounds=3, device="cpu"))
    2
    """
    seconds = [[0.0] * rounds for _ in workloads]
    for r in range(rounds):
        for i in range(len(workloads)):
            index = (i + r) % len(workloads)
            synchronize(device)
            start = time.perf_counter()
            workloads[index]()
            synchronize(device)
            seconds[index][r] = time.perf_counter() - start
    return seconds


class PeakMemory:
    """A context that measures the peak of memory in use, MB.

    On a GPU all that torch allocated. On a CPU the growth of the process's resident memory: exact
    where a process may reset its peak (Linux); elsewhere the growth of the peak since the process
    began, which is 0 if it was higher before.

    device: whose memory

    >>> from adbench.engine.profiling.cost import PeakMemory
    >>> with PeakMemory() as memory:
    ...     pass
    >>> memory.peak >= 0
    True
    """

    peak: float = 0.0

    def __init__(self, device: str = "cpu") -> None:
        self.device, self._before = device, 0.0

    def __enter__(self) -> PeakMemory:
        if torch.device(self.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present use
            self._before = peak_memory("cpu")
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = max(peak_memory(self.device) - self._before, 0.0)


def reset_peak_memory(device: str) -> None:
    """Begin anew with the peak of a GPU's memory, so that no experiment reports another's.

    device: of torch; a process's own memory is not reset

    >>> from adbench.engine.profiling.cost import reset_peak_memory
    >>> reset_peak_memory("cpu")
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> float:
    """Return the peak of memory in use so far, MB: the GPU's since the last reset, or this
    process's.

    device: "cpu" or a GPU

    >>> from adbench.engine.profiling.cost import peak_memory
    >>> peak_memory("cpu") > 0
    True
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def evaluation_flops(net: nn.Module, channels: int, shape: Sequence[int]) -> int:
    """Count the floating-point operations of one evaluation of a network for one sample, without
    computing it: convolutions, matrix products and attention, two per multiply-add.

    net: (x, timesteps) -> prediction
    channels, shape: of the sample, (C, *S)

    >>> from adbench.engine.profiling.cost import evaluation_flops
    >>> from torch import nn
    >>> class Net(nn.Linear):
    ...     def forward(self, x, timesteps):
    ...         return super().forward(x)
    >>> evaluation_flops(Net(4, 4), 1, [4])
    32
    """
    from .flop_counter import FlopCounter

    meta_net = copy.deepcopy(net).to("meta").eval()
    x = torch.empty(1, channels, *shape, device="meta")
    with FlopCounter() as counter, torch.no_grad():
        meta_net(x, torch.zeros(1, dtype=torch.int64, device="meta"))
    return counter.total


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module.

    module: any

    >>> from adbench.engine.profiling.cost import count_parameters
    >>> from torch import nn
    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters())


def synchronize(device: str | torch.device) -> None:
    """Wait until a GPU has finished all its work; nothing on a CPU.

    device: to wait for

    >>> from adbench.engine.profiling.cost import synchronize
    >>> synchronize("cpu")
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: str) -> str:
    """Return the name of a device's model.

    device: "cpu" or a GPU

    >>> from adbench.engine.profiling.cost import device_name
    >>> len(device_name("cpu")) > 0
    True
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _count_evaluations(module: nn.Module) -> int:
    return sum(part.evaluations for part in module.modules() if isinstance(part, Denoiser))


def _module_device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
