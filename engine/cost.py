"""What a computation costs, counted rather than declared: evaluations, FLOPs, seconds, memory."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .denoiser import Denoiser


@dataclass
class Meter:
    """Counts between entering and leaving; evaluations are rows of network calls, not padding."""

    module: nn.Module
    seconds: float = 0.0
    evaluations: int = 0

    def __enter__(self) -> Meter:
        self._before, self._start = _evaluations(self.module), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
        self.evaluations += _evaluations(self.module) - self._before


def flops(net: nn.Module, channels: int, shape: Sequence[int]) -> int:
    """Floating-point operations of one network evaluation of one sample (C, *S): convolutions,
    matrix products and attention, two per multiply-add. Counted without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    twin = copy.deepcopy(net).to("meta").eval()
    x = torch.empty(1, channels, *shape, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(x, torch.zeros(1, dtype=torch.int64, device="meta"))
    return counter.get_total_flops()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def peak_memory(device: str) -> float:
    """The most memory in use so far, MB: the GPU's since start, or this process's."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _evaluations(module: nn.Module) -> int:
    return sum(part.evaluations for part in module.modules() if isinstance(part, Denoiser))
