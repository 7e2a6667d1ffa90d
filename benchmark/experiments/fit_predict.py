"""The two stages that need a network: fitting a method, and letting it look at a split.

Both keep what they have as they go: training its last step kept, looking its whole shards.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...datasets.base import Batch, Dataset, Sample, Spec, Split
from ...engine.profiling.cost import (
    CostMeter,
    FlopCount,
    count_flops,
    count_parameters,
    device_name,
    peak_memory,
)
from ...engine.runtime.context import Interrupted, StateStore, TrainingContext
from ...engine.runtime.out_of_memory import batch_limit, retry_out_of_memory
from ...engine.runtime.rng import Rng
from ...engine.training.loop import NotFinite, Training
from ...methods.base import Method
from ..evaluation.metrics.reconstruction import normal_psnr_ssim
from ..figures.gallery import gallery
from ..store.partial_state import PartialState
from .matrix import Experiment, load_split, sweep_levels
from .shared_stages import SharedStageCache

SHARD_SIZE = 32
"""Samples a method is shown at a time, and that a killed look loses at most."""

GOLDEN_RATIO = 0.618
"""Multiples of it, without their whole part, keep away from each other."""

LIBRARIES = ("diffusion-adbench", "torch", "monai", "numpy", "scipy", "h5py")

LogEvent = Callable[[str, Mapping[str, Any]], None]


def build_method(experiment: Experiment, spec: Spec) -> Method:
    """The method with its first weights, which depend on the cell's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        return experiment.method.load()(spec, **experiment.method_args)


def load_method(
    experiment: Experiment, spec: Spec, weights: Path, context: TrainingContext
) -> Method:
    """The method as it was fitted, on the device, ready to look."""
    method = build_method(experiment, spec)
    method.load_state_dict(load_file(weights))
    context.place(method)
    return method.eval()


def fit(
    path: Path,
    experiment: Experiment,
    dataset: Dataset,
    context: TrainingContext,
    state_store: StateStore,
    log: LogEvent,
    make_stage_cache: Callable[[TrainingContext], SharedStageCache] | None = None,
) -> dict[str, Any]:
    """make_stage_cache: the shelf of the stages that methods share, for a run."""
    method = build_method(experiment, dataset.spec)
    labelled = method.supervision == "image-labels"
    train = load_split(dataset, "train", experiment.limit, labelled)
    held_out = load_split(dataset, "held_out", experiment.limit)
    micro: dict[str, Any] = {}

    def noted(event: str, facts: Mapping[str, Any]) -> None:
        if event == "oom":
            micro.update(facts)
        log(event, facts)

    context = replace(context, seed=experiment.seed, state_store=state_store, on_event=noted)
    shelf = make_stage_cache(context) if make_stage_cache is not None else None
    context = context if shelf is None else replace(context, shared_stages=shelf)
    with CostMeter(method) as meter:
        method.fit(train, held_out, context)
    _check_finite(
        {key: value for key, value in method.state_dict().items()}, "after training, weight"
    )
    plan = getattr(method, "plan", None)
    plans = [value for value in vars(method).values() if isinstance(value, Training)]
    seen = plan.steps * plan.batch if isinstance(plan, Training) else 0
    batch = plan.batch if isinstance(plan, Training) else 0
    save_file({k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}, path)
    price = _measure_cost(method, train[0], context)
    return {
        "train_steps": sum(each.steps for each in plans),
        "train_samples": sum(each.steps * each.batch for each in plans) or len(train),
        "train_micro_batch": micro.get("micro", context.micro or batch),
        "train_gflops": 3
        * price.flops_per_evaluation
        * seen
        / 1e9,  # the denoiser; backward is twice
        "gflops_per_evaluation": price.flops / max(price.evaluations, 1) / 1e9,
        "parameters": count_parameters(method),
        "train_seconds": meter.seconds + (shelf.reused_seconds if shelf else 0.0),
        "stages": dict(shelf.keys) if shelf else {},
        "peak_memory_mb": peak_memory(context.device),
        "device": device_name(context.device),
        "threads": torch.get_num_threads(),
        "versions": _library_versions(),
    }


