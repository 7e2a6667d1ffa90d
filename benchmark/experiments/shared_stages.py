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

RUNTIME_ATTRIBUTES = {"training", "batch"}
"""Attributes of a module that say how it is run, not what it computes."""


class SharedStageCache:
    """Finished stages in a store. A stage is the same if its code, its settings, its module as it
    begins, data, seed and precision are: what it is called by and which method asks do not matter.

    checkpoint_inputs: the identity of the checkpoint that the stage is a part of
    reused_seconds: seconds that went into the stages taken from the store
    keys: the store's key of every stage, by name
    """

    def __init__(
        self, store: Store, checkpoint_inputs: Mapping[str, Any], context: TrainingContext
    ) -> None:
        self.store, self.context = store, context
        self.checkpoint_inputs = {
            key: checkpoint_inputs[key] for key in ("data", "seed", "numerics")
        }
        self.reused_seconds, self.keys = 0.0, dict[str, str]()

    def __call__(self, stage: Stage, learn: Callable[[], None]) -> None:
        if (
            self.context.team.size > 1
        ):  # all of a team learn it together; only the first has the store
            learn()
            return

        def make(path: Path) -> dict[str, float]:
            start = time.monotonic()
            learn()
            state = stage.module.state_dict()
            save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path)
            return {"seconds": time.monotonic() - start}

        found = self.store.get_or_create(
            "stage", self.key_inputs(stage), make, name="weights.safetensors"
        )
        if not found.created:
            stage.module.load_state_dict(load_file(found.path))
            self.context.place(stage.module).eval()
            self.reused_seconds += found.metadata["seconds"]
        self.keys[stage.name] = found.key
        self.context.on_event("stage", {"fresh": found.created})

    def key_inputs(self, stage: Stage) -> dict[str, Any]:
        return {
            **self.checkpoint_inputs,
            "stage": type(stage).__qualname__,
            "code": [loaded_code_digest(type(stage)), loaded_code_digest(type(stage.module))],
            "settings": stage.settings(),
            "module": module_digest(stage.module),
        }


def module_digest(module: nn.Module) -> str:
    """A digest of a module as it stands: the kind of every part, its plain attributes (widths,
    weights of a loss), and every value of its state."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        plain = {
            key: value
            for key, value in vars(part).items()
            if key not in RUNTIME_ATTRIBUTES and not key.startswith("_") and _is_plain(value)
        }
        told = [name, type(part).__qualname__, plain]
        digest.update(canonical_json(told).encode())
    for key, value in module.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{key}{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()[:32]


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
