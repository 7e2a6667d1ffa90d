"""Preview a run: which stages are cached, why others are not, and what these will cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from ..experiments.matrix import Experiment
from ..store.artifact_store import Store, cache_key, canonical_json
from ..store.index import StoreIndex
from .history import CostEstimate, CostHistory

if TYPE_CHECKING:
    from ...engine.runtime.context import TrainingContext
    from ..experiments.resolve import ResolvedExperiment


def preview_run(
    experiments: Sequence[Experiment],
    context: TrainingContext,
    store: Store,
    reporter: Any,
    *,
    measure: bool = False,
) -> list[dict[str, Any]]:
    """One row per experiment: its stages, each cached or to do, why, and what it will cost.

    Prepares the datasets, trains nothing.

    reporter: shows the progress of the preparation
    measure: measure briefly what has no similar earlier work in the store

    >>> from pathlib import Path
    >>> from rich.console import Console
    >>> from adbench.benchmark.executors.launch import device_context
    >>> from adbench.benchmark.experiments.matrix import expand_matrix
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> from adbench.benchmark.planning.preview import preview_run
    >>> from adbench.benchmark.registry.registry import Registry
    >>> from adbench.benchmark.scheduling.console import ConsoleReporter
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> small = {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}
    >>> config = RunConfig.from_options(methods="pca", datasets="phantom", baselines=False,
    ...                                 settings={"phantom": small}, profile="check")
    >>> experiments = expand_matrix(config, Registry.read())
    >>> (row,) = preview_run(experiments, device_context("cpu", "float32"), Store(Path("no/store")),
    ...                      ConsoleReporter(Console(quiet=True)))
    >>> [(stage["stage"], stage["state"], stage["bytes"]) for stage in row["stages"]]
    [('train', 'to do', 66560), ('predict calibration', 'to do', 2064), ('predict val', 'to do',
    4128), ('predict test', 'to do', 4128), ('evaluate', 'to do', None)]
    """
    from ..executors.launch import prepare_dataset
    from ..experiments.resolve import resolve
    from ..scheduling.executor import group_by_dataset
    from ..scheduling.worker import incompatibility

    preview = StagePreview(StoreIndex(store), context, measure)
    rows = []
    for _, group in group_by_dataset(experiments):
        dataset = prepare_dataset(group[0], reporter)
        for experiment in group:
            skip = incompatibility(experiment, dataset)
            if skip and experiment.implicit_baseline:
                continue
            stages = []
            if not skip:
                stages = preview.stages(resolve(experiment, dataset, context.numerics))
            rows.append({"experiment": experiment.name, "skip": skip, "stages": stages})
    return rows


class StagePreview:
    """Previews stages one after another; stages that experiments share are estimated once.

    index: of the store
    measure: whether to measure what has no similar earlier work

    >>> from pathlib import Path
    >>> from adbench.benchmark.executors.launch import device_context
    >>> from adbench.benchmark.experiments.matrix import expand_matrix
    >>> from adbench.benchmark.experiments.resolve import resolve
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> from adbench.benchmark.planning.preview import StagePreview
    >>> from adbench.benchmark.registry.registry import Registry
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.index import StoreIndex
    >>> from adbench.datasets.phantom import Phantom
    >>> config = RunConfig(methods=("pca",), datasets=("phantom",), profile="check")
    >>> experiment = expand_matrix(config, Registry.read())[0]
    >>> context = device_context("cpu", "float32")
    >>> dataset = Phantom(shape=(16, 16), train=4, held_out=2, val=2, test=2)
    >>> dataset.prepare()
    >>> preview = StagePreview(StoreIndex(Store(Path("no/store"))), context, measure=False)
    >>> [stage["stage"] for stage in preview.stages(resolve(experiment, dataset, context.numerics))]
    ['train', 'predict calibration', 'predict val', 'predict test', 'evaluate']
    """

    def __init__(self, index: StoreIndex, context: TrainingContext, measure: bool) -> None:
        import torch

        from ...engine.profiling.cost import device_name

        self.index, self.context, self.measure = index, context, measure
        device, threads = device_name(context.device), torch.get_num_threads()
        self.history = CostHistory(index, device, threads)
        self._measurements: dict[str, CostEstimate] = {}

    def stages(self, resolved: ResolvedExperiment) -> list[dict[str, Any]]:
        """The training, the predictions and the evaluation of an experiment, in this order."""
        key_inputs = resolved.key_inputs
        return [
            self._stage(
                "checkpoint", key_inputs.checkpoint, "train", partial(self._training, resolved)
            ),
            *(
                self._stage(
                    "maps", inputs, _stage_name(part), partial(self._prediction, resolved, part)
                )
                for part, inputs in key_inputs.maps.items()
            ),
            self._stage(
                "record",
                key_inputs.record,
                "evaluate",
                partial(self.history.estimate_evaluation, key_inputs.record),
            ),
        ]

    def _stage(
        self,
        kind: str,
        key_inputs: Mapping[str, Any],
        name: str,
        estimate_cost: Callable[[], CostEstimate],
    ) -> dict[str, Any]:
        key = cache_key(key_inputs)
        stage = {"stage": name, "state": "cached", "why": [], "kind": kind, "key": key}
        if self.index.contains(kind, key, key_inputs):
            return stage
        estimate = estimate_cost()
        return stage | {
            "state": "to do",
            "why": self.index.explain_miss(kind, key_inputs),
            **estimate._asdict(),
            "source": estimate.source or "unknown",
        }

    def _training(self, resolved: ResolvedExperiment) -> CostEstimate:
        """From the store; else the size by counting, and the speed by measuring if asked for."""
        from . import probe

        arguments = resolved.experiment, resolved.splits.dataset
        inputs = resolved.key_inputs.checkpoint
        estimate = self.history.estimate_training(inputs, resolved.splits.size("train"))
        if estimate.bytes is None:
            size = self._measure_once(
                ["size", inputs], lambda: CostEstimate(bytes=probe.checkpoint_bytes(*arguments))
            )
            estimate = estimate._replace(bytes=size.bytes)
        if estimate.seconds is not None or not self.measure:
            return estimate
        measured = self._measure_once(
            inputs, lambda: probe.measure_training(*arguments, self.context)
        )
        return measured._replace(bytes=estimate.bytes)

    def _prediction(self, resolved: ResolvedExperiment, part: str) -> CostEstimate:
        """From the store; else the size by counting, and the speed by measuring if asked for."""
        from . import probe

        dataset, levels = resolved.splits.dataset, resolved.levels
        samples, inputs = resolved.splits.size(part), resolved.key_inputs.maps[part]
        estimate = self.history.estimate_prediction(inputs, samples)
        if estimate.bytes is None:
            pixels = 4 * prod(dataset.spec.shape) + 8  # and a score, which has more digits
            estimate = estimate._replace(bytes=len(levels) * samples * pixels)
        if estimate.seconds is not None or not self.measure:
            return estimate
        measured = self._measure_once(
            ["predict", inputs["train"], inputs["args"], levels],
            lambda: probe.measure_prediction(resolved.experiment, dataset, self.context, levels),
        )
        seconds = None if measured.seconds is None else measured.seconds * samples
        return measured._replace(seconds=seconds, bytes=estimate.bytes)

    def _measure_once(self, what: Any, measure: Callable[[], CostEstimate]) -> CostEstimate:
        """A measurement, repeated for nothing that differs in its seeds only."""
        text = canonical_json(_without_seed(what))
        if text not in self._measurements:
            self._measurements[text] = measure()
        return self._measurements[text]


def _stage_name(part: str) -> str:
    return f"predict {'calibration' if part == 'held_out' else part}"


def _without_seed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if k != "seed"}
    return [_without_seed(v) for v in value] if isinstance(value, list) else value
