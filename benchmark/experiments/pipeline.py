"""One experiment from start to end: fit, predict every split, evaluate, record.

The experiment is resolved once; its parts are handed to every stage. Each stage asks the store
first; what was killed goes on from what it kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...datasets.base import Dataset, Split
from ...engine.runtime.context import TrainingContext
from ...methods.base import Method
from ..evaluation.evaluate import evaluate
from ..evaluation.load_predictions import load_predictions
from ..evaluation.sample_results import read_evaluation, read_sample_results, write_sample_results
from ..evaluation.synthetic_anomalies import concatenate_predictions
from ..figures.gallery import gallery_samples, write_figures
from ..store.artifact_store import Artifact, Store
from ..store.cache_key import cache_key
from .cache_keys import data_fingerprint
from .distributed import announce_training
from .fit_predict import LogEvent, fit, load_method, predict, predict_remaining_shards
from .imported_weights import load_imported_weights
from .matrix import PREDICTED_SPLITS, Experiment
from .record import artifact_fields, record_header
from .repeated_detection import repeat_detection
from .resolve import ResolvedExperiment, resolve
from .result_files import intact_files, write_result_files
from .shared_stages import SharedStageCache
from .splits import SYNTHETIC


def run_experiment(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    log: LogEvent,
    out: Path,
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    """Run an experiment, or read of it what is stored, and return its record as JSON values.

    dataset: prepared           store: of checkpoints, maps and evaluated records
    context: device, precision and the like; the seed is the experiment's
    log: (event, facts), called as work goes on
    out: the results folder, for images of the test samples and for sample results
    earlier: the record of an earlier run into this folder; empty if there is none

    Raises whatever a stage raises; the stages that are finished by then stay stored.

    >>> import tempfile
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments(limit=4)
    >>> from adbench.datasets.phantom import Phantom
    >>> def log(event, facts):
    ...     pass
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     out, store = Path(folder), Store(Path(folder, "store"))
    ...     dataset, context = Phantom(shape=(16,)), TrainingContext()
    ...     record = run_experiment(experiment, dataset, store, context, log, out, {})
    ...     again = run_experiment(experiment, dataset, store, context, log, out, record)
    >>> record["status"], record["partial"], [*record["keys"]], record == again
    ('ok', 4, ['checkpoint', 'maps/calibration', 'maps/val', 'maps/test', 'record'], True)
    """
    resolved = resolve(experiment, dataset, context.numerics)
    if experiment.skip_recorded and _is_recorded(resolved, out, earlier):
        return dict(earlier)
    context = replace(context, seed=experiment.seed, on_event=log)
    checkpoint = fit_experiment(resolved, store, context)
    log("checkpoint", {"fresh": checkpoint.created, "key": checkpoint.key})
    maps = predict_splits(resolved, store, context, checkpoint)
    record = store.get_or_create(
        "record", resolved.key_inputs.record, partial(_evaluate, resolved, maps), name="judged.h5"
    )
    log("evaluated", {"fresh": record.created})
    evaluation, results = read_evaluation(record.path), read_sample_results(record.path)
    artifacts = artifact_fields(checkpoint, maps, record.key)

    def draw(path: Path) -> list[Path]:
        level, test = evaluation["level"]["chosen"], resolved.splits["test"]
        title = f"{experiment.method.label} on {experiment.dataset.name}"
        title += f", profile {experiment.profile}"
        return write_figures(title, test, maps["test"].path, level, results, path)

    digests = earlier.get("files", {}) if earlier.get("keys") == artifacts["keys"] else {}
    files = write_result_files(out, experiment.name, digests, record.path, draw, log)
    fingerprint = data_fingerprint(experiment, resolved.splits)
    return {
        **record_header(experiment, dataset, resolved.method_class, "ok", fingerprint=fingerprint),
        **evaluation,
        "samples": results.to_json(),
        **artifacts,
        "files": files,
    }


def _is_recorded(resolved: ResolvedExperiment, out: Path, earlier: Mapping[str, Any]) -> bool:
    """Whether an earlier record is of the same inputs, and all its files are intact."""
    key = (earlier.get("keys") or {}).get("record")
    return (
        earlier.get("status") == "ok"
        and key == cache_key(resolved.key_inputs.record)
        and intact_files(out, earlier)
    )


def predict_shared(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    log: LogEvent,
    helper_number: int,
) -> int:
    """Predict for another process that runs the same experiment; return how many samples.

    Without the checkpoint of that experiment in the store there is nothing to predict with: 0.

    helper_number: from 1, different for each helper, so that two do not predict the same samples

    >>> import tempfile
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments(limit=4)
    >>> from adbench.datasets.phantom import Phantom
    >>> dataset, context = Phantom(shape=(16,)), TrainingContext()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder))
    ...     predict_shared(experiment, dataset, store, context, lambda event, facts: None, 1)
    0
    """
    resolved = resolve(experiment, dataset, context.numerics)
    checkpoint = store.find("checkpoint", resolved.key_inputs.checkpoint)
    if checkpoint is None:
        return 0
    context = replace(context, seed=experiment.seed, on_event=log)
    method, count = _load_predictor(resolved, checkpoint.path, context), 0
    for name in reversed(resolved.splits.predicted):
        key_inputs, split = resolved.key_inputs.maps[name], resolved.splits[name]
        count += predict_remaining_shards(
            method,
            split,
            resolved.levels,
            context,
            store.partial_state("maps", key_inputs),
            store.folder("maps", cache_key(key_inputs)).is_dir,
            helper_number,
            name=name,
            gallery=_gallery(name, split),
        )
    return count


def fit_experiment(
    resolved: ResolvedExperiment, store: Store, context: TrainingContext
) -> Artifact:
    """Return the checkpoint of a resolved experiment, from the store or trained now.

    >>> import tempfile
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments(limit=4)
    >>> resolved = resolve(experiment, Phantom(shape=(16,)), "float32")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder))
    ...     [fit_experiment(resolved, store, TrainingContext()).created for _ in range(2)]
    [True, False]
    """
    key_inputs, splits = resolved.key_inputs.checkpoint, resolved.splits
    partial_state = store.partial_state("checkpoint", key_inputs)
    with announce_training(context.team) as announce:

        def create(path: Path) -> Mapping[str, Any]:
            announce()
            method = resolved.build_method()
            imported = load_imported_weights(resolved.experiment, store, method)
            facts = fit(
                path,
                method,
                splits["train"],
                splits["held_out"],
                replace(context, state_store=partial_state, imported=imported),
                partial(SharedStageCache, store, key_inputs),
            )
            return {**facts, "preprocessing": splits.dataset.preprocessing_state()}

        checkpoint = store.get_or_create(
            "checkpoint", key_inputs, create, name="weights.safetensors"
        )
    partial_state.clear()
    return checkpoint


def predict_splits(
    resolved: ResolvedExperiment,
    store: Store,
    context: TrainingContext,
    checkpoint: Artifact,
    names: Sequence[str] | None = None,
) -> dict[str, Artifact]:
    """Maps of splits, from the store or predicted now; the method is built only if needed.

    names: of the splits; None for all that the experiment predicts

    >>> import tempfile
    >>> from adbench.benchmark.evaluation.load_predictions import load_predictions
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments(limit=4)
    >>> resolved = resolve(experiment, Phantom(shape=(16,)), "float32")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store, context = Store(Path(folder)), TrainingContext()
    ...     checkpoint = fit_experiment(resolved, store, context)
    ...     maps = predict_splits(resolved, store, context, checkpoint, ["val"])
    ...     load_predictions(resolved.splits["val"], maps["val"].path).map.shape  # (L, N, *S)
    (1, 4, 16)
    """
    method: Method | None = None
    maps: dict[str, Artifact] = {}
    log: LogEvent = context.on_event
    for name in resolved.key_inputs.maps if names is None else names:
        key_inputs = resolved.key_inputs.maps[name]
        partial_state = store.partial_state("maps", key_inputs)

        def create(path: Path, name: str = name, state: Any = partial_state) -> Mapping[str, Any]:
            nonlocal method
            if method is None:
                method = _load_predictor(resolved, checkpoint.path, context)
            split = resolved.splits[name]
            return predict(
                path,
                method,
                split,
                resolved.levels,
                replace(context, state_store=state),
                name=name,
                gallery=_gallery(name, split),
            )

        maps[name] = store.get_or_create("maps", key_inputs, create, name="maps.h5")
        partial_state.clear()
        log("maps", {"part": name, "fresh": maps[name].created})
    return maps


def _load_predictor(
    resolved: ResolvedExperiment, weights: Path, context: TrainingContext
) -> Method:
    """The fitted method, or one that asks it as often as the protocol says."""
    method = load_method(resolved.build_method(), weights, context)
    return repeat_detection(method, resolved.experiment.protocol)


def _gallery(name: str, split: Split) -> Sequence[int]:
    """Samples of a split whose reconstructions are kept: some of the test samples, to be shown."""
    return gallery_samples(split) if name == "test" else []


def _evaluate(
    resolved: ResolvedExperiment, maps: Mapping[str, Artifact], path: Path
) -> Mapping[str, Any]:
    predictions = {
        name: load_predictions(resolved.splits[name], artifact.path, scratch=path.parent)
        for name, artifact in maps.items()
    }
    calibration, val, test = (predictions[name] for name in PREDICTED_SPLITS)
    synthetic = predictions.get(SYNTHETIC)
    if synthetic is not None:
        synthetic = concatenate_predictions(calibration, synthetic)
    published, protocol = resolved.method_class.published, resolved.experiment.protocol
    levels = resolved.levels
    write_sample_results(
        path, *evaluate(calibration, val, test, levels, published, protocol, synthetic)
    )
    return {}
