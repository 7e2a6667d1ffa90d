"""Measure how fast a method predicts, and against what; nothing is evaluated.

Weights are random: what a network has learnt does not change how long it takes. Workloads that are
compared compute the same, are interleaved within a round, and compared round by round.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from ...datasets.base import Batch, Dataset
from ...engine.profiling.cost import (
    CostMeter,
    PeakMemory,
    count_flops,
    count_parameters,
    device_name,
    measure_utilization,
    time_interleaved,
)
from ...engine.profiling.peak_throughput import measure_peak
from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment, sweep_levels
from ..experiments.resolve import build_method
from .reference_implementations import REFERENCES, Comparison, NotComparable, RepeatedPrediction


def describe_machine(context: TrainingContext, seconds: float = 0.5) -> dict[str, Any]:
    """Return the device of a context, and its highest measured throughput, in GFLOP/s.

    seconds: how long each operation is measured

    >>> machine = describe_machine(TrainingContext(batch=8), seconds=0.01)
    >>> machine["kind"], machine["dtype"], machine["batch"], machine["peak_gflops"] > 0
    ('cpu', 'float32', 8, True)
    """
    best = measure_peak(context.device, context.dtype, seconds)
    cores = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"  # AVX512, AVX2
    return {
        "device": device_name(context.device),
        "cores": cores if context.kind == "cpu" else "",
        "kind": context.kind,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": context.numerics,
        "compile": context.compiles,
        "batch": context.batch,
        "peak_gflops": best.flops / 1e9,
        "peak_of": {name: rate / 1e9 for name, rate in best.rates.items()},
    }


def measure_inference(
    experiment: Experiment,
    dataset: Dataset,
    context: TrainingContext,
    *,
    images: int = 8,
    rounds: int = 5,
    references: Sequence[str] = (),
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure the cost of predicting `images` test samples at all levels of an experiment.

    All levels are predicted in one pass. Every workload runs once before it is timed.

    rounds: how often each workload is timed
    references: names in REFERENCES to compare with
    machine: from `describe_machine`

    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments()
    >>> dataset, machine = Phantom(shape=(16,)), {"peak_gflops": 1.0}
    >>> facts = measure_inference(
    ...     experiment, dataset, TrainingContext(), images=2, rounds=1,
    ...     references=["separate"], machine=machine,
    ... )
    >>> facts["images"], facts["levels"], facts["against"]
    (2, [0], {'separate': {'unfit': 'sweeps one level only'}})
    """
    levels, test = _swept_levels(experiment), dataset.test()
    batch = Batch.from_samples([test[i] for i in range(min(images, len(test)))])
    x, count = batch.x.to(context.device), len(batch.keys)
    method = build_method(experiment, dataset.spec)
    predict = RepeatedPrediction(method, x, batch.keys, levels, context)
    context.place(method).eval()
    with CostMeter(method) as meter, PeakMemory(context.device) as memory:
        predict()
    cost = count_flops(method, partial(predict.predict, slice(1), levels))
    utilization = measure_utilization(method, predict)
    comparisons, unfit = _build_comparisons(references, experiment, predict, meter.evaluations)
    workloads = [predict, *(w for c in comparisons.values() for w in (c.slow, c.fast))]
    workloads = list(dict.fromkeys(workloads))
    for workload in workloads[1:]:
        workload()
    timings = time_interleaved(workloads, rounds, context.device)
    seconds = dict(zip(workloads, timings, strict=True))
    gflops, per_image = cost.flops / 1e9, [s / count for s in seconds[predict]]
    return {
        "schema": 1,
        "what": "method",
        "method": {
            "name": experiment.method.name,
            "label": experiment.method.label,
            "args": experiment.method_args,
        },
        "dataset": {
            "name": experiment.dataset.name,
            "channels": x.shape[1],
            "shape": [*x.shape[2:]],
        },
        "profile": experiment.profile,
        "levels": levels,
        "images": count,
        "weights": "random; speed does not depend on what was learnt",
        "machine": machine,
        "parameters": count_parameters(method),
        "evaluations_per_image": meter.evaluations / count,
        "gflops_per_image": gflops,
        "gflops_of_denoisers": cost.denoiser_flops / 1e9,
        "ms_per_image": spread([1e3 * s for s in per_image]),
        "images_per_second": spread([1 / s for s in per_image]),
        "gflops_per_second": spread([gflops / s for s in per_image]),
        "share_of_peak": spread([gflops / s / machine["peak_gflops"] for s in per_image]),
        "rows_filled": utilization.filled_share,
        "time_in_networks": utilization.network_share,
        "peak_memory_mb": memory.peak,
        "against": {
            name: {
                "what": comparison.description,
                "ms_per_image": spread([1e3 * s / count for s in seconds[comparison.slow]]),
                "ratio": ratios(seconds[comparison.slow], seconds[comparison.fast]),
            }
            for name, comparison in comparisons.items()
        }
        | {name: {"unfit": reason} for name, reason in unfit.items()},
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the median, least and most of the rounds, and all of them.

    >>> from adbench.benchmark.speed.inference import spread
    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0, 'all': [3.0, 1.0, 2.0]}
    """
    return {"median": median(values), "min": min(values), "max": max(values), "all": [*values]}


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """Return the spread of the ratios within each round.

    >>> from adbench.benchmark.speed.inference import ratios
    >>> ratios([4.0, 9.0], [2.0, 3.0])["all"]
    [2.0, 3.0]
    """
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


def _swept_levels(experiment: Experiment) -> list[int]:
    """The requested levels only: the published level is added for evaluation, not for speed."""
    method_class = experiment.method.load()
    if experiment.levels is not None and tuple(method_class.levels) != (0,):
        return sorted(experiment.levels)
    return sweep_levels(experiment, method_class)


def _build_comparisons(
    references: Sequence[str],
    experiment: Experiment,
    predict: RepeatedPrediction,
    evaluations: int,
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """The possible comparisons by name, and why the others are not possible."""
    comparisons, unfit = dict[str, Comparison](), dict[str, str]()
    for name in references:
        try:
            comparisons[name] = REFERENCES[name](experiment, predict, evaluations)
        except NotComparable as reason:
            unfit[name] = str(reason)
    return comparisons, unfit
