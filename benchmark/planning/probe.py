"""A short measurement of what nobody has run yet: some steps of training, and one look.

Weights are random: what a network has learnt does not change how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ...datasets.base import Batch, Dataset
from ...engine.profiling.cost import Memory, Meter, peak_memory
from ...engine.runtime.run import Run
from ..experiments.fit_predict import build
from ..experiments.matrix import Cell, split_of
from ..speed.data_loading import feeding
from ..speed.reference_implementations import Look
from .history import LENGTH, Guess

LOOKING = {"sampling_steps", "inpaint_steps", "critic_steps", "decay_steps"}
"""Arguments named after steps that train no network of their own."""

NOW = "measured now"


def weight(cell: Cell, dataset: Dataset) -> int:
    """Bytes of a checkpoint."""
    return sum(
        v.numel() * v.element_size() for v in build(cell, dataset.spec).state_dict().values()
    )


def training(cell: Cell, dataset: Dataset, run: Run) -> Guess:
    """Seconds of the whole training from its first steps; unknown of what trains otherwise."""
    args = cell.method_args
    other = [key for key in args if key.endswith("_steps") and key not in LOOKING]
    if other or not args.get(LENGTH):
        why = f"trains {', '.join(other)} too" if other else "does not train in steps"
        return Guess(source=f"not measured: it {why}")
    with Memory(run.device):
        batch = int(args.get("batch", 16))
        found = feeding(cell, dataset, run, samples=4 * batch, rounds=1, where={})
        peak = peak_memory(run.device)
    if not found["trained_per_second"]:
        return Guess(memory=peak, source="not measured: its training tells nothing of its speed")
    seconds = args[LENGTH] * found["batch"] / found["trained_per_second"]
    return Guess(seconds, memory=peak, source=NOW)


def looking(cell: Cell, dataset: Dataset, run: Run, levels: Sequence[int]) -> Guess:
    """Seconds that a look at one sample takes, from one at as many as fill a batch."""
    test = split_of(dataset, "test", cell.limit)
    count = min(max(ceil(run.batch / len(levels)), 1), len(test))
    if not count:
        return Guess(0.0, source=NOW)
    batch = Batch.of([test[i] for i in range(count)])
    method = build(cell, dataset.spec)
    look = Look(method, batch.x.to(run.device), batch.keys, levels, run)
    run.place(method).eval()
    look.at(slice(1), levels[:1])  # what is done once, such as compiling, does not count
    with Memory(run.device):
        with Meter(method) as meter:
            look()
        peak = peak_memory(run.device)
    return Guess(meter.seconds / count, memory=peak, source=NOW)
