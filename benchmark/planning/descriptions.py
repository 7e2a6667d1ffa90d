"""Describe a method or a dataset with its arguments, and this machine with its libraries."""

from __future__ import annotations

import inspect
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..registry.registry import Entry
from ..registry.setting_types import describe_type
from ..store.artifact_store import Store
from ..store.atomic_files import free_bytes

LIBRARIES = ("torch", "monai", "diffusers", "opensimplex", "numba", "h5py", "nibabel", "lpips")


def describe_entry(entry: Entry) -> dict[str, Any]:
    """The facts about a method or a dataset: its arguments, their defaults and what is allowed.

    >>> from adbench.benchmark.planning.descriptions import describe_entry
    >>> from adbench.benchmark.registry.registry import Registry
    >>> facts = describe_entry(Registry.read().method("anoddpm"))
    >>> facts["noise levels"], facts["axes"], facts["arguments"]["T"]
    ('50, 100, 150, 200, 250, 300, 400, 500, 600', '1, 2, 3', 1000)
    """
    cls = entry.load()
    facts: dict[str, Any] = {"name": entry.name, "about": entry.about}
    facts |= {key: value for key, value in (("paper", entry.paper), *entry.extra.items()) if value}
    if entry.package == "methods":
        facts |= {
            "learns from": f"{cls.supervision} samples",
            "axes": ", ".join(map(str, sorted(cls.ndims))),
            "noise levels": ", ".join(map(str, cls.levels)),
            "published level": cls.published,
        }
        if cls.search_space:
            facts["search space"] = {key: str(part) for key, part in cls.search_space.items()}
        if entry.base:
            facts["preset of"] = entry.base
        if entry.batch_dependent:
            facts["batch dependent"] = "yes: a sample's result depends on the rest of its batch"
    elif "root" in entry.parameters():
        facts["prepare"] = f"adbench data prepare {entry.name} --data <root>; then verify, audit"
    facts["from"] = f"{entry.class_path} ({entry.origin})"
    facts["arguments"] = entry.arguments(None, {})
    facts["allowed"] = {key: describe_type(p.annotation) for key, p in entry.parameters().items()}
    texts = [inspect.getdoc(sys.modules[cls.__module__]), cls.__dict__.get("__doc__")]
    facts["in full"] = "\n\n".join(inspect.cleandoc(text) for text in texts if text)
    return facts


def describe_environment(store: Store) -> dict[str, str]:
    """This machine: versions of libraries, devices, free disk space, missing optional parts.

    >>> from pathlib import Path
    >>> from adbench.benchmark.planning.descriptions import describe_environment
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> facts = describe_environment(Store(Path("no/such/store")))
    >>> facts["python"].split(".")[0], "GB free" in facts["store"]
    ('3', True)
    """
    import torch

    from ...datasets.io.file_hashes import cache_root

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
    for name, folder in (("store", store.root), ("prepared data", cache_root() / "data")):
        facts[name] = f"{folder} ({(free_bytes(folder) or 0) / 1e9:.0f} GB free)"
    return facts
