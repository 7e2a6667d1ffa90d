"""Stages of a training that methods share: an autoencoder is trained once, whoever uses it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from ...engine.runtime.context import Stage, TrainingContext
from ..registry.code_fingerprint import loaded_code_digest
from ..store.artifact_store import Store, canonical_json
from ..store.partial_state import separate_tensors

RUNTIME_ATTRIBUTES = {"training", "batch"}
"""Attributes of a module that say how it is executed, not what it computes."""


class SharedStageCache:
    """Finished stages of trainings in a store.

    Two stages are the same if their code, settings, module before training, data, seed and
    precision are. The name of a stage and the method that uses it do not matter.

    checkpoint_inputs: the cache-key inputs of the checkpoint that the stage is a part of
    reused_seconds: training time of the stages taken from the store
    keys: the store's key of every stage, by name

    >>> import tempfile
    >>> from adbench.engine.codecs.codec import Identity
    >>> from adbench.engine.codecs.training import CodecTraining
    >>> from adbench.engine.training.loop import Training
    >>> from adbench.engine.transforms.resizing import ResizePad
    >>> canvas, plan = ResizePad((8, 8)), Training(steps=1, batch=1, lr=0.1)
    >>> inputs = {"data": {}, "seed": 0, "numerics": "float32"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for process in ("first", "second"):
    ...         cache = SharedStageCache(Store(Path(folder)), inputs, TrainingContext())
    ...         stage = CodecTraining(Identity((1, 8, 8)), plan, canvas)
    ...         cache(stage, lambda: print("training in the", process, "process"))
    training in the first process
    """

    def __init__(
        self, store: Store, checkpoint_inputs: Mapping[str, Any], context: TrainingContext
    ) -> None:
        self.store, self.context = store, context
        self.checkpoint_inputs = {
            name: checkpoint_inputs[name] for name in ("data", "seed", "numerics")
        }
        self.reused_seconds, self.keys = 0.0, dict[str, str]()

    def __call__(self, stage: Stage, train: Callable[[], None]) -> None:
        """Leave the stage's module trained: by `train`, or with weights from the store."""
        imported = self.context.imported_weights(stage.module)
        if self.context.team.size > 1 or imported:
            # a team trains it together, and only rank 0 has the store; what is imported is loaded
            train()
            return

        def create(path: Path) -> dict[str, float]:
            start = time.monotonic()
            train()
            save_file(separate_tensors(stage.module.state_dict()), path)
            return {"seconds": time.monotonic() - start}

        artifact = self.store.get_or_create(
            "stage", self.key_inputs(stage), create, name="weights.safetensors"
        )
        if not artifact.created:
            stage.module.load_state_dict(load_file(artifact.path))
            self.context.place(stage.module).eval()
            self.reused_seconds += artifact.metadata["seconds"]
        self.keys[stage.name] = artifact.key
        self.context.on_event("stage", {"fresh": artifact.created})

    def key_inputs(self, stage: Stage) -> dict[str, Any]:
        """Everything that a stage's trained module depends on."""
        return {
            **self.checkpoint_inputs,
            "stage": type(stage).__qualname__,
            "code": [loaded_code_digest(type(stage)), loaded_code_digest(type(stage.module))],
            "settings": stage.settings(),
            "module": module_digest(stage.module),
        }


def module_digest(module: nn.Module) -> str:
    """A hash of a module as it is, 32 hex digits.

    It counts the class of every part, its plain attributes (widths, weights of a loss), and every
    value of the state.

    >>> from torch import nn
    >>> from adbench.benchmark.experiments.shared_stages import module_digest
    >>> module = nn.ReLU()
    >>> module_digest(module) == module_digest(nn.ReLU()) != module_digest(nn.ReLU(inplace=True))
    True
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        attributes = {
            key: value
            for key, value in vars(part).items()
            if key not in RUNTIME_ATTRIBUTES and not key.startswith("_") and _is_plain(value)
        }
        digest.update(canonical_json([name, type(part).__qualname__, attributes]).encode())
    for key, value in module.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{key}{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()[:32]


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
