"""How fast a method looks at samples, and against what: everything timed, nothing judged.

Weights are random: what a network has learnt does not change how long it takes. Jobs that are
compared do the same thing, take turns within a round, and are compared round by round.
"""

from __future__ import annotations

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
from ..experiments.fit_predict import build_method
from ..experiments.matrix import Experiment, sweep_levels
from .reference_implementations import REFERENCES, Comparison, NotComparable, RepeatedPrediction


def describe_machine(context: TrainingContext, seconds: float = 0.5) -> dict[str, Any]:
    """What measures, and the most that it was seen to do in this process, GFLOP/s."""
    best = measure_peak(context.device, context.dtype, seconds)
    return {
        "device": device_name(context.device),
        "kind": context.kind,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(context.dtype).removeprefix("torch."),
        "compile": context.compile,
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
    """What one method needs for `images` test samples, at all of the cell's levels in one pass.

    Whatever is timed is done once before, and that does not count. machine: from `machine`.
    """
    levels, test = _swept_levels(experiment), dataset.test()
    batch = Batch.from_samples([test[i] for i in range(min(images, len(test)))])
    x, count = batch.x.to(context.device), len(batch.keys)
    method = build_method(experiment, dataset.spec)
    look = RepeatedPrediction(method, x, batch.keys, levels, context)
    context.place(method).eval()
    with CostMeter(method) as meter, PeakMemory(context.device) as memory:
        look()
    price = count_flops(method, partial(look.predict, slice(1), levels))
    shown = measure_utilization(method, look)
    rivals, unfit = _build_comparisons(references, experiment, look, meter.evaluations)
    works = list(dict.fromkeys([look, *(w for r in rivals.values() for w in (r.slow, r.fast))]))
    for work in works[1:]:
        work()
    seconds = dict(zip(works, time_interleaved(works, rounds, context.device), strict=True))
    gflops, taken = price.flops / 1e9, [s / count for s in seconds[look]]
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
        "gflops_of_denoisers": price.denoiser_flops / 1e9,
        "ms_per_image": spread([1e3 * s for s in taken]),
        "images_per_second": spread([1 / s for s in taken]),
        "gflops_per_second": spread([gflops / s for s in taken]),
        "share_of_peak": spread([gflops / s / machine["peak_gflops"] for s in taken]),
        "rows_filled": shown.filled_share,
        "time_in_networks": shown.network_share,
        "peak_memory_mb": memory.peak,
        "against": {
            name: {
                "what": rival.description,
                "ms_per_image": spread([1e3 * s / count for s in seconds[rival.slow]]),
                "ratio": spread(
                    [a / b for a, b in zip(seconds[rival.slow], seconds[rival.fast], strict=True)]
                ),
            }
            for name, rival in rivals.items()
        }
        | {name: {"unfit": reason} for name, reason in unfit.items()},
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": median(values), "min": min(values), "max": max(values), "all": [*values]}


def _swept_levels(cell: Experiment) -> list[int]:
    """Those asked for, and no others: the published level belongs to judging."""
    cls = cell.method.load()
    sweeps = cell.levels is not None and tuple(cls.levels) != (0,)
    return sorted(cell.levels or ()) if sweeps else sweep_levels(cell, cls)


def _build_comparisons(
    names: Sequence[str], cell: Experiment, look: RepeatedPrediction, evaluations: int
) -> tuple[dict[str, Comparison], dict[str, str]]:
    rivals, unfit = dict[str, Comparison](), dict[str, str]()
    for name in names:
        try:
            rivals[name] = REFERENCES[name](cell, look, evaluations)
        except NotComparable as reason:
            unfit[name] = str(reason)
    return rivals, unfit
