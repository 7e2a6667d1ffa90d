"""The device a computation runs on and how it is executed; the only module that names a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .compilation import compile_network, compiles, is_compiled
from .determinism import make_cuda_deterministic
from .distributed import SINGLE_PROCESS, Team
from .learning_curve import CurveHandler, ignore_curve
from .memory_format import memory_format
from .precision import LowPrecisionModule
from .setting_types import CompileMode

NUMERICS = ("float32", "tf32", "bfloat16")
"""What networks can compute in; tf32 is float32 whose products a GPU rounds."""


class Interrupted(Exception):
    """The caller asked to stop; everything needed to resume has been saved.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.runtime.context import Interrupted, TrainingContext
    >>> from adbench.engine.training.loop import Training, train_module
    >>> net, data = torch.nn.Linear(1, 1), [SimpleNamespace(x=torch.ones(1), label=False)]
    >>> context, plan = TrainingContext(stop=lambda: True), Training(steps=2, batch=1, lr=0.1)
    >>> try:
    ...     train_module(lambda x, label, rng: net(x)[:, 0], net, data, context, plan)
    ... except Interrupted as error:
    ...     print(error)
    stopped at training step 0 of 2; everything is saved
    """


class StateStore(Protocol):
    """Where unfinished work survives a kill. Engine code knows no files; the benchmark does.

    >>> import torch
    >>> from adbench.engine.runtime.context import StateStore, TrainingContext
    >>> class Memory(dict):
    ...     def load(self, name):
    ...         return self.get(name)
    ...     def save(self, name, state):
    ...         self[name] = state
    >>> store: StateStore = Memory()
    >>> store.save("fit", {"step": torch.tensor(3)})
    >>> TrainingContext(state_store=store).state_store.load("fit")
    {'step': tensor(3)}
    """

    def load(self, name: str) -> Mapping[str, Tensor] | None: ...
    def save(self, name: str, state: Mapping[str, Tensor]) -> None: ...


class Stage(Protocol):
    """A part of a training that does not depend on what follows it, so that methods may share it.

    settings: all that it depends on besides the data, the seed and `module` as it is before

    >>> from types import SimpleNamespace
    >>> from torch import nn
    >>> from adbench.engine.runtime.context import Stage, TrainingContext
    >>> codec = nn.Linear(1, 1)
    >>> stage: Stage = SimpleNamespace(name="codec", module=codec, settings=lambda: {"steps": 9})
    >>> TrainingContext().shared_stages(stage, lambda: print("training", stage.settings()))
    training {'steps': 9}
    """

    @property
    def name(self) -> str: ...
    @property
    def module(self) -> nn.Module: ...
    def settings(self) -> Mapping[str, object]: ...


SharedStageCache = Callable[[Stage, Callable[[], None]], None]
"""(stage, train): leave the stage's module as `train` would, by calling it or from a cache."""

EventHandler = Callable[[str, Mapping[str, float]], None]
"""(event, facts): receives the progress of a computation."""


class BatchedModule(LowPrecisionModule):
    """A module whose network, `net`, computes `batch` rows at a time at inference, in `dtype`.

    >>> from adbench.engine.runtime.context import BatchedModule
    >>> BatchedModule().batch
    8
    """

    batch: int = 8


class NullStateStore:
    """A state store that saves nothing and finds nothing.

    >>> from adbench.engine.runtime.context import NullStateStore
    >>> NullStateStore().load("fit") is None
    True
    """

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return None

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        pass


def ignore_event(event: str, facts: Mapping[str, float]) -> None:
    """Do nothing with an event.

    event: its name, such as "train"; facts: its numbers, by name

    >>> from adbench.engine.runtime.context import ignore_event
    >>> ignore_event("train", {"step": 1})
    """


def _train_stage(stage: Stage, train: Callable[[], None]) -> None:
    train()


