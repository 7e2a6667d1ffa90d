"""The circumstances of a computation: the one place in adbench that names a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from .distributed import SINGLE_PROCESS, Team


class Interrupted(Exception):
    """Asked to stop; everything needed to go on has been kept."""


class StateStore(Protocol):
    """Where half-finished work survives a kill. Engine code knows no files; the benchmark does."""

    def load(self, name: str) -> Mapping[str, Tensor] | None: ...
    def save(self, name: str, state: Mapping[str, Tensor]) -> None: ...


class Stage(Protocol):
    """A part of a training that does not depend on what follows it, so that methods may share it.

    settings: all that it depends on besides the data, the seed and `module` as it is before
    """

    @property
    def name(self) -> str: ...
    @property
    def module(self) -> nn.Module: ...
    def settings(self) -> Mapping[str, object]: ...


SharedStageCache = Callable[[Stage, Callable[[], None]], None]
"""(stage, learn): have the stage's module as `learn` leaves it, by calling that or otherwise."""


class BatchedModule(nn.Module):
    """Holds a network, `net`, that is only ever shown `batch` rows at a time at inference."""

    batch: int = 8


class NullStateStore:
    """Keeps nothing."""

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return None

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        pass


def _ignore_event(event: str, facts: Mapping[str, float]) -> None:
    pass


def _train_stage(stage: Stage, train: Callable[[], None]) -> None:
    train()


@dataclass(frozen=True)
class TrainingContext:
    """They may change the speed of a run, never what is being measured; so dtype and seed, which
    do, are in the identity of a result, and the rest is not.

    dtype: what networks compute in (autocast); weights and sampler state stay float32
    compile: let torch.compile make the networks faster; not worth it on a CPU
    batch: rows per network call at inference: one fixed, padded shape
    micro: rows per forward and backward in training, None for a step's whole batch; the gradient
        is the whole batch's either way
    workers: processes that read samples ahead in training, 0 for none, None for what fits the
        device
    team: the processes that train together, each on its rows of every batch
    shared_stages: where finished stages of a training lie, from this method or another
    on_event: is told (event, facts) as work goes on
    stop: asked between steps; true means: keep what there is and raise Interrupted
    checkpoint_interval: seconds between two keeps; event_interval: between two tellings of training
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    seed: int = 0
    batch: int = 8
    micro: int | None = None
    workers: int | None = None
    team: Team = SINGLE_PROCESS
    state_store: StateStore = field(default_factory=NullStateStore)
    shared_stages: SharedStageCache = _train_stage
    on_event: Callable[[str, Mapping[str, float]], None] = _ignore_event
    stop: Callable[[], bool] = bool
    checkpoint_interval: float = 20.0
    event_interval: float = 0.5

    @property
    def kind(self) -> str:
        """Of the device: "cpu", "cuda"."""
        return torch.device(self.device).type

    @property
    def num_workers(self) -> int:
        """How many processes read samples: none beside a CPU, which has enough to do."""
        if self.workers is not None:
            return self.workers
        cores = (os.cpu_count() or 1) // self.team.size
        return min(4, max(cores - 1, 0)) if self.kind == "cuda" else 0

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.kind, self.dtype, enabled=self.dtype != torch.float32)

    def for_rank(self) -> TrainingContext:
        """As it is for the first process of a team; for the others without keeping and telling."""
        return (
            replace(self, state_store=NullStateStore(), on_event=_ignore_event)
            if self.team.rank
            else self
        )

    def free(self) -> None:
        """Give back to the device what torch holds and nobody uses."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory layout its convolutions like, and compile
        the networks in it if asked to. No name in its state dict changes."""
        module.to(self.device)
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.to(memory_format=torch.channels_last)  # 1.1-1.3x on a CPU, more on a GPU
            if isinstance(part, BatchedModule):
                part.batch = self.batch
                net = getattr(part, "net", None)
                if self.compile and isinstance(net, nn.Module) and not net._compiled_call_impl:
                    net.compile(dynamic=False)  # in place; shapes are few and fixed
        return module
