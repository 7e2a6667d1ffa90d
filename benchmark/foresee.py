"""What run would do and with what: stages cached or missing and why, arguments, this machine."""

from __future__ import annotations

import inspect
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .plan import Cell
from .registry import Entry
from .store import Store

LIBRARIES = ("torch", "monai", "diffusers", "opensimplex", "numba", "h5py", "nibabel", "lpips")


def foresee(cells: Sequence[Cell], run: Any, store: Store, watch: Any) -> list[dict[str, Any]]:
    """One row per cell: its stages, each cached or to be made, and why."""
    from .executor import prepared, unfit
    from .runner import keys

    rows, datasets = [], {}
    for cell in cells:
        if cell.dataset.name not in datasets:
            datasets[cell.dataset.name] = prepared(cell, watch)
        dataset = datasets[cell.dataset.name]
        skip = unfit(cell, dataset)
        if skip and cell.company:
            continue
        stages: list[Mapping[str, Any]] = []
        if not skip:
            ids = keys(cell, dataset, run)
            stages.append(_stage(store, "checkpoint", ids.train, "train"))
            stages += [_stage(store, "maps", ids.maps[part], f"look {part}") for part in ids.maps]
            stages.append(_stage(store, "record", ids.record, "judge"))
        rows.append({"cell": cell.name, "skip": skip, "stages": stages})
    return rows


def _stage(store: Store, kind: str, identity: Mapping[str, Any], name: str) -> dict[str, Any]:
    if store.find(kind, identity) is not None:
        return {"stage": name, "state": "cached", "why": []}
    return {"stage": name, "state": "to do", "why": store.explain(kind, identity)}


def describe(entry: Entry) -> dict[str, Any]:
    """A method's or a dataset's facts, and its arguments with their defaults."""
    cls = entry.load()
    facts: dict[str, Any] = {"name": entry.name, "about": entry.about}
    facts |= {key: value for key, value in (("paper", entry.paper), *entry.extra.items()) if value}
    if entry.room == "methods":
        facts |= {
            "learns from": f"{cls.supervision} samples",
            "axes": ", ".join(map(str, sorted(cls.ndims))),
            "noise levels": ", ".join(map(str, cls.levels)),
            "published level": cls.published,
        }
    elif "root" in entry.parameters():
        facts["prepare"] = f"adbench data prepare {entry.name} --data <root>; then verify, audit"
    facts["from"] = f"{entry.where} ({entry.origin})"
    facts["arguments"] = entry.arguments(None, {})
    said = [inspect.getdoc(sys.modules[cls.__module__]), cls.__dict__.get("__doc__")]
    facts["in full"] = "\n\n".join(inspect.cleandoc(text) for text in said if text)
    return facts


def examine(store: Store) -> dict[str, str]:
    """This machine: versions, devices, disk, and what optional parts are missing."""
    import torch

    from ..datasets.digests import cache_root

    facts = {"python": platform.python_version(), "processors": str(torch.get_num_threads())}
    for name in LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            facts[f"gpu {i}"] = torch.cuda.get_device_name(i)
    else:
        facts["gpu"] = "none: profile tiny is the default"
    for what, folder in (("store", store.root), ("prepared data", cache_root() / "data")):
        there = folder
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free / 1e9
        facts[what] = f"{folder} ({free:.0f} GB free)"
    return facts
