"""Measure what a network waits for: samples from the disk while it trains, and noise."""

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
from ..experiments.matrix import Experiment
from ..experiments.resolve import build_method
from ..experiments.splits import Splits
from .inference import ratios, spread

TRAINING_STEPS = 9
"""Steps of training to measure its speed; the first three do not count."""


def measure_loading(
    experiment: Experiment,
    dataset: Dataset,
    context: TrainingContext,
    *,
    samples: int = 256,
    rounds: int = 3,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure the samples per second that the data loader delivers and that the training consumes.

    Training is measured with samples in memory. keeps_up in the result is the slowest pass of the
    loader divided by the training's speed; None for a method that does not train in steps.

    samples: about how many are loaded in each of the `rounds`
    machine: from `describe_machine`

    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments()
    >>> dataset, context = Phantom(shape=(16,)), TrainingContext(workers=0)
    >>> facts = measure_loading(
    ...     experiment, dataset, context, samples=16, rounds=2, machine={"device": "A CPU"}
    ... )
    >>> facts["samples"], len(facts["loaded_per_second"]["all"]), facts["keeps_up"]
    (16, 2, None)
    """
    method = build_method(experiment, dataset.spec)
    train = Splits(dataset, labelled=method.supervision == "image-labels")["train"]
    plans = method.training_plans()
    batch = plans[0].batch if plans else 16
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    indices = [order[i % len(order)] for i in range(max(samples // batch, 1) * batch)]
    rates = []
    with PeakMemory("cpu") as memory:
        for _ in range(rounds):
            start = time.perf_counter()
            index_batches = [indices[i : i + batch] for i in range(0, len(indices), batch)]
            with closing(iterate_batches(train, index_batches, context)) as batches:
                for _batch in batches:
                    pass
            synchronize(context.device)
            rates.append(len(indices) / (time.perf_counter() - start))
    in_memory = [train[i] for i in dict.fromkeys(indices[: 4 * batch])]
    training_rate = _training_rate(experiment, dataset, in_memory, context)
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
        "samples": len(indices),
        "loaded_per_second": spread(rates),
        "first_pass_per_second": rates[0],
        "trained_per_second": training_rate,
        "keeps_up": min(rates) / training_rate if training_rate else None,
        "peak_memory_mb": memory.peak,
        "resident_mb": peak_memory("cpu"),
    }


def _training_rate(
    experiment: Experiment, dataset: Dataset, samples: Sequence[Sample], context: TrainingContext
) -> float | None:
    """Samples per second of the method's training; None if it does not train in steps."""
    rates: list[float] = []

    def on_event(event: str, fields: Mapping[str, float]) -> None:
        if event == "train":
            rates.append(fields["rate"])

    method = build_method(experiment, dataset.spec)
    brief = replace(
        context,
        on_event=on_event,
        event_interval=0.0,
        workers=0,
        stop=lambda: len(rates) >= TRAINING_STEPS,
    )
    with suppress(Interrupted):
        method.fit(samples, samples[:1], brief)
    warmup = TRAINING_STEPS // 3
    return median(rates[warmup:]) if len(rates) > warmup else None


def measure_noise(
    context: TrainingContext,
    *,
    size: int = 256,
    images: int = 8,
    rounds: int = 5,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure the milliseconds for a field of simplex noise: six octaves, as in AnoDDPM.

    The engine creates `images` fields at a time; opensimplex's array function, compiled by numba,
    one octave of one field at a time on the CPU.

    size: side of the square field, in pixels
    machine: from `describe_machine`

    >>> facts = measure_noise(TrainingContext(), size=8, images=1, rounds=1, machine={})
    >>> facts["octaves"], facts["largest_difference"] < 1e-4
    (6, True)
    """
    noise, level = Simplex(), 250
    rng = Rng([str(i) for i in range(images)], 0, context.device)
    levels = torch.full((images,), level, device=context.device)

    def by_engine() -> Tensor:
        return noise(rng.at(0), (1, size, size), levels)

    seeds = rng.at(0).seeds(1).flatten().tolist()

    def by_opensimplex() -> Tensor:
        return opensimplex_fields(noise, seeds, size, level)

    difference = (by_engine().cpu().double() - by_opensimplex()).abs().max().item()
    engine, reference = time_interleaved([by_engine, by_opensimplex], rounds, context.device)
    return {
        "schema": 1,
        "what": "noise",
        "machine": machine,
        "size": size,
        "octaves": noise.octaves,
        "images": images,
        "ms_per_field": spread([1e3 * s / images for s in engine]),
        "opensimplex_ms_per_field": spread([1e3 * s / images for s in reference]),
        "ratio": ratios(reference, engine),
        "largest_difference": difference,
    }


def opensimplex_fields(noise: Simplex, seeds: Sequence[int], size: int, level: int) -> Tensor:
    """Return the fields of `noise`, (N, 1, size, size) float64, by the library opensimplex.

    AnoDDPM's own code is a copy of it. It uses as many threads as torch, if numba has so many.

    seeds: of the N fields
    level: the noise level, where the fields are cut along the third axis

    >>> opensimplex_fields(Simplex(), [0, 1], size=8, level=250).shape
    torch.Size([2, 1, 8, 8])
    """
    import numba
    from opensimplex import OpenSimplex

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    fields = np.zeros((len(seeds), 1, size, size))
    position = np.arange(size, dtype=np.float64)
    for field, seed in zip(fields, seeds, strict=True):
        source = OpenSimplex(seed)
        for octave in range(noise.octaves):
            scale = noise.frequency / 2**octave
            depth = np.array([(level - 1) / scale])
            field += noise.persistence**octave * source.noise3array(
                position / scale, position / scale, depth
            )
    torch.set_num_threads(threads)  # numba's pool, when it starts, sets OpenMP's as well
    return torch.from_numpy(fields)
