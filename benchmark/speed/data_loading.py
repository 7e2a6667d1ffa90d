"""What a network waits for: samples from the disk while it is trained, and noise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Dataset, Sample
from ...engine.noise.noise import Simplex
from ...engine.profiling.cost import PeakMemory, peak_memory, synchronize, time_interleaved
from ...engine.runtime.context import Interrupted, TrainingContext
from ...engine.runtime.rng import Rng
from ...engine.training.data_loading import iterate_batches
from ...engine.training.loop import Training
from ..experiments.fit_predict import build_method
from ..experiments.matrix import Experiment, load_split
from .inference import spread

TRAINING_STEPS = 9
"""Of training, to see how fast it goes; the first three do not count."""


def measure_loading(
    experiment: Experiment,
    dataset: Dataset,
    context: TrainingContext,
    *,
    samples: int = 256,
    rounds: int = 3,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Samples per second that the training loader delivers, and that the method's training takes
    in when all of them lie in memory. keeps_up: the slowest pass by the latter."""
    method = build_method(experiment, dataset.spec)
    train = load_split(dataset, "train", None, method.supervision == "image-labels")
    plan = getattr(method, "plan", None)
    batch = plan.batch if isinstance(plan, Training) else 16
    index = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    index = [index[i % len(index)] for i in range(max(samples // batch, 1) * batch)]
    rates = []
    with PeakMemory("cpu") as memory:
        for _ in range(rounds):
            start = time.perf_counter()
            picks = [index[i : i + batch] for i in range(0, len(index), batch)]
            with closing(iterate_batches(train, picks, context)) as reading:
                for _batch in reading:
                    pass
            synchronize(context.device)
            rates.append(len(index) / (time.perf_counter() - start))
    taken = _training_rate(
        experiment, dataset, [train[i] for i in dict.fromkeys(index[: 4 * batch])], context
    )
    return {
        "schema": 1,
        "what": "loading",
        "method": {"name": experiment.method.name, "label": experiment.method.label},
        "dataset": {
            "name": experiment.dataset.name,
            "channels": dataset.spec.channels,
            "shape": [*dataset.spec.shape],
            "samples": len(train),
        },
        "profile": experiment.profile,
        "machine": machine,
        "workers": context.num_workers,
        "batch": batch,
        "samples": len(index),
        "loaded_per_second": spread(rates),
        "first_pass_per_second": rates[0],
        "trained_per_second": taken,
        "keeps_up": min(rates) / taken if taken else None,
        "peak_memory_mb": memory.peak,
        "resident_mb": peak_memory("cpu"),
    }


def _training_rate(
    cell: Experiment, dataset: Dataset, samples: Sequence[Sample], run: TrainingContext
) -> float | None:
    """Samples per second of the method's own training; None if it does not train in steps."""
    rates: list[float] = []

    def tell(event: str, facts: Mapping[str, float]) -> None:
        if event == "train":
            rates.append(facts["rate"])

    method = build_method(cell, dataset.spec)
    brief = replace(
        run, on_event=tell, event_interval=0.0, workers=0, stop=lambda: len(rates) >= TRAINING_STEPS
    )
    with suppress(Interrupted):
        method.fit(samples, samples[:1], brief)
    return median(rates[TRAINING_STEPS // 3 :]) if len(rates) > TRAINING_STEPS // 3 else None


def measure_noise(
    context: TrainingContext,
    *,
    size: int = 256,
    images: int = 8,
    rounds: int = 5,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Milliseconds for a field of simplex noise as AnoDDPM has it, six octaves on size x size:
    the engine's, `images` at a time, against opensimplex's array function, one octave of one field
    at a time on the CPU, compiled by numba."""
    noise, level = Simplex(), 250
    rng = Rng([str(i) for i in range(images)], 0, context.device)
    levels = torch.full((images,), level, device=context.device)

    def ours() -> Tensor:
        return noise(rng.at(0), (1, size, size), levels)

    seeds = rng.at(0).seeds(1).flatten().tolist()

    def theirs() -> Tensor:
        return opensimplex_fields(noise, seeds, size, level)

    apart = (ours().cpu().double() - theirs()).abs().max().item()
    mine, other = time_interleaved([ours, theirs], rounds, context.device)
    return {
        "schema": 1,
        "what": "noise",
        "machine": machine,
        "size": size,
        "octaves": noise.octaves,
        "images": images,
        "ms_per_field": spread([1e3 * s / images for s in mine]),
        "opensimplex_ms_per_field": spread([1e3 * s / images for s in other]),
        "ratio": spread([b / a for a, b in zip(mine, other, strict=True)]),
        "largest_difference": apart,
    }


def opensimplex_fields(noise: Simplex, seeds: Sequence[int], size: int, level: int) -> Tensor:
    """The same fields (N, 1, size, size) float64, from the library that the authors' code is a
    copy of; on as many threads as torch has, where numba has so many."""
    import numba
    from opensimplex import OpenSimplex

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    made = np.zeros((len(seeds), 1, size, size))
    place = np.arange(size, dtype=np.float64)
    for field, seed in zip(made, seeds, strict=True):
        source = OpenSimplex(seed)
        for octave in range(noise.octaves):
            scale = noise.frequency / 2**octave
            depth = np.array([(level - 1) / scale])
            field += noise.persistence**octave * source.noise3array(
                place / scale, place / scale, depth
            )
    torch.set_num_threads(threads)  # numba's pool, when it starts, sets OpenMP's as well
    return torch.from_numpy(made)
