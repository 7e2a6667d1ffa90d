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

from ..experiments.matrix import Experiment
from ..registry.registry import Entry
from ..store.artifact_store import Store, cache_key, canonical_json
from ..store.index import StoreIndex
from .history import CostEstimate, CostHistory

if TYPE_CHECKING:
    from ...datasets.base import Dataset
    from ...engine.runtime.context import TrainingContext
    from ..experiments.pipeline import KeyInputs

LIBRARIES = ("torch", "monai", "diffusers", "opensimplex", "numba", "h5py", "nibabel", "lpips")


def preview_run(
    experiments: Sequence[Experiment],
    context: TrainingContext,
    store: Store,
    reporter: Any,
    *,
    measure: bool = False,
) -> list[dict[str, Any]]:
    """One row per cell: its stages, each cached or to be made, why, and what it will cost.

    measure: what nothing stored tells the speed of is tried for a moment
    """
    from ..executors.launch import prepared
    from ..experiments.pipeline import experiment_key_inputs
    from ..scheduling.job import unfit

    look = StagePreview(StoreIndex(store), context, measure)
    rows, datasets = [], {}
    for cell in experiments:
        which = cell.dataset.name, canonical_json(cell.dataset_args)
        if which not in datasets:
            datasets[which] = prepared(cell, reporter)
        dataset = datasets[which]
        skip = unfit(cell, dataset)
        if skip and cell.implicit_baseline:
            continue
        stages = (
            []
            if skip
            else look.stages(cell, dataset, experiment_key_inputs(cell, dataset, context))
        )
        rows.append({"cell": cell.name, "skip": skip, "stages": stages})
    return rows


class StagePreview:
    """Looks at stages one after another; what is asked twice is worked out once."""

    def __init__(self, index: StoreIndex, context: TrainingContext, measure: bool) -> None:
        import torch

        from ...engine.profiling.cost import device_name

        self.index, self.context, self.measure = index, context, measure
        self.history = CostHistory(index, device_name(context.device), torch.get_num_threads())
        self._measurements: dict[str, CostEstimate] = {}

    def stages(
        self, experiment: Experiment, dataset: Dataset, ids: KeyInputs
    ) -> list[dict[str, Any]]:
        from ..experiments.matrix import split_digest, sweep_levels

        def train() -> CostEstimate:
            labelled = experiment.method.load().supervision == "image-labels"
            samples = split_digest(dataset, "train", experiment.limit, labelled)[1]
            guess = self.history.estimate_training(ids.checkpoint, samples)
            return self._complete_estimate(guess, experiment, dataset, ids.checkpoint, None, 0)

        def look(part: str) -> CostEstimate:
            samples = split_digest(dataset, part, experiment.limit)[1]
            guess = self.history.estimate_prediction(ids.maps[part], samples)
            levels = sweep_levels(experiment, experiment.method.load())
            return self._complete_estimate(
                guess, experiment, dataset, ids.maps[part], levels, samples
            )

        made = [self._stage("checkpoint", ids.checkpoint, "train", train)]
        for part, identity in ids.maps.items():
            made.append(self._stage("maps", identity, f"look {part}", partial(look, part)))
        judge = partial(self.history.estimate_evaluation, ids.record)
        return [*made, self._stage("record", ids.record, "judge", judge)]

    def _stage(
        self, kind: str, identity: Mapping[str, Any], name: str, guess: Callable[[], CostEstimate]
    ) -> dict[str, Any]:
        key = cache_key(identity)
        if self.index.contains(kind, key, identity):
            return {"stage": name, "state": "cached", "why": [], "kind": kind, "key": key}
        found = guess()
        return {
            "stage": name,
            "state": "to do",
            "why": self.index.explain_miss(kind, identity),
            "kind": kind,
            "key": key,
            "seconds": found.seconds,
            "bytes": found.bytes,
            "memory_mb": found.memory_mb,
            "source": found.source or "unknown",
        }

    def _complete_estimate(
        self,
        guess: CostEstimate,
        cell: Experiment,
        dataset: Dataset,
        identity: Mapping[str, Any],
        levels: Sequence[int] | None,
        samples: int,
    ) -> CostEstimate:
        """What is stored tells of it, and where that is nothing: size by counting, and speed by
        measuring if that is asked for. levels: None of a training"""
        from . import probe as gauge

        if guess.bytes is None and levels is None:
            size = self._measure_once(
                ["size", identity],
                lambda: CostEstimate(bytes=gauge.checkpoint_bytes(cell, dataset)),
            )
            guess = guess._replace(bytes=size.bytes)
        elif guess.bytes is None and levels is not None:
            pixels = 4 * prod(dataset.spec.shape) + 8  # and a score, which has more digits
            guess = guess._replace(bytes=len(levels) * samples * pixels)
        if guess.seconds is not None or not self.measure:
            return guess
        if levels is None:
            tried = self._measure_once(
                identity, lambda: gauge.measure_training(cell, dataset, self.context)
            )
            return tried._replace(bytes=guess.bytes)
        sort = ["look", identity["train"], identity["args"], levels]
        tried = self._measure_once(
            sort, lambda: gauge.measure_prediction(cell, dataset, self.context, levels)
        )
        seconds = None if tried.seconds is None else tried.seconds * samples
        return tried._replace(seconds=seconds, bytes=guess.bytes)

    def _measure_once(self, what: Any, work: Callable[[], CostEstimate]) -> CostEstimate:
        """Seeds are alike here."""
        text = canonical_json(_without_seed(what))
        if text not in self._measurements:
            self._measurements[text] = work()
        return self._measurements[text]


def _without_seed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if k != "seed"}
    return [_without_seed(v) for v in value] if isinstance(value, list) else value


def describe_entry(entry: Entry) -> dict[str, Any]:
    """A method's or a dataset's facts, and its arguments with their defaults."""
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
    elif "root" in entry.parameters():
        facts["prepare"] = f"adbench data prepare {entry.name} --data <root>; then verify, audit"
    facts["from"] = f"{entry.class_path} ({entry.origin})"
    facts["arguments"] = entry.arguments(None, {})
    said = [inspect.getdoc(sys.modules[cls.__module__]), cls.__dict__.get("__doc__")]
    facts["in full"] = "\n\n".join(inspect.cleandoc(text) for text in said if text)
    return facts


def describe_environment(store: Store) -> dict[str, str]:
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
