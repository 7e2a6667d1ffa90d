"""A short measurement of what nobody has run yet: some steps of training, and one look.

Weights are random: what a network has learnt does not change how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ...datasets.base import Batch, Dataset
from ...engine.profiling.cost import CostMeter, PeakMemory, peak_memory
from ...engine.runtime.context import TrainingContext
from ..experiments.fit_predict import build_method
from ..experiments.matrix import Experiment, load_split
from ..speed.data_loading import measure_loading
from ..speed.reference_implementations import RepeatedPrediction
from .history import STEPS_ARGUMENT, CostEstimate

PREDICTION_STEP_ARGUMENTS = {"sampling_steps", "inpaint_steps", "critic_steps", "decay_steps"}
"""Arguments named after steps that train no network of their own."""

MEASURED_NOW = "measured now"


def checkpoint_bytes(experiment: Experiment, dataset: Dataset) -> int:
    """Bytes of a checkpoint."""
    return sum(
        v.numel() * v.element_size()
        for v in build_method(experiment, dataset.spec).state_dict().values()
    )


def measure_training(
    experiment: Experiment, dataset: Dataset, context: TrainingContext
) -> CostEstimate:
    """Seconds of the whole training from its first steps; unknown of what trains otherwise."""
    args = experiment.method_args
    other = [key for key in args if key.endswith("_steps") and key not in PREDICTION_STEP_ARGUMENTS]
    if other or not args.get(STEPS_ARGUMENT):
        why = f"trains {', '.join(other)} too" if other else "does not train in steps"
        return CostEstimate(source=f"not measured: it {why}")
    with PeakMemory(context.device):
        batch = int(args.get("batch", 16))
        found = measure_loading(
            experiment, dataset, context, samples=4 * batch, rounds=1, machine={}
        )
        peak = peak_memory(context.device)
    if not found["trained_per_second"]:
        return CostEstimate(
            memory_mb=peak, source="not measured: its training tells nothing of its speed"
        )
    seconds = args[STEPS_ARGUMENT] * found["batch"] / found["trained_per_second"]
    return CostEstimate(seconds, memory_mb=peak, source=MEASURED_NOW)


def measure_prediction(
    experiment: Experiment, dataset: Dataset, context: TrainingContext, levels: Sequence[int]
) -> CostEstimate:
    """Seconds that a look at one sample takes, from one at as many as fill a batch."""
    test = load_split(dataset, "test", experiment.limit)
    count = min(max(ceil(context.batch / len(levels)), 1), len(test))
    if not count:
        return CostEstimate(0.0, source=MEASURED_NOW)
    batch = Batch.from_samples([test[i] for i in range(count)])
    method = build_method(experiment, dataset.spec)
    look = RepeatedPrediction(method, batch.x.to(context.device), batch.keys, levels, context)
    context.place(method).eval()
    look.predict(slice(1), levels[:1])  # what is done once, such as compiling, does not count
    with PeakMemory(context.device):
        with CostMeter(method) as meter:
            look()
        peak = peak_memory(context.device)
    return CostEstimate(meter.seconds / count, memory_mb=peak, source=MEASURED_NOW)
