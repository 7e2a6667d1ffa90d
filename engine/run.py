"""The circumstances of a computation: the one place in adbench that names a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


class Interrupted(Exception):
    """Asked to stop; everything needed to go on has been kept."""


class Keep(Protocol):
    """Where half-finished work survives a kill. Engine code knows no files; the benchmark does."""

    def load(self, name: str) -> Mapping[str, Tensor] | None: ...
    def save(self, name: str, state: Mapping[str, Tensor]) -> None: ...


class Batched(nn.Module):
    """Holds a network that is only ever shown `batch` rows at a time at inference."""

    batch: int = 8


class Forget:
    """Keeps nothing."""

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return None

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        pass


def _nothing(event: str, facts: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """They may change the speed of a run, never what is being measured; so dtype and seed, which
    do, are in the identity of a result, and the rest is not.

    dtype: what networks compute in (autocast); weights and sampler state stay float32
    batch: rows per network call at inference: one fixed, padded shape (DESIGN section 7)
    tell: is told (event, facts) as work goes on
    stop: asked between steps; true means: keep what there is and raise Interrupted
    every: seconds between two keeps
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    seed: int = 0
    batch: int = 8
    keep: Keep = field(default_factory=Forget)
    tell: Callable[[str, Mapping[str, float]], None] = _nothing
    stop: Callable[[], bool] = bool
    every: float = 20.0

    def autocast(self) -> AbstractContextManager[object]:
        kind = torch.device(self.device).type
        return torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory layout its convolutions like."""
        module.to(self.device)
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.to(memory_format=torch.channels_last)  # 1.1-1.3x on a CPU, more on a GPU
            if isinstance(part, Batched):
                part.batch = self.batch
        return module
