"""Stages of a training that methods share: an autoencoder is trained once, whoever uses it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from ...engine.runtime.run import Run, Stage
from ..registry.code_fingerprint import loaded_code
from ..store.artifact_store import Store, canonical_json

CHANGES = {"training", "batch"}
"""Attributes of a module that say how it is run, not what it computes."""


class Shelf:
    """Finished stages in a store. A stage is the same if its code, its settings, its module as it
    begins, data, seed and precision are: what it is called by and which method asks do not matter.

    train: the identity of the checkpoint that the stage is a part of
    borrowed: seconds that went into the stages taken from the store
    used: the store's key of every stage, by name
    """

    def __init__(self, store: Store, train: Mapping[str, Any], run: Run) -> None:
        self.store, self.run = store, run
        self.train = {key: train[key] for key in ("data", "seed", "numerics")}
        self.borrowed, self.used = 0.0, dict[str, str]()

    def __call__(self, stage: Stage, learn: Callable[[], None]) -> None:
        if self.run.team.size > 1:  # all of a team learn it together; only the first has the store
            learn()
            return

        def make(path: Path) -> dict[str, float]:
            start = time.monotonic()
            learn()
            state = stage.module.state_dict()
            save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path)
            return {"seconds": time.monotonic() - start}

        found = self.store.once("stage", self.identity(stage), make, name="weights.safetensors")
        if not found.fresh:
            stage.module.load_state_dict(load_file(found.path))
            self.run.place(stage.module).eval()
            self.borrowed += found.meta["seconds"]
        self.used[stage.name] = found.key
        self.run.tell("stage", {"fresh": found.fresh})

    def identity(self, stage: Stage) -> dict[str, Any]:
        return {
            **self.train,
            "stage": type(stage).__qualname__,
            "code": [loaded_code(type(stage)), loaded_code(type(stage.module))],
            "settings": stage.settings(),
            "module": beginning(stage.module),
        }


def beginning(module: nn.Module) -> str:
    """A digest of a module as it stands: the kind of every part, its plain attributes (widths,
    weights of a loss), and every value of its state."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        plain = {
            key: value
            for key, value in vars(part).items()
            if key not in CHANGES and not key.startswith("_") and _plain(value)
        }
        told = [name, type(part).__qualname__, plain]
        digest.update(canonical_json(told).encode())
    for key, value in module.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{key}{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()[:32]


def _plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
