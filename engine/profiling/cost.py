"""What a computation costs, counted rather than declared: evaluations, FLOPs, seconds, memory."""

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
    """Counts between entering and leaving; evaluations are rows of network calls, not padding."""

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
    """flops: of everything; denoiser_flops: of the denoisers' networks alone, which made so many
    evaluations."""

    flops: int
    denoiser_flops: int
    evaluations: int

    @property
    def flops_per_evaluation(self) -> float:
        """FLOPs of the denoisers' networks in one evaluation."""
        return self.denoiser_flops / max(self.evaluations, 1)


def count_flops(module: nn.Module, work: Callable[[], object]) -> FlopCount:
    """The floating-point operations of `work`, which uses `module`, by counting while it is done:
    convolutions, matrix products and attention, of whatever network, two per multiply-add.

    Networks are shown one row at a time meanwhile, for padding is no work; and nothing compiled.
    """
    from .flop_counter import FlopCounter

    counter, denoising = FlopCounter(), 0

    def begun(net: nn.Module, given: object) -> None:
        nonlocal denoising
        denoising -= counter.total

    def ended(net: nn.Module, given: object, made: object) -> None:
        nonlocal denoising
        denoising += counter.total

    before = _count_evaluations(module)
    eager = torch.compiler.set_stance("force_eager")
    with _network_hooks(module, begun, ended), single_row_batches(module), eager, counter:
        work()
    return FlopCount(counter.total, denoising, _count_evaluations(module) - before)


class BatchUtilization(NamedTuple):
    """What a pass did with its time. rows: that the denoisers' networks were shown, padding and
    all; filled_share: the share of them that was no padding; network_share: the share of the
    seconds that the
    networks took. The shares are 0 where there is no denoiser."""

    rows: int
    filled_share: float
    network_share: float


def measure_utilization(module: nn.Module, work: Callable[[], object]) -> BatchUtilization:
    """Of `work`, done without anything compiled, and waiting for the device at every call."""
    device, rows, within = _module_device(module), 0, 0.0

    def begun(net: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal rows, within
        synchronize(device)
        rows, within = rows + len(given[0]), within - time.perf_counter()

    def ended(net: nn.Module, given: object, made: object) -> None:
        nonlocal within
        synchronize(device)
        within += time.perf_counter()

    eager = torch.compiler.set_stance("force_eager")
    with _network_hooks(module, begun, ended), eager, CostMeter(module) as meter:
        work()
    return BatchUtilization(rows, meter.evaluations / max(rows, 1), within / meter.seconds)


@contextmanager
def _network_hooks(
    module: nn.Module, before_call: Callable[..., None], after_call: Callable[..., None]
) -> Iterator[None]:
    """Calls of the denoisers' networks are told of, before and after."""
    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, Denoiser):
                stack.callback(part.net.register_forward_pre_hook(before_call).remove)
                stack.callback(part.net.register_forward_hook(after_call).remove)
        yield


@contextmanager
def single_row_batches(module: nn.Module) -> Iterator[None]:
    """Networks of `module` are shown one row at a time in here."""
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
    """Seconds of every work in every round, (works, rounds). Rounds are interleaved, each begins
    with another work, so that a busy neighbour slows all of them alike; compare within rounds."""
    seconds = [[0.0] * rounds for _ in workloads]
    for r in range(rounds):
        for i in range(len(workloads)):
            which = (i + r) % len(workloads)
            synchronize(device)
            start = time.perf_counter()
            workloads[which]()
            synchronize(device)
            seconds[which][r] = time.perf_counter() - start
    return seconds


class PeakMemory:
    """The most memory that was in use between entering and leaving, MB.

    On a GPU all that torch had allocated. On a CPU how far what the process had resident grew:
    exact where a process may reset its peak (Linux); elsewhere the growth of the peak since the
    process began, which is 0 if it was higher before.
    """

    peak: float = 0.0

    def __init__(self, device: str = "cpu") -> None:
        self.device, self._before = device, 0.0

    def __enter__(self) -> PeakMemory:
        if torch.device(self.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
            self._before = peak_memory("cpu")
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = max(peak_memory(self.device) - self._before, 0.0)


def peak_memory(device: str) -> float:
    """The most memory in use so far, MB: the GPU's since start, or this process's."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def evaluation_flops(net: nn.Module, channels: int, shape: Sequence[int]) -> int:
    """Floating-point operations of one network evaluation of one sample (C, *S): convolutions,
    matrix products and attention, two per multiply-add. Counted without computing."""
    from .flop_counter import FlopCounter

    twin = copy.deepcopy(net).to("meta").eval()
    x = torch.empty(1, channels, *shape, device="meta")
    with FlopCounter() as counter, torch.no_grad():
        twin(x, torch.zeros(1, dtype=torch.int64, device="meta"))
    return counter.total


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done all it was asked to."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: str) -> str:
    """What the maker calls it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _count_evaluations(module: nn.Module) -> int:
    return sum(part.evaluations for part in module.modules() if isinstance(part, Denoiser))


def _module_device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
