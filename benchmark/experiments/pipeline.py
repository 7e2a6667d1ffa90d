"""One cell, start to end: fit or recall, look at held-out, validation and test, judge, record.

Every stage asks the store first; what was killed goes on from what it kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from ...datasets.base import Dataset
from ...engine.runtime.context import TrainingContext
from ...methods.base import Method
from ..evaluation.evaluate import Predictions, evaluate
from ..evaluation.sample_results import read_evaluation, read_sample_results, write_sample_results
from ..evaluation.synthetic_anomalies import concatenate_predictions
from ..evaluation.tile_stitching import StitchedMaps, TiledImages, samples_without_images
from ..figures.gallery import array, show, stored
from ..registry.code_fingerprint import loaded_code_digest, modules_digest
from ..store.artifact_store import Artifact, Store, atomic_path, canonical_json
from ..store.cache_key import cache_key, to_json_dict
from .distributed import announce_training
from .fit_predict import LogEvent, fit, load_method, predict, predict_remaining_shards
from .matrix import (
    PREDICTED_SPLITS,
    Experiment,
    checkpoint_key_inputs,
    data_key_inputs,
    load_split,
    maps_key_inputs,
    predicted_splits,
    sweep_levels,
)
from .shared_stages import SharedStageCache


@cache
def evaluation_code() -> str:
    """The digest of what judges, when this was first asked (fingerprint.loaded_code)."""
    return modules_digest(sorted((Path(__file__).parents[1] / "evaluation").rglob("*.py")))


@dataclass(frozen=True)
class KeyInputs:
    """The identities of a cell's stages, each holding those before it."""

    checkpoint: Mapping[str, Any]
    maps: Mapping[str, Mapping[str, Any]]
    record: Mapping[str, Any]


def experiment_key_inputs(
    experiment: Experiment, dataset: Dataset, context: TrainingContext
) -> KeyInputs:
    cls = experiment.method.load()
    dtype = str(context.dtype).removeprefix("torch.")
    train = to_json_dict(
        checkpoint_key_inputs(experiment, dataset, cls, loaded_code_digest(cls), dtype)
    )
    maps = {
        part: to_json_dict(maps_key_inputs(experiment, dataset, cls, train, part))
        for part in predicted_splits(experiment)
    }
    record = {"maps": maps, "protocol": experiment.protocol.as_dict(), "code": evaluation_code()}
    return KeyInputs(train, maps, to_json_dict(record))


def run_experiment(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    log: LogEvent,
    image_folder: Path,
) -> dict[str, Any]:
    """The cell's record. Raises whatever a stage raises; what is whole by then stays stored."""
    ids = experiment_key_inputs(experiment, dataset, context)
    cls = experiment.method.load()
    keep = store.partial_state("checkpoint", ids.checkpoint)
    with announce_training(context.team) as call:

        def train(path: Path) -> dict[str, Any]:
            call()
            return fit(
                path,
                experiment,
                dataset,
                context,
                keep,
                log,
                partial(SharedStageCache, store, ids.checkpoint),
            )

        weights = store.get_or_create(
            "checkpoint", ids.checkpoint, train, name="weights.safetensors"
        )
    keep.clear()
    log("checkpoint", {"fresh": weights.created, "key": weights.key})
    maps = _predict_splits(experiment, dataset, store, context, log, ids, weights)
    judged = store.get_or_create(
        "record",
        ids.record,
        lambda path: _evaluate_maps(path, experiment, dataset, cls, maps),
        name="judged.h5",
    )
    log("judged", {"fresh": judged.created})
    result = read_evaluation(judged.path)
    samples = image_folder.parent / "samples" / f"{experiment.name}.h5"
    if judged.created or not samples.exists():
        samples.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(samples) as path:
            path.write_bytes(judged.path.read_bytes())
    rows, level = read_sample_results(judged.path), result["level"]["chosen"]
    picture = image_folder / f"{experiment.name}.png"
    if maps["test"].created or judged.created or not picture.exists():
        split = load_split(dataset, "test", experiment.limit)
        show(experiment, split, maps["test"].path, level, rows, picture)
    return {
        **record_header(experiment, dataset, cls, "ok"),
        **result,
        "samples": rows.to_json(),
        "cost": _cost_summary(weights, maps),
        "keys": {
            "checkpoint": weights.key,
            **{f"stage/{name}": key for name, key in weights.metadata.get("stages", {}).items()},
            **{f"maps/{part}": artefact.key for part, artefact in maps.items()},
            "record": judged.key,
        },
        "versions": weights.metadata["versions"],
        "device": weights.metadata["device"],
        "threads": weights.metadata["threads"],
    }


def _predict_splits(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    log: LogEvent,
    key_inputs: KeyInputs,
    checkpoint: Artifact,
) -> dict[str, Artifact]:
    """Maps of every split, from the store or made now; the method is built only if one is not."""
    method: Method | None = None
    maps: dict[str, Artifact] = {}
    for part in predicted_splits(experiment):
        keep = store.partial_state("maps", key_inputs.maps[part])

        def make(path: Path, part: str = part, keep: Any = keep) -> Mapping[str, Any]:
            nonlocal method
            if method is None:
                method = load_method(experiment, dataset.spec, checkpoint.path, context)
            return predict(path, experiment, method, dataset, part, context, keep, log)

        maps[part] = store.get_or_create("maps", key_inputs.maps[part], make, name="maps.h5")
        keep.clear()
        log("maps", {"part": part, "fresh": maps[part].created})
    return maps


