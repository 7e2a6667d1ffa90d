"""What run would do and with what: stages cached or missing and why, arguments, this machine."""

from __future__ import annotations

import inspect
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import TYPE_CHECKING, Any

from ..experiments.matrix import Cell
from ..registry.registry import Entry
from ..store.artifact_store import Store, canonical_json, key_of
from ..store.index import Stock
from .history import Guess, Past

if TYPE_CHECKING:
    from ...datasets.base import Dataset
    from ...engine.runtime.run import Run
    from ..experiments.pipeline import Keys

LIBRARIES = ("torch", "monai", "diffusers", "opensimplex", "numba", "h5py", "nibabel", "lpips")


def foresee(
    cells: Sequence[Cell], run: Run, store: Store, watch: Any, *, measure: bool = False
) -> list[dict[str, Any]]:
    """One row per cell: its stages, each cached or to be made, why, and what it will cost.

    measure: what nothing stored tells the speed of is tried for a moment
    """
    from ..executors.launch import prepared
    from ..experiments.pipeline import keys
    from ..scheduling.job import unfit

    look = Foresight(Stock(store), run, measure)
    rows, datasets = [], {}
    for cell in cells:
        which = cell.dataset.name, canonical_json(cell.dataset_args)
        if which not in datasets:
            datasets[which] = prepared(cell, watch)
        dataset = datasets[which]
        skip = unfit(cell, dataset)
        if skip and cell.company:
            continue
        stages = [] if skip else look.stages(cell, dataset, keys(cell, dataset, run))
        rows.append({"cell": cell.name, "skip": skip, "stages": stages})
    return rows


class Foresight:
    """Looks at stages one after another; what is asked twice is worked out once."""

    def __init__(self, stock: Stock, run: Run, measure: bool) -> None:
        import torch

        from ...engine.profiling.cost import device_name

        self.stock, self.run, self.measure = stock, run, measure
        self.past = Past(stock, device_name(run.device), torch.get_num_threads())
        self._measured: dict[str, Guess] = {}

    def stages(self, cell: Cell, dataset: Dataset, ids: Keys) -> list[dict[str, Any]]:
        from ..experiments.matrix import described, levels_of

        def train() -> Guess:
            labelled = cell.method.load().supervision == "image-labels"
            samples = described(dataset, "train", cell.limit, labelled)[1]
            guess = self.past.training(ids.train, samples)
            return self._more(guess, cell, dataset, ids.train, None, 0)

        def look(part: str) -> Guess:
            samples = described(dataset, part, cell.limit)[1]
            guess = self.past.looking(ids.maps[part], samples)
            levels = levels_of(cell, cell.method.load())
            return self._more(guess, cell, dataset, ids.maps[part], levels, samples)

        made = [self._stage("checkpoint", ids.train, "train", train)]
        for part, identity in ids.maps.items():
            made.append(self._stage("maps", identity, f"look {part}", partial(look, part)))
        judge = partial(self.past.judging, ids.record)
        return [*made, self._stage("record", ids.record, "judge", judge)]

    def _stage(
        self, kind: str, identity: Mapping[str, Any], name: str, guess: Callable[[], Guess]
    ) -> dict[str, Any]:
        key = key_of(identity)
        if self.stock.has(kind, key, identity):
            return {"stage": name, "state": "cached", "why": [], "kind": kind, "key": key}
        found = guess()
        return {
            "stage": name,
            "state": "to do",
            "why": self.stock.why(kind, identity),
            "kind": kind,
            "key": key,
            "seconds": found.seconds,
            "bytes": found.bytes,
            "memory_mb": found.memory,
            "source": found.source or "unknown",
        }

    def _more(
        self,
        guess: Guess,
        cell: Cell,
        dataset: Dataset,
        identity: Mapping[str, Any],
        levels: Sequence[int] | None,
        samples: int,
    ) -> Guess:
        """What is stored tells of it, and where that is nothing: size by counting, and speed by
        measuring if that is asked for. levels: None of a training"""
        from . import probe as gauge

        if guess.bytes is None and levels is None:
            size = self._once(["size", identity], lambda: Guess(bytes=gauge.weight(cell, dataset)))
            guess = guess._replace(bytes=size.bytes)
        elif guess.bytes is None and levels is not None:
            pixels = 4 * prod(dataset.spec.shape) + 8  # and a score, which has more digits
            guess = guess._replace(bytes=len(levels) * samples * pixels)
        if guess.seconds is not None or not self.measure:
            return guess
        if levels is None:
            tried = self._once(identity, lambda: gauge.training(cell, dataset, self.run))
            return tried._replace(bytes=guess.bytes)
        sort = ["look", identity["train"], identity["args"], levels]
        tried = self._once(sort, lambda: gauge.looking(cell, dataset, self.run, levels))
        seconds = None if tried.seconds is None else tried.seconds * samples
        return tried._replace(seconds=seconds, bytes=guess.bytes)

    def _once(self, what: Any, work: Callable[[], Guess]) -> Guess:
        """Seeds are alike here."""
        text = canonical_json(_seedless(what))
        if text not in self._measured:
            self._measured[text] = work()
        return self._measured[text]


def _seedless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if k != "seed"}
    return [_seedless(v) for v in value] if isinstance(value, list) else value


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
    for what, folder in (("store", store.root), ("prepared data", cache_root() / "data")):
        there = folder
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free / 1e9
        facts[what] = f"{folder} ({free:.0f} GB free)"
    return facts