@dataclass(frozen=True)
class DeviceContext:
    """Where and in which precision networks compute: all that prediction needs to know.

    device: of torch, such as "cpu" or "cuda:1"
    dtype: what networks compute in; weights, samplers, scores and baselines stay float32
    tf32: on a GPU, products and convolutions of float32 may round their inputs to TensorFloat-32
    compile: when torch.compile makes the networks faster, as `CompileMode` says
    batch: rows per network call at inference: one fixed, padded shape
    seed: of all random streams

    dtype, tf32 and seed change what is measured and are part of a cache key; the rest changes
    speed alone and is not.

    >>> from adbench.engine.runtime.context import DeviceContext
    >>> DeviceContext(device="cuda:1").kind
    'cuda'
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    compile: CompileMode = "off"
    seed: int = 0
    batch: int = 8

    @property
    def kind(self) -> str:
        """The type of the device: "cpu", "cuda"."""
        return torch.device(self.device).type

    @property
    def numerics(self) -> str:
        """The name of what networks compute in: "float32", "tf32", "bfloat16"."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    @property
    def compiles(self) -> bool:
        """Whether networks are compiled on this device."""
        return compiles(self.compile, self.kind)

    def free(self) -> None:
        """Return to the device the memory that torch caches and nobody uses."""
        if self.kind == "cuda":
            if self.compiles:
                torch.compiler.reset()  # CUDA graphs keep the memory of their shapes
            torch.cuda.empty_cache()

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory layout its convolutions like, set the
        precision of its networks, and compile them if asked to. No name in its state dict
        changes."""
        if self.kind == "cuda":
            make_cuda_deterministic(tf32=self.tf32)
        module.to(self.device)
        plain = set[nn.Module]()
        if self.kind == "cpu":
            networks = (part for part in module.modules() if hasattr(part, "contiguous_on_cpu"))
            plain.update(*(net.modules() for net in networks if net.contiguous_on_cpu))
        for part in module.modules():
            if isinstance(part, LowPrecisionModule):
                part.dtype = self.dtype
            if isinstance(part, (nn.Conv2d, nn.Conv3d)) and part not in plain:
                layout = memory_format(part.weight.ndim, self.kind)
                if layout is not None:
                    part.to(memory_format=layout)
            if isinstance(part, BatchedModule):
                part.batch = self.batch
                net = getattr(part, "net", None)
                if self.compiles and isinstance(net, nn.Module) and not is_compiled(net):
                    compile_network(net, self.compile)
                    part.compile_mode = self.compile
        return module


def numerics_fields(name: str) -> dict[str, Any]:
    """Return the fields `dtype` and `tf32` of a context whose `numerics` have this name.

    name: ValueError for another than float32, tf32 and bfloat16

    >>> from adbench.engine.runtime.context import DeviceContext, numerics_fields
    >>> DeviceContext(**numerics_fields("tf32")).numerics
    'tf32'
    """
    if name not in NUMERICS:
        raise ValueError(f"networks compute in {', '.join(NUMERICS)}, not in {name!r}")
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    return {"dtype": dtype, "tf32": name == "tf32"}


@dataclass(frozen=True)
class TrainingContext(DeviceContext):
    """A device context with all that a training needs besides; none of it changes a result.

    micro: rows per forward and backward pass, None for a step's whole batch; the gradient is the
        whole batch's either way
    workers: processes that read samples ahead, 0 for none, None for what fits the device
    team: the processes that train together, each on its rows of every batch
    state_store: where unfinished work is saved
    shared_stages: where finished stages of a training are found, from this method or another
    imported: weights of modules that were trained elsewhere; such a module, or one that holds it,
        is loaded instead of trained
    on_event: receives (event, facts) as work goes on
    on_curve: receives the learning curve of every training that has ended
    stop: called between steps; True means: save the state and raise Interrupted
    checkpoint_interval: seconds between two saves
    event_interval: seconds between two "train" events

    >>> from adbench.engine.runtime.context import TrainingContext
    >>> TrainingContext(workers=2).num_workers
    2
    """

    micro: int | None = None
    workers: int | None = None
    team: Team = SINGLE_PROCESS
    state_store: StateStore = field(default_factory=NullStateStore)
    shared_stages: SharedStageCache = _train_stage
    imported: Mapping[nn.Module, Mapping[str, Tensor]] = field(default_factory=dict)
    on_event: EventHandler = ignore_event
    on_curve: CurveHandler = ignore_curve
    stop: Callable[[], bool] = bool
    checkpoint_interval: float = 20.0
    event_interval: float = 0.5

    @property
    def num_workers(self) -> int:
        """How many processes read samples: none beside a CPU, which has enough to do."""
        if self.workers is not None:
            return self.workers
        cores = (os.cpu_count() or 1) // self.team.size
        return min(4, max(cores - 1, 0)) if self.kind == "cuda" else 0

    def imported_weights(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the imported weights of a module and its parts, by names in its state dict.

        >>> import torch
        >>> from adbench.engine.runtime.context import TrainingContext
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(1, 1))
        >>> context = TrainingContext(imported={net[0]: {"bias": torch.zeros(1)}})
        >>> list(context.imported_weights(net))
        ['0.bias']
        """
        return {
            f"{path}.{name}" if path else name: value
            for path, part in module.named_modules()
            for name, value in self.imported.get(part, {}).items()
        }

    def for_rank(self) -> TrainingContext:
        """Itself for rank 0 of a team; for the others without saving and without events."""
        if not self.team.rank:
            return self
        return replace(self, state_store=NullStateStore(), on_event=ignore_event,
            on_curve=ignore_curve)  # fmt: skip