def predict_shared(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    log: LogEvent,
    helper_number: int,
) -> int:
    """Look along with the process that works on a cell; how many samples were looked at.

    helper_number: from 1, the helper's own: where it begins, so that helpers do not do the same
    """
    ids = experiment_key_inputs(experiment, dataset, context)
    weights = store.find("checkpoint", ids.checkpoint)
    if weights is None:
        return 0
    method, count = load_method(experiment, dataset.spec, weights.path, context), 0
    for part in reversed(predicted_splits(experiment)):
        keep = store.partial_state("maps", ids.maps[part])
        made = store.folder("maps", cache_key(ids.maps[part]))
        count += predict_remaining_shards(
            experiment, method, dataset, part, context, keep, log, made.is_dir, helper_number
        )
    return count


def _evaluate_maps(
    path: Path,
    experiment: Experiment,
    dataset: Dataset,
    method_class: type[Method],
    maps: Mapping[str, Artifact],
) -> Mapping[str, Any]:
    splits = {
        part: load_predictions(load_split(dataset, part, experiment.limit), artefact.path)
        for part, artefact in maps.items()
    }
    held_out, val, test = (splits[part] for part in PREDICTED_SPLITS)
    pseudo = concatenate_predictions(held_out, splits["pseudo"]) if "pseudo" in splits else None
    levels = sweep_levels(experiment, method_class)
    write_sample_results(
        path,
        *evaluate(held_out, val, test, levels, method_class.published, experiment.protocol, pseudo),
    )
    return {}


def record_header(
    experiment: Experiment,
    dataset: Dataset | None,
    method_class: type[Method] | None,
    status: str,
    reason: str = "",
) -> dict[str, Any]:
    """What every record says, whatever became of the cell."""
    fingerprint = ""
    if dataset is not None and status == "ok":
        text = canonical_json(data_key_inputs(dataset, experiment, PREDICTED_SPLITS))
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "schema": 1,
        "status": status,
        "reason": reason or None,
        "method": {
            "name": experiment.method.name,
            "label": experiment.method.label,
            "supervision": method_class.supervision if method_class else None,
            "baseline": experiment.method.baseline,
            "args": dict(experiment.method_args),
            "paper": experiment.method.paper,
        },
        "dataset": {
            "name": experiment.dataset.name,
            "args": _key_arguments(experiment, dataset),
            "fingerprint": fingerprint,
            "synthetic": bool(dataset is not None and dataset.synthetic),
        },
        "profile": experiment.profile,
        "seed": experiment.seed,
        "partial": experiment.limit,
        "protocol": {
            **experiment.protocol.as_dict(),
            "id": experiment.protocol.id,
            "text": experiment.protocol.describe(),
        },
    }


def load_predictions(split: Any, path: Path) -> Predictions:
    """A split as a method saw it, tiles put together: the truth beside what was stored. Maps stay
    on disk."""
    samples = samples_without_images(split)
    file = h5py.File(path, "r", locking=False)  # artefacts do not change
    wholes = TiledImages(samples)
    score = array(file, "score") if samples else np.zeros((len(array(file, "levels")), 0))
    maps = stored(file, "map") if "map" in file else None
    label = np.array([s.label for s in samples], dtype=bool)
    return Predictions(
        keys=wholes.keys,
        groups=wholes.take_first([s.group for s in samples]),
        label=wholes.max(label) if samples else label,
        mask=_stitch_tensors(wholes, [s.mask for s in samples]),
        roi=_stitch_tensors(wholes, [s.roi for s in samples]),
        spacing=samples[0].spacing if samples else None,
        tags=wholes.take_first([dict(s.tags) for s in samples]),
        score=wholes.max(score) if wholes.tiled else score,
        map=StitchedMaps(maps, wholes) if maps is not None and wholes.tiled else maps,
        **{name: wholes.mean(array(file, name)) for name in ("psnr", "ssim") if name in file},
    )


def _cost_summary(checkpoint: Artifact, maps: Mapping[str, Artifact]) -> dict[str, float]:
    """Evaluations and FLOPs per test image are of one level; seconds too, measured."""
    trained, looked = checkpoint.metadata, maps["test"].metadata
    evaluations = looked["evaluations"] / looked["levels"]
    peaks = [trained["peak_memory_mb"], looked["peak_memory_mb"]]
    return {
        "train_steps": trained["train_steps"],
        "train_samples": trained["train_samples"],
        "train_gflops": trained["train_gflops"],
        "parameters": trained["parameters"],
        "evaluations_per_image": evaluations,
        "gflops_per_image": evaluations * trained["gflops_per_evaluation"],
        "train_seconds": trained["train_seconds"],
        "seconds_per_image": looked["seconds"] / looked["levels"],
        "peak_memory_mb": max(peaks),
    }


def _stitch_tensors(images: TiledImages, tensors: list[Tensor | None]) -> np.ndarray | None:
    """(W, *S), or None where any is missing."""
    parts = [t.numpy() for t in tensors if t is not None]
    if not parts or len(parts) < len(tensors):
        return None
    members = enumerate(images.members)
    return np.stack([images.stitch(whole, [parts[i] for i in mine]) for whole, mine in members])


def _key_arguments(experiment: Experiment, dataset: Dataset | None) -> dict[str, Any]:
    hidden = dataset.cache_key_ignores if dataset is not None else {"root"}
    return {k: v for k, v in experiment.dataset_args.items() if k not in hidden}