@torch.no_grad()
def predict(
    path: Path,
    experiment: Experiment,
    method: Method,
    dataset: Dataset,
    split_name: str,
    context: TrainingContext,
    state_store: StateStore,
    log: LogEvent,
) -> dict[str, Any]:
    """Scores and maps of a split at every level, shard by shard, into one HDF5 file."""
    split, levels = (
        load_split(dataset, split_name, experiment.limit),
        sweep_levels(experiment, type(method)),
    )
    drawn = gallery(split) if split_name == "test" else []
    context = replace(context, on_event=log)
    shards: list[Mapping[str, Tensor]] = []
    fits = False
    for start in range(0, len(split), SHARD_SIZE):
        if context.stop():
            raise Interrupted(f"stopped looking at {split_name} sample {start}; all of it is kept")
        index = range(start, min(start + SHARD_SIZE, len(split)))
        shard = state_store.load(f"shard-{start}")
        if shard is not None and fits and int(shard["batch"]) != batch_limit(method):
            shard = None  # a helper had more memory
        if shard is None:
            work = partial(_predict_shard, experiment, method, split, index, drawn, levels, context)
            shard = (
                work()
                if fits
                else retry_out_of_memory(
                    work, method, context, f"looking at {split_name}", context.on_event
                )
            )
            state_store.save(f"shard-{start}", shard)
        batch_limit(method, int(shard["batch"]))  # one shape for the whole stage, also when resumed
        fits = True
        shards.append(shard)
        log("look", {"part": split_name, "step": index[-1] + 1, "of": len(split)})
    with h5py.File(path, "w") as file:
        for what in ("score", "map", "reconstruction", "psnr", "ssim"):
            parts = [shard[what] for shard in shards if what in shard]
            if parts:
                file[what] = torch.cat(parts, 1).numpy()
        file["gallery"] = np.array(drawn, dtype=np.int64)
        file["levels"] = np.array(levels, dtype=np.int64)
    samples = max(len(split), 1)
    return {
        "samples": len(split),
        "batch": batch_limit(method),
        "evaluations": sum(int(s["evaluations"]) for s in shards) / samples,
        "seconds": sum(float(s["seconds"]) for s in shards) / samples,
        "peak_memory_mb": peak_memory(context.device),
        "levels": len(levels),
        "device": device_name(context.device),
        "threads": torch.get_num_threads(),
    }


@torch.no_grad()
def predict_remaining_shards(
    experiment: Experiment,
    method: Method,
    dataset: Dataset,
    split_name: str,
    context: TrainingContext,
    partial_state: PartialState,
    log: LogEvent,
    is_finished: Callable[[], bool],
    helper_number: int,
) -> int:
    """Shards of a split for whoever looks at it from its start, until there is none left or all is
    `is_finished`; how many samples they have. From the end on, or for a share above 1 from
    elsewhere."""
    split, levels = (
        load_split(dataset, split_name, experiment.limit),
        sweep_levels(experiment, type(method)),
    )
    drawn, count = gallery(split) if split_name == "test" else [], 0
    starts = range(0, len(split), SHARD_SIZE)[::-1]
    first = int(len(starts) * ((helper_number - 1) * GOLDEN_RATIO % 1))
    for start in [*starts[first:], *starts[:first]]:
        if context.stop() or is_finished():
            break
        if f"shard-{start}" in partial_state:
            continue
        index = range(start, min(start + SHARD_SIZE, len(split)))
        shard = _predict_shard(experiment, method, split, index, drawn, levels, context)
        if is_finished():
            break
        partial_state.save(f"shard-{start}", shard)
        if is_finished():  # meanwhile, and what was kept was swept away
            partial_state.clear()
            break
        count += len(index)
        log("look", {"part": split_name, "step": count, "of": len(split)})
    return count


def _predict_shard(
    experiment: Experiment,
    method: Method,
    split: Split,
    indices: Sequence[int],
    gallery_indices: Sequence[int],
    levels: Sequence[int],
    context: TrainingContext,
) -> dict[str, Tensor]:
    batch = Batch.from_samples([split[i] for i in indices])
    rng = Rng(batch.keys, experiment.seed, context.device)
    with CostMeter(method) as meter, context.autocast():
        found = method.detect(batch.x.to(context.device), levels, rng)
        shard = {"score": found.score.double().cpu()}
        if found.map is not None:
            shard["map"] = found.map.float().cpu().contiguous()
    _check_finite(shard, f"of samples {batch.keys[0]} to {batch.keys[-1]}, the")
    if found.reconstruction is not None:
        shard["psnr"], shard["ssim"] = normal_psnr_ssim(
            batch.x.to(context.device), found.reconstruction, batch.label.to(context.device)
        )
    wanted = [i for i, j in enumerate(indices) if j in gallery_indices]
    if found.reconstruction is not None and wanted:
        shard["reconstruction"] = found.reconstruction[:, wanted].float().cpu().contiguous()
    shard["evaluations"] = torch.tensor(meter.evaluations)
    shard["batch"] = torch.tensor(batch_limit(method))
    shard["seconds"] = torch.tensor(meter.seconds, dtype=torch.float64)
    return shard


def _check_finite(tensors: Mapping[str, Tensor], description: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NotFinite(f"{description} {name} is not finite; nothing was cached")


@torch.no_grad()
def _measure_cost(method: Method, sample: Sample, context: TrainingContext) -> FlopCount:
    """Of one look at one sample at the published level, with every network that takes part."""
    context.place(method).eval()
    x, rng = sample.x[None].to(context.device), Rng([sample.key], context.seed, context.device)
    with context.autocast():
        return count_flops(method, lambda: method.detect(x, [method.published], rng))


def _library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
