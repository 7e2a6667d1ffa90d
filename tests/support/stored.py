"""A store as runs leave it behind, without a run: small files under the key inputs of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adbench.benchmark.store.artifact_store import Store

LEVELS = (50, 100, 250, 500)


def training_inputs(method: str = "AnoDDPM", seed: int = 0, **args: Any) -> dict[str, Any]:
    """The key inputs of a training; `args` are arguments of the method."""
    data = {"dataset": "brats", "args": {"size": 64}, "samples": {"train": "a1", "held_out": "b2"}}
    return {
        "data": data,
        "method": f"{method.lower()}:{method}",
        "supervision": "normal",
        "args": {"lr": 1e-4, "steps": 1000, **args},
        "seed": seed,
        "numerics": "float32",
        "code": "c" * 32,
    }


def maps_inputs(
    training: Mapping[str, Any], split: str = "test", levels: tuple[int, ...] = LEVELS
) -> dict[str, Any]:
    """The key inputs of the maps of a split."""
    data = {"dataset": "brats", "args": {"size": 64}, "samples": {split: "c3"}}
    return {"train": training, "data": data, "args": {}, "levels": [*levels], "part": split}


def fill_store(
    store: Store, out: Path, training: Mapping[str, Any], experiment: str, size: int = 1000
) -> None:
    """An experiment's checkpoint, maps and evaluation in the store, and its record in `out`."""
    maps = {split: maps_inputs(training, split) for split in ("val", "test")}
    evaluation = {"maps": maps, "protocol": {"threshold": "healthy@5%"}, "code": "d" * 32}
    stages = [("checkpoint", "checkpoint", training), ("record", "record", evaluation)]
    stages += [("maps", f"maps/{split}", inputs) for split, inputs in maps.items()]
    keys = {}
    for kind, name, inputs in stages:

        def create(path: Path, name: str = name) -> Mapping[str, Any]:
            path.write_bytes((experiment + name).encode().ljust(size, b"."))
            return {}

        keys[name] = store.get_or_create(kind, inputs, create, name=f"{kind}.bin").key
    record = {
        "status": "ok", "keys": keys, "seed": training["seed"], "method": {"name": experiment}
    }  # fmt: skip
    (out / "records").mkdir(parents=True, exist_ok=True)
    (out / "records" / f"{experiment}.json").write_text(json.dumps(record))
