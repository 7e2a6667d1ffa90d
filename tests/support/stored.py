"""A store as runs leave it behind, without a run: small files under the runner's identities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adbench.benchmark.store.artifact_store import Store

LEVELS = (50, 100, 250, 500)


def training_inputs(method: str = "AnoDDPM", seed: int = 0, **more: Any) -> dict[str, Any]:
    """The identity of a training; `more` are arguments of the method."""
    data = {"dataset": "brats", "args": {"size": 64}, "samples": {"train": "a1", "held_out": "b2"}}
    return {
        "data": data,
        "method": f"{method.lower()}:{method}",
        "supervision": "normal",
        "args": {"lr": 1e-4, "steps": 1000, **more},
        "seed": seed,
        "numerics": "float32",
        "code": "c" * 32,
    }


def maps_inputs(
    training: Mapping[str, Any], split: str = "test", levels: tuple[int, ...] = LEVELS
) -> dict[str, Any]:
    data = {"dataset": "brats", "args": {"size": 64}, "samples": {split: "c3"}}
    return {"train": training, "data": data, "args": {}, "levels": [*levels], "part": split}


def fill_store(
    store: Store, out: Path, training: Mapping[str, Any], experiment: str, size: int = 1000
) -> None:
    """A cell's checkpoint, maps and judgement in the store, and its record in `out`."""
    looks = {part: maps_inputs(training, part) for part in ("val", "test")}
    judged = {"maps": looks, "protocol": {"threshold": "healthy@5%"}, "code": "d" * 32}
    stages = [("checkpoint", "checkpoint", training), ("record", "record", judged)]
    stages += [("maps", f"maps/{part}", identity) for part, identity in looks.items()]
    keys = {}
    for kind, name, identity in stages:

        def make(path: Path, name: str = name) -> Mapping[str, Any]:
            path.write_bytes((experiment + name).encode().ljust(size, b"."))
            return {}

        keys[name] = store.get_or_create(kind, identity, make, name=f"{kind}.bin").key
    told = {"status": "ok", "keys": keys, "seed": training["seed"], "method": {"name": experiment}}
    (out / "records").mkdir(parents=True, exist_ok=True)
    (out / "records" / f"{experiment}.json").write_text(json.dumps(told))
