"""The two stages that need a network: fitting a method, and predicting a split with it.

Both keep what they have as they go: training its latest state, prediction its finished shards. They
know no experiment and no dataset, only a method, splits and levels.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...datasets.base import Split
from ...datasets.io.hdf5_output import writing_hdf5
from ...engine.profiling.cost import (
    CostMeter,
    FlopCount,
    count_flops,
    count_parameters,
    device_name,
    peak_memory,
    reset_peak_memory,
)
from ...engine.runtime.context import Interrupted, TrainingContext
from ...engine.runtime.determinism import record_nondeterminism
from ...engine.runtime.learning_curve import LearningCurve
from ...engine.runtime.out_of_memory import batch_limit, retry_out_of_memory
from ...engine.runtime.rng import Rng
from ...engine.training.loss import NotFinite
from ...methods.base import Detection, Method
from ..evaluation.maps_file import SHARD_SIZE, PredictionWriter, compress_maps
from ..evaluation.metrics.reconstruction import normal_psnr_ssim
from ..store.partial_state import PartialState, separate_tensors
from .freed_memory import return_freed_memory
from .shared_stages import SharedStageCache

GOLDEN_RATIO = 0.618
"""Multiples of it, without their integer part, keep away from each other."""

LIBRARIES = ("diffusion-adbench", "torch", "monai", "numpy", "scipy", "h5py")
"""Packages whose versions are recorded."""

LogEvent = Callable[[str, Mapping[str, Any]], None]
"""(event, facts): is called as work goes on."""


def load_method(method: Method, weights: Path, context: TrainingContext) -> Method:
    """Load fitted weights into a method, and move it to the device, ready to predict.

    weights: a file that `fit` wrote

    Raises RuntimeError where the weights are not this method's.

    >>> import tempfile
    >>> from adbench.datasets.base import Spec
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.methods.template_z import TemplateZ
    >>> method, data = TemplateZ(Spec(1, (16,))), Phantom(shape=(16,), train=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = Path(folder, "weights.safetensors")
    ...     _ = fit(weights, method, data.train(), data.calibration(), TrainingContext())
    ...     loaded = load_method(TemplateZ(Spec(1, (16,))), weights, TrainingContext())
    >>> torch.equal(loaded.mean, method.mean)
    True
    """
    method.load_state_dict(load_file(weights))
    context.place(method)
    return method.eval()


def fit(
    path: Path,
    method: Method,
    train: Split,
    calibration: Split,
    context: TrainingContext,
    make_stage_cache: Callable[[TrainingContext], SharedStageCache] | None = None,
) -> dict[str, Any]:
    """Fit a method, write its weights, and return what the training took.

    `curve` has the learning curve of every training made here, `selected_step` the number of steps
    that the weights of the main network were trained, None where nothing was.

    path: of the safetensors file to write
    method: with its first weights
    train, calibration: what the method learns from
    context: with the seed of the experiment, and where half-finished work is kept
    make_stage_cache: makes the cache of the stages that methods share; None to train them here

    Raises NotFinite where a weight is NaN or infinite; nothing is written then.

    >>> import tempfile
    >>> from adbench.datasets.base import Spec
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.methods.template_z import TemplateZ
    >>> method, data = TemplateZ(Spec(1, (16,))), Phantom(shape=(16,), train=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = Path(folder, "weights.safetensors")
    ...     facts = fit(weights, method, data.train(), data.calibration(), TrainingContext())
    >>> facts["train_steps"], facts["train_samples"], facts["device"] != ""
    (0, 8, True)
    """
    micro_batch: dict[str, Any] = {}
    curves: list[LearningCurve] = []
    log: LogEvent = context.on_event

    def on_event(event: str, facts: Mapping[str, Any]) -> None:
        if event == "oom":
            micro_batch.update(facts)
        log(event, facts)

    context = replace(context, on_event=on_event, on_curve=curves.append)
    stage_cache = make_stage_cache(context) if make_stage_cache is not None else None
    if stage_cache is not None:
        context = replace(context, shared_stages=stage_cache)
    reset_peak_memory(context.device)
    nondeterministic = set[str]()
    with record_nondeterminism(nondeterministic), CostMeter(method) as meter:
        method.fit(train, calibration, context)
    weights = method.state_dict()
    _check_finite(weights, "after training, weight")
    # of a method with imported weights, what else is trained is not counted
    plans = [] if context.imported else method.training_plans()
    batch, samples = (plans[0].batch, plans[0].steps * plans[0].batch) if plans else (0, 0)
    save_file(separate_tensors(weights), path)
    cost = _measure_cost(method, *_read_inputs(train, [0]), context)
    backward = 2  # a backward pass takes twice a forward pass
    return {
        "train_steps": sum(each.steps for each in plans),
        "train_samples": sum(each.steps * each.batch for each in plans)
        or (0 if context.imported else len(train)),
        "curve": [curve.as_dict() for curve in curves],
        "selected_step": next(
            (curve.selected_step for curve in curves if plans and curve.plan is plans[0]), None
        ),
        "train_micro_batch": micro_batch.get("micro", context.micro or batch),
        "train_gflops": (1 + backward) * cost.flops_per_evaluation * samples / 1e9,
        "gflops_per_evaluation": cost.flops / max(cost.evaluations, 1) / 1e9,
        "parameters": count_parameters(method),
        "train_seconds": meter.seconds + (stage_cache.reused_seconds if stage_cache else 0.0),
        "stages": dict(stage_cache.keys) if stage_cache else {},
        "peak_memory_mb": peak_memory(context.device),
        "device": device_name(context.device),
        "threads": torch.get_num_threads(),
        "nondeterministic": sorted(nondeterministic),
        "versions": _library_versions(),
    }


@torch.no_grad()
def predict(
    path: Path,
    method: Method,
    split: Split,
    levels: Sequence[int],
    context: TrainingContext,
    *,
    name: str,
    gallery: Sequence[int] = (),
) -> dict[str, Any]:
    """Predict scores and maps of a split at every level, write them, and return what it took.

    The HDF5 file has score (L, N), map (L, N, *S), reconstruction (L, gallery, C, *S), psnr and
    ssim (L, N), those that the method gives, and gallery and levels.

    path: of the file to write
    method: fitted, on the device
    context: with the seed of the experiment, and where finished shards are kept
    name: of the split, for events and messages
    gallery: indices of the samples whose reconstructions are kept

    Raises Interrupted where the context asks to stop, NotFinite where a score or a map is NaN.

    >>> import tempfile
    >>> from adbench.datasets.base import Spec
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.methods.template_z import TemplateZ
    >>> method, data = TemplateZ(Spec(1, (16,))), Phantom(shape=(16,), train=8)
    >>> method.fit(data.train(), data.calibration(), TrainingContext())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path, test = Path(folder, "maps.h5"), data.test()
    ...     facts = predict(path, method, test, [0], TrainingContext(), name="test")
    >>> facts["samples"] == len(test), facts["levels"]
    (True, 1)
    """
    reset_peak_memory(context.device)
    log: LogEvent = context.on_event
    nondeterministic = set[str]()
    starts = [*range(0, len(split), SHARD_SIZE)]
    done, fits, evaluations, seconds, samples = 0, False, 0, 0.0, 0
    with writing_hdf5(path) as output:
        writer = PredictionWriter(output.file, len(split))
        while done < len(starts):
            start = starts[done]
            if context.stop():
                raise Interrupted(f"stopped predicting {name} at sample {start}; all of it is kept")
            shard = context.state_store.load(f"shard-{start}")
            if shard is not None and _is_usable(shard, batch_limit(method) if fits else None):
                finished: Sequence[Mapping[str, Tensor]] = [shard]
            else:
                group = [start]
                for other in starts[done + 1 : done + _shards_together(method)]:
                    if context.state_store.load(f"shard-{other}") is not None:
                        break
                    group.append(other)
                parts = [range(i, min(i + SHARD_SIZE, len(split))) for i in group]
                work = partial(_predict_shards, method, split, parts, gallery, levels, context)
                with record_nondeterminism(nondeterministic):
                    if fits:
                        finished = work()
                    else:
                        stage = f"predicting {name}"
                        finished = retry_out_of_memory(work, method, context, stage, log)
                for number, each in zip(group, finished, strict=True):
                    context.state_store.save(f"shard-{number}", each)
            # one shape for the whole stage, also when resumed
            batch_limit(method, int(finished[0]["batch"]))
            fits = True
            for each in finished:
                writer.add(starts[done], each)
                done += 1
                samples += each["score"].shape[1]
                evaluations += int(each["evaluations"])
                seconds += float(each["seconds"])
            return_freed_memory()
            output.check()  # a full disk ends the prediction now, not after hours
            log("predict", {"part": name, "step": samples, "of": len(split)})
        writer.finish(levels=levels, gallery=gallery)
    samples = max(len(split), 1)
    return {
        "samples": len(split),
        "batch": batch_limit(method),
        "evaluations": evaluations / samples,
        "seconds": seconds / samples,
        "peak_memory_mb": peak_memory(context.device),
        "levels": len(levels),
        "device": device_name(context.device),
        "threads": torch.get_num_threads(),
        "nondeterministic": sorted(nondeterministic),
    }


def _is_usable(shard: Mapping[str, Tensor], batch: int | None) -> bool:
    """Whether a stored shard can be a part of the prediction.

    batch: rows of a network call in the shards before it; a helper may have had more memory. Maps
    that are not compressed are of an earlier version.
    """
    return "map" not in shard and batch in (None, int(shard["batch"]))


@torch.no_grad()
def predict_remaining_shards(
    method: Method,
    split: Split,
    levels: Sequence[int],
    context: TrainingContext,
    partial_state: PartialState,
    is_finished: Callable[[], bool],
    helper_number: int,
    *,
    name: str,
    gallery: Sequence[int] = (),
) -> int:
    """Predict shards for the process that predicts the same split, and return how many samples.

    That process goes from the start on; this one from the end back, or for a helper number above 1
    from elsewhere, until no shard is left.

    method, split, levels, context, name, gallery: as `predict` has them
    partial_state: where that process looks for finished shards
    is_finished: whether all of the split has been predicted
    helper_number: from 1, different for each helper

    >>> import tempfile
    >>> from adbench.datasets.base import Spec
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.methods.template_z import TemplateZ
    >>> method, data = TemplateZ(Spec(1, (16,))), Phantom(shape=(16,), train=8)
    >>> method.fit(data.train(), data.calibration(), TrainingContext())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     state, test = PartialState(Path(folder)), data.test()
    ...     count = predict_remaining_shards(
    ...         method, test, [0], TrainingContext(), state, lambda: False, 1, name="test"
    ...     )
    ...     count == len(test), "shard-0" in state
    (True, True)
    """
    log: LogEvent = context.on_event
    count = 0
    starts = range(0, len(split), SHARD_SIZE)[::-1]
    first = int(len(starts) * ((helper_number - 1) * GOLDEN_RATIO % 1))
    remaining = [*starts[first:], *starts[:first]]
    while not context.stop() and not is_finished():
        remaining = [start for start in remaining if f"shard-{start}" not in partial_state]
        group = remaining[: _shards_together(method)]
        if not group:
            break
        parts = [range(start, min(start + SHARD_SIZE, len(split))) for start in group]
        shards = _predict_shards(method, split, parts, gallery, levels, context)
        if is_finished():
            break
        for start, shard in zip(group, shards, strict=True):
            partial_state.save(f"shard-{start}", shard)
        if is_finished():  # meanwhile, and the other process has cleared the partial state
            partial_state.clear()
            break
        count += sum(map(len, parts))
        log("predict", {"part": name, "step": count, "of": len(split)})
    return count


def _shards_together(method: Method) -> int:
    """How many shards fill a batch of the method's networks; one where the other samples of a
    shard have a part in a sample's result."""
    return 1 if method.batch_dependent else max(1, batch_limit(method) // SHARD_SIZE)


def _predict_shards(
    method: Method,
    split: Split,
    parts: Sequence[range],
    gallery: Sequence[int],
    levels: Sequence[int],
    context: TrainingContext,
) -> list[dict[str, Tensor]]:
    """The shards of several ranges of samples, whose costs are shared among them by their sizes."""
    indices = [index for part in parts for index in part]
    x, keys = _read_inputs(split, indices)
    rng = Rng(keys, context.seed, context.device)
    with CostMeter(method) as meter:
        detection = method.detect(x.to(context.device), levels, rng)
        if not isinstance(detection, Detection):
            raise ValueError(f"detect returns a {type(detection).__name__}, not a Detection")
        detection.check(len(levels), x)
        shard = {"score": detection.score.double().cpu()}
        maps = None if detection.map is None else detection.map.float().cpu().contiguous()
    description = f"of samples {keys[0]} to {keys[-1]}, the"
    _check_finite(shard | ({} if maps is None else {"map": maps}), description)
    if detection.reconstruction is not None:
        _check_finite({"reconstruction": detection.reconstruction}, description)
        label = torch.tensor([split[i].label for i in indices], device=context.device)
        shard["psnr"], shard["ssim"] = normal_psnr_ssim(
            x.to(context.device), detection.reconstruction, label
        )
    rows = [row for row, index in enumerate(indices) if index in gallery]
    if detection.reconstruction is not None and rows:
        shard["reconstruction"] = detection.reconstruction[:, rows].float().cpu().contiguous()
    shards, end = list[dict[str, Tensor]](), 0
    retained = [sum(index in gallery for index in part) for part in parts]
    pictures = shard.pop("reconstruction", None)
    for i, part in enumerate(parts):
        begin, end = end, end + len(part)
        one = {name: value[:, begin:end].contiguous() for name, value in shard.items()}
        if pictures is not None and retained[i]:
            first = sum(retained[:i])
            one["reconstruction"] = pictures[:, first : first + retained[i]].contiguous()
        if maps is not None:
            compressed = compress_maps(maps[:, begin:end].numpy())
            one["map_chunks"] = torch.from_numpy(compressed.copy())
        before, after = (meter.evaluations * n // len(indices) for n in (begin, end))
        one["evaluations"] = torch.tensor(after - before)
        one["batch"] = torch.tensor(batch_limit(method))
        seconds = meter.seconds * len(part) / len(indices)
        one["seconds"] = torch.tensor(seconds, dtype=torch.float64)
        shards.append(one)
    return shards


def _read_inputs(split: Split, indices: Sequence[int]) -> tuple[Tensor, list[str]]:
    """x and the keys of some samples: while a method works, no label and no mask is in a frame."""
    samples = [split[i] for i in indices]
    return torch.stack([sample.x for sample in samples]), [sample.key for sample in samples]


def _check_finite(tensors: Mapping[str, Tensor], description: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NotFinite(f"{description} {name} is not finite; nothing was cached")


@torch.no_grad()
def _measure_cost(
    method: Method, x: Tensor, keys: Sequence[str], context: TrainingContext
) -> FlopCount:
    """FLOPs of predicting one sample at the published level, of all networks that take part."""
    context.place(method).eval()
    x, rng = x.to(context.device), Rng(keys, context.seed, context.device)
    return count_flops(method, lambda: method.detect(x, [method.published], rng))


def _library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
