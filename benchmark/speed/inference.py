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
    Memory,
    Meter,
    device_name,
    paired,
    parameters,
    priced,
    shown_rows,
)
from ...engine.profiling.peak_throughput import peak
from ...engine.runtime.run import Run
from ..experiments.fit_predict import build
from ..experiments.matrix import Cell, levels_of
from .reference_implementations import RIVALS, Look, Rival, Unfit


def machine(run: Run, seconds: float = 0.5) -> dict[str, Any]:
    """What measures, and the most that it was seen to do in this process, GFLOP/s."""
    best = peak(run.device, run.dtype, seconds)
    return {
        "device": device_name(run.device),
        "kind": run.kind,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(run.dtype).removeprefix("torch."),
        "compile": run.compile,
        "batch": run.batch,
        "peak_gflops": best.flops / 1e9,
        "peak_of": {name: rate / 1e9 for name, rate in best.rates.items()},
    }


def measure(
    cell: Cell,
    dataset: Dataset,
    run: Run,
    *,
    images: int = 8,
    rounds: int = 5,
    against: Sequence[str] = (),
    where: Mapping[str, Any],
) -> dict[str, Any]:
    """What one method needs for `images` test samples, at all of the cell's levels in one pass.

    Whatever is timed is done once before, and that does not count. where: from `machine`.
    """
    levels, test = _levels(cell), dataset.test()
    batch = Batch.of([test[i] for i in range(min(images, len(test)))])
    x, count = batch.x.to(run.device), len(batch.keys)
    method = build(cell, dataset.spec)
    look = Look(method, x, batch.keys, levels, run)
    run.place(method).eval()
    with Meter(method) as meter, Memory(run.device) as memory:
        look()
    price = priced(method, partial(look.at, slice(1), levels))
    shown = shown_rows(method, look)
    rivals, unfit = _rivals(against, cell, look, meter.evaluations)
    works = list(dict.fromkeys([look, *(w for r in rivals.values() for w in (r.slow, r.fast))]))
    for work in works[1:]:
        work()
    seconds = dict(zip(works, paired(works, rounds, run.device), strict=True))
    gflops, taken = price.flops / 1e9, [s / count for s in seconds[look]]
    return {
        "schema": 1,
        "what": "method",
        "method": {"name": cell.method.name, "label": cell.method.label, "args": cell.method_args},
        "dataset": {"name": cell.dataset.name, "channels": x.shape[1], "shape": [*x.shape[2:]]},
        "profile": cell.profile,
        "levels": levels,
        "images": count,
        "weights": "random; speed does not depend on what was learnt",
        "machine": where,
        "parameters": parameters(method),
        "evaluations_per_image": meter.evaluations / count,
        "gflops_per_image": gflops,
        "gflops_of_denoisers": price.denoising / 1e9,
        "ms_per_image": spread([1e3 * s for s in taken]),
        "images_per_second": spread([1 / s for s in taken]),
        "gflops_per_second": spread([gflops / s for s in taken]),
        "share_of_peak": spread([gflops / s / where["peak_gflops"] for s in taken]),
        "rows_filled": shown.filled,
        "time_in_networks": shown.within,
        "peak_memory_mb": memory.peak,
        "against": {
            name: {
                "what": rival.what,
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


def _levels(cell: Cell) -> list[int]:
    """Those asked for, and no others: the published level belongs to judging."""
    cls = cell.method.load()
    sweeps = cell.levels is not None and tuple(cls.levels) != (0,)
    return sorted(cell.levels or ()) if sweeps else levels_of(cell, cls)


def _rivals(
    names: Sequence[str], cell: Cell, look: Look, evaluations: int
) -> tuple[dict[str, Rival], dict[str, str]]:
    rivals, unfit = dict[str, Rival](), dict[str, str]()
    for name in names:
        try:
            rivals[name] = RIVALS[name](cell, look, evaluations)
        except Unfit as reason:
            unfit[name] = str(reason)
    return rivals, unfit
