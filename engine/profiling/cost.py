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
from ..runtime.run import Batched


@dataclass
class Meter:
    """Counts between entering and leaving; evaluations are rows of network calls, not padding."""

    module: nn.Module
    seconds: float = 0.0
    evaluations: int = 0

    def __enter__(self) -> Meter:
        settle(_device(self.module))
        self._before, self._start = _evaluations(self.module), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        settle(_device(self.module))
        self.seconds += time.perf_counter() - self._start
        self.evaluations += _evaluations(self.module) - self._before


class Price(NamedTuple):
    """flops: of everything; denoising: of the denoisers' networks alone, which made so many
    evaluations."""

    flops: int
    denoising: int
    evaluations: int

    @property
    def each(self) -> float:
        """FLOPs of the denoisers' networks in one evaluation."""
        return self.denoising / max(self.evaluations, 1)


def priced(module: nn.Module, work: Callable[[], object]) -> Price:
    """The floating-point operations of `work`, which uses `module`, by counting while it is done:
    convolutions, matrix products and attention, of whatever network, two per multiply-add.

    Networks are shown one row at a time meanwhile, for padding is no work; and nothing compiled.
    """
    from .flop_counter import Flops

    counter, denoising = Flops(), 0

    def begun(net: nn.Module, given: object) -> None:
        nonlocal denoising
        denoising -= counter.total

    def ended(net: nn.Module, given: object, made: object) -> None:
        nonlocal denoising
        denoising += counter.total

    before = _evaluations(module)
    eager = torch.compiler.set_stance("force_eager")
    with _hooked(module, begun, ended), one_by_one(module), eager, counter:
        work()
    return Price(counter.total, denoising, _evaluations(module) - before)


class Shown(NamedTuple):
    """What a pass did with its time. rows: that the denoisers' networks were shown, padding and
    all; filled: the share of them that was no padding; within: the share of the seconds that the
    networks took. The shares are 0 where there is no denoiser."""

    rows: int
    filled: float
    within: float


def shown_rows(module: nn.Module, work: Callable[[], object]) -> Shown:
    """Of `work`, done without anything compiled, and waiting for the device at every call."""
    device, rows, within = _device(module), 0, 0.0

    def begun(net: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal rows, within
        settle(device)
        rows, within = rows + len(given[0]), within - time.perf_counter()

    def ended(net: nn.Module, given: object, made: object) -> None:
        nonlocal within
        settle(device)
        within += time.perf_counter()

    eager = torch.compiler.set_stance("force_eager")
    with _hooked(module, begun, ended), eager, Meter(module) as meter:
        work()
    return Shown(rows, meter.evaluations / max(rows, 1), within / meter.seconds)


@contextmanager
def _hooked(
    module: nn.Module, begun: Callable[..., None], ended: Callable[..., None]
) -> Iterator[None]:
    """Calls of the denoisers' networks are told of, before and after."""
    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, Denoiser):
                stack.callback(part.net.register_forward_pre_hook(begun).remove)
                stack.callback(part.net.register_forward_hook(ended).remove)
        yield


@contextmanager
def one_by_one(module: nn.Module) -> Iterator[None]:
    """Networks of `module` are shown one row at a time in here."""
    sizes = [(part, part.batch) for part in module.modules() if isinstance(part, Batched)]
    try:
        for part, _ in sizes:
            part.batch = 1
        yield
    finally:
        for part, size in sizes:
            part.batch = size


def paired(works: Sequence[Callable[[], object]], rounds: int, device: str) -> list[list[float]]:
    """Seconds of every work in every round, (works, rounds). Rounds are interleaved, each begins
    with another work, so that a busy neighbour slows all of them alike; compare within rounds."""
    seconds = [[0.0] * rounds for _ in works]
    for r in range(rounds):
        for i in range(len(works)):
            which = (i + r) % len(works)
            settle(device)
            start = time.perf_counter()
            works[which]()
            settle(device)
            seconds[which][r] = time.perf_counter() - start
    return seconds


class Memory:
    """The most memory that was in use between entering and leaving, MB.

    On a GPU all that torch had allocated. On a CPU how far what the process had resident grew:
    exact where a process may reset its peak (Linux); elsewhere the growth of the peak since the
    process began, which is 0 if it was higher before.
    """

    peak: float = 0.0

    def __init__(self, device: str = "cpu") -> None:
        self.device, self._before = device, 0.0

    def __enter__(self) -> Memory:
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


def flops(net: nn.Module, channels: int, shape: Sequence[int]) -> int:
    """Floating-point operations of one network evaluation of one sample (C, *S): convolutions,
    matrix products and attention, two per multiply-add. Counted without computing."""
    from .flop_counter import Flops

    twin = copy.deepcopy(net).to("meta").eval()
    x = torch.empty(1, channels, *shape, device="meta")
    with Flops() as counter, torch.no_grad():
        twin(x, torch.zeros(1, dtype=torch.int64, device="meta"))
    return counter.total


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def settle(device: str | torch.device) -> None:
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


def _evaluations(module: nn.Module) -> int:
    return sum(part.evaluations for part in module.modules() if isinstance(part, Denoiser))


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
