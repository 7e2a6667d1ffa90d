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
from ...engine.profiling.cost import Meter, Price, device_name, parameters, peak_memory, priced
from ...engine.runtime.out_of_memory import fitting, shown
from ...engine.runtime.rng import Rng
from ...engine.runtime.run import Interrupted, Keep, Run
from ...engine.training.loop import NotFinite, Training
from ...methods.base import Method
from ..evaluation.metrics.reconstruction import of_normal
from ..figures.gallery import gallery
from ..store.partial_state import Resume
from .matrix import Cell, levels_of, split_of
from .shared_stages import Shelf

SHARD = 32
"""Samples a method is shown at a time, and that a killed look loses at most."""

GOLDEN = 0.618
"""Multiples of it, without their whole part, keep away from each other."""

LIBRARIES = ("diffusion-adbench", "torch", "monai", "numpy", "scipy", "h5py")

Tell = Callable[[str, Mapping[str, Any]], None]


def build(cell: Cell, spec: Spec) -> Method:
    """The method with its first weights, which depend on the cell's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return cell.method.load()(spec, **cell.method_args)


def recall(cell: Cell, spec: Spec, weights: Path, run: Run) -> Method:
    """The method as it was fitted, on the device, ready to look."""
    method = build(cell, spec)
    method.load_state_dict(load_file(weights))
    run.place(method)
    return method.eval()


def fit(
    path: Path,
    cell: Cell,
    dataset: Dataset,
    run: Run,
    keep: Keep,
    tell: Tell,
    shelved: Callable[[Run], Shelf] | None = None,
) -> dict[str, Any]:
    """shelved: the shelf of the stages that methods share, for a run."""
    method = build(cell, dataset.spec)
    labelled = method.supervision == "image-labels"
    train = split_of(dataset, "train", cell.limit, labelled)
    held_out = split_of(dataset, "held_out", cell.limit)
    micro: dict[str, Any] = {}

    def noted(event: str, facts: Mapping[str, Any]) -> None:
        if event == "oom":
            micro.update(facts)
        tell(event, facts)

    run = replace(run, seed=cell.seed, keep=keep, tell=noted)
    shelf = shelved(run) if shelved is not None else None
    run = run if shelf is None else replace(run, shelf=shelf)
    with Meter(method) as meter:
        method.fit(train, held_out, run)
    _finite({key: value for key, value in method.state_dict().items()}, "after training, weight")
    plan = getattr(method, "plan", None)
    plans = [value for value in vars(method).values() if isinstance(value, Training)]
    seen = plan.steps * plan.batch if isinstance(plan, Training) else 0
    batch = plan.batch if isinstance(plan, Training) else 0
    save_file({k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}, path)
    price = _price(method, train[0], run)
    return {
        "train_steps": sum(each.steps for each in plans),
        "train_samples": sum(each.steps * each.batch for each in plans) or len(train),
        "train_micro_batch": micro.get("micro", run.micro or batch),
        "train_gflops": 3 * price.each * seen / 1e9,  # the denoiser; backward is twice
        "gflops_per_evaluation": price.flops / max(price.evaluations, 1) / 1e9,
        "parameters": parameters(method),
        "train_seconds": meter.seconds + (shelf.borrowed if shelf else 0.0),
        "stages": dict(shelf.used) if shelf else {},
        "peak_memory_mb": peak_memory(run.device),
        "device": device_name(run.device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }


@torch.no_grad()
def look(
    path: Path,
    cell: Cell,
    method: Method,
    dataset: Dataset,
    part: str,
    run: Run,
    keep: Keep,
    tell: Tell,
) -> dict[str, Any]:
    """Scores and maps of a split at every level, shard by shard, into one HDF5 file."""
    split, levels = split_of(dataset, part, cell.limit), levels_of(cell, type(method))
    drawn = gallery(split) if part == "test" else []
    run = replace(run, tell=tell)
    shards: list[Mapping[str, Tensor]] = []
    fits = False
    for start in range(0, len(split), SHARD):
        if run.stop():
            raise Interrupted(f"stopped looking at {part} sample {start}; all of it is kept")
        index = range(start, min(start + SHARD, len(split)))
        shard = keep.load(f"shard-{start}")
        if shard is not None and fits and int(shard["batch"]) != shown(method):
            shard = None  # a helper had more memory
        if shard is None:
            work = partial(_shard, cell, method, split, index, drawn, levels, run)
            shard = work() if fits else fitting(work, method, run, f"looking at {part}")
            keep.save(f"shard-{start}", shard)
        shown(method, int(shard["batch"]))  # one shape for the whole stage, also when resumed
        fits = True
        shards.append(shard)
        tell("look", {"part": part, "step": index[-1] + 1, "of": len(split)})
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
        "batch": shown(method),
        "evaluations": sum(int(s["evaluations"]) for s in shards) / samples,
        "seconds": sum(float(s["seconds"]) for s in shards) / samples,
        "peak_memory_mb": peak_memory(run.device),
        "levels": len(levels),
        "device": device_name(run.device),
        "threads": torch.get_num_threads(),
    }


@torch.no_grad()
def look_along(
    cell: Cell,
    method: Method,
    dataset: Dataset,
    part: str,
    run: Run,
    keep: Resume,
    tell: Tell,
    made: Callable[[], bool],
    share: int,
) -> int:
    """Shards of a split for whoever looks at it from its start, until there is none left or all is
    `made`; how many samples they have. From the end on, or for a share above 1 from elsewhere."""
    split, levels = split_of(dataset, part, cell.limit), levels_of(cell, type(method))
    drawn, count = gallery(split) if part == "test" else [], 0
    starts = range(0, len(split), SHARD)[::-1]
    first = int(len(starts) * ((share - 1) * GOLDEN % 1))
    for start in [*starts[first:], *starts[:first]]:
        if run.stop() or made():
            break
        if f"shard-{start}" in keep:
            continue
        index = range(start, min(start + SHARD, len(split)))
        shard = _shard(cell, method, split, index, drawn, levels, run)
        if made():
            break
        keep.save(f"shard-{start}", shard)
        if made():  # meanwhile, and what was kept was swept away
            keep.clear()
            break
        count += len(index)
        tell("look", {"part": part, "step": count, "of": len(split)})
    return count


def _shard(
    cell: Cell,
    method: Method,
    split: Split,
    index: Sequence[int],
    drawn: Sequence[int],
    levels: Sequence[int],
    run: Run,
) -> dict[str, Tensor]:
    batch = Batch.of([split[i] for i in index])
    rng = Rng(batch.keys, cell.seed, run.device)
    with Meter(method) as meter, run.autocast():
        found = method.detect(batch.x.to(run.device), levels, rng)
        shard = {"score": found.score.double().cpu()}
        if found.map is not None:
            shard["map"] = found.map.float().cpu().contiguous()
    _finite(shard, f"of samples {batch.keys[0]} to {batch.keys[-1]}, the")
    if found.reconstruction is not None:
        shard["psnr"], shard["ssim"] = of_normal(
            batch.x.to(run.device), found.reconstruction, batch.label.to(run.device)
        )
    wanted = [i for i, j in enumerate(index) if j in drawn]
    if found.reconstruction is not None and wanted:
        shard["reconstruction"] = found.reconstruction[:, wanted].float().cpu().contiguous()
    shard["evaluations"] = torch.tensor(meter.evaluations)
    shard["batch"] = torch.tensor(shown(method))
    shard["seconds"] = torch.tensor(meter.seconds, dtype=torch.float64)
    return shard


def _finite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NotFinite(f"{where} {name} is not finite; nothing was cached")


@torch.no_grad()
def _price(method: Method, sample: Sample, run: Run) -> Price:
    """Of one look at one sample at the published level, with every network that takes part."""
    run.place(method).eval()
    x, rng = sample.x[None].to(run.device), Rng([sample.key], run.seed, run.device)
    with run.autocast():
        return priced(method, lambda: method.detect(x, [method.published], rng))


def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
