"""Measure briefly what no earlier work tells: some steps of training, and one prediction.

Weights are random: what a network has learnt does not change how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ...datasets.base import Batch, Dataset
from ...engine.profiling.cost import CostMeter, PeakMemory, peak_memory
from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment
from ..experiments.repeated_detection import repeat_detection
from ..experiments.resolve import build_method
from ..experiments.splits import Splits
from ..speed.data_loading import measure_loading
from ..speed.reference_implementations import RepeatedPrediction
from .history import STEPS_ARGUMENT, CostEstimate

PREDICTION_STEP_ARGUMENTS = {"sampling_steps", "inpaint_steps", "critic_steps", "decay_steps"}
"""Arguments named after steps that train no network of their own."""

MEASURED_NOW = "measured now"


def checkpoint_bytes(experiment: Experiment, dataset: Dataset) -> int:
    """The size of an experiment's checkpoint in bytes, by its parameters and buffers.

    >>> from adbench.benchmark.planning.probe import checkpoint_bytes
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("template-z", profile="check")
    >>> checkpoint_bytes(experiment, Phantom(shape=(16, 16)))  # two arrays of 256 float32
    2048
    """
    state = build_method(experiment, dataset.spec).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def measure_training(
    experiment: Experiment, dataset: Dataset, context: TrainingContext
) -> CostEstimate:
    """The cost of the whole training from its first steps; unknown if it is not one of steps.

    >>> from adbench.benchmark.executors.launch import device_context
    >>> from adbench.benchmark.planning.probe import measure_training
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("pca", profile="check")
    >>> context = device_context("cpu", "float32")
    >>> measure_training(experiment, Phantom(shape=(16, 16)), context).source
    'not measured: it does not train in steps'
    """
    args = experiment.method_args
    others = [k for k in args if k.endswith("_steps") and k not in PREDICTION_STEP_ARGUMENTS]
    if others or not args.get(STEPS_ARGUMENT):
        why = f"trains {', '.join(others)} too" if others else "does not train in steps"
        return CostEstimate(source=f"not measured: it {why}")
    with PeakMemory(context.device):
        samples = 4 * int(args.get("batch", 16))
        loading = measure_loading(
            experiment, dataset, context, samples=samples, rounds=1, machine={}
        )
        peak = peak_memory(context.device)
    if not loading["trained_per_second"]:
        reason = "not measured: its training does not report its speed"
        return CostEstimate(memory_mb=peak, source=reason)
    seconds = args[STEPS_ARGUMENT] * loading["batch"] / loading["trained_per_second"]
    return CostEstimate(seconds, memory_mb=peak, source=MEASURED_NOW)


def measure_prediction(
    experiment: Experiment, dataset: Dataset, context: TrainingContext, levels: Sequence[int]
) -> CostEstimate:
    """The cost of predicting one sample at all levels, from one call with a full batch.

    >>> from adbench.benchmark.executors.launch import device_context
    >>> from adbench.benchmark.planning.probe import measure_prediction
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("healthy-mean", profile="check")
    >>> context = device_context("cpu", "float32")
    >>> estimate = measure_prediction(experiment, Phantom(shape=(16, 16)), context, [0])
    >>> 0 < estimate.seconds < 60, estimate.source
    (True, 'measured now')
    """
    test = Splits(dataset, limit=experiment.limit)["test"]
    count = min(max(ceil(context.batch / len(levels)), 1), len(test))
    if not count:
        return CostEstimate(0.0, source=MEASURED_NOW)
    batch = Batch.from_samples([test[i] for i in range(count)])
    method = repeat_detection(build_method(experiment, dataset.spec), experiment.protocol)
    x = batch.x.to(context.device)
    predict = RepeatedPrediction(method, x, batch.keys, levels, context)
    context.place(method).eval()
    predict.predict(slice(1), levels[:1])  # what happens once, such as compiling, does not count
    with PeakMemory(context.device):
        with CostMeter(method) as meter:
            predict()
        peak = peak_memory(context.device)
    return CostEstimate(meter.seconds / count, memory_mb=peak, source=MEASURED_NOW)
