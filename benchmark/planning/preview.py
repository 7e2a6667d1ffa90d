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
    from ...datasets.base import Dataset
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
    """
    from ..executors.launch import by_dataset, prepared
    from ..experiments.resolve import resolve
    from ..scheduling.job import unfit

    preview = StagePreview(StoreIndex(store), context, measure)
    rows = []
    for _, group in by_dataset(experiments):
        dataset = prepared(group[0], reporter)
        for experiment in group:
            skip = unfit(experiment, dataset)
            if skip and experiment.implicit_baseline:
                continue
            stages = []
            if not skip:
                stages = preview.stages(resolve(experiment, dataset, context.dtype))
            rows.append({"experiment": experiment.name, "skip": skip, "stages": stages})
    return rows


class StagePreview:
    """Previews stages one after another; stages that experiments share are estimated once.

    index: of the store
    measure: whether to measure what has no similar earlier work
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
        experiment, key_inputs = resolved.experiment, resolved.key_inputs
        splits, levels = resolved.splits, resolved.levels
        dataset = splits.dataset

        def train() -> CostEstimate:
            samples = splits.size("train")
            estimate = self.history.estimate_training(key_inputs.checkpoint, samples)
            return self._complete_estimate(
                estimate, experiment, dataset, key_inputs.checkpoint, None, 0
            )

        def predict(part: str) -> CostEstimate:
            samples, inputs = splits.size(part), key_inputs.maps[part]
            estimate = self.history.estimate_prediction(inputs, samples)
            return self._complete_estimate(estimate, experiment, dataset, inputs, levels, samples)

        def evaluate() -> CostEstimate:
            return self.history.estimate_evaluation(key_inputs.record)

        return [
            self._stage("checkpoint", key_inputs.checkpoint, "train", train),
            *(
                self._stage("maps", inputs, f"predict {_split_name(part)}", partial(predict, part))
                for part, inputs in key_inputs.maps.items()
            ),
            self._stage("record", key_inputs.record, "evaluate", evaluate),
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

    def _complete_estimate(
        self,
        estimate: CostEstimate,
        experiment: Experiment,
        dataset: Dataset,
        key_inputs: Mapping[str, Any],
        levels: Sequence[int] | None,
        samples: int,
    ) -> CostEstimate:
        """Complete an estimate from the store: the size by counting, the speed by measuring.

        levels: None for a training
        """
        from . import probe

        if estimate.bytes is None:
            if levels is None:
                size = self._measure_once(
                    ["size", key_inputs],
                    lambda: CostEstimate(bytes=probe.checkpoint_bytes(experiment, dataset)),
                ).bytes
            else:
                pixels = 4 * prod(dataset.spec.shape) + 8  # and a score, which has more digits
                size = len(levels) * samples * pixels
            estimate = estimate._replace(bytes=size)
        if estimate.seconds is not None or not self.measure:
            return estimate
        if levels is None:
            measured = self._measure_once(
                key_inputs, lambda: probe.measure_training(experiment, dataset, self.context)
            )
            return measured._replace(bytes=estimate.bytes)
        measured = self._measure_once(
            ["predict", key_inputs["train"], key_inputs["args"], levels],
            lambda: probe.measure_prediction(experiment, dataset, self.context, levels),
        )
        seconds = None if measured.seconds is None else measured.seconds * samples
        return measured._replace(seconds=seconds, bytes=estimate.bytes)

    def _measure_once(self, what: Any, measure: Callable[[], CostEstimate]) -> CostEstimate:
        """A measurement, repeated for nothing that differs in its seeds only."""
        text = canonical_json(_without_seed(what))
        if text not in self._measurements:
            self._measurements[text] = measure()
        return self._measurements[text]


def _split_name(part: str) -> str:
    return "calibration" if part == "held_out" else part


def _without_seed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if k != "seed"}
    return [_without_seed(v) for v in value] if isinstance(value, list) else value
