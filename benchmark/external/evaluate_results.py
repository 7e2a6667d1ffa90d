"""Evaluation of another program's maps and scores by the protocol, as a record of the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ...datasets.base import Dataset
from ..evaluation.evaluate import evaluate
from ..evaluation.load_predictions import load_predictions
from ..evaluation.predictions import Predictions
from ..evaluation.protocol import Protocol
from ..evaluation.protocol_values import ProtocolError
from ..evaluation.sample_results import SampleResults, write_sample_results
from ..experiments.cache_keys import data_fingerprint
from ..experiments.matrix import PREDICTED_SPLITS, Experiment
from ..experiments.record import SPLIT_NAMES, record_header
from ..experiments.result_files import write_result_files
from ..experiments.splits import Splits
from ..figures.gallery import write_figures
from ..leaderboard.records import parse_record, read_intact_record, record_seal, record_text
from ..registry.registry import Entry
from ..store.atomic_files import atomic_write
from .map_files import ExternalResults
from .matching import MatchedResults

PROFILE = "external"
"""Of the record of results that adbench did not compute."""


@dataclass(frozen=True)
class ExternalMethod:
    """What made the maps. name: on the leaderboard      seed: to tell several runs of it apart

    published: the paper's level, where results are of several levels; None for the only one

    >>> from adbench.benchmark.external.evaluate_results import ExternalMethod
    >>> from adbench.benchmark.registry.registry import Registry
    >>> first, second = (ExternalMethod("mine", seed=seed) for seed in (0, 1))
    >>> phantom = Registry.read().dataset("phantom")
    >>> [external_experiment(method, phantom, {}, Protocol()).seed for method in (first, second)]
    [0, 1]
    """

    name: str
    seed: int = 0
    published: int | None = None


def evaluate_results(
    results: ExternalResults,
    method: ExternalMethod,
    dataset: Dataset,
    experiment: Experiment,
    out: Path,
) -> dict[str, Any]:
    """Evaluate results on a dataset, write its record and files, and return the record.

    Level and threshold are chosen on validation and calibration samples, where results cover these.
    A threshold that lacks them stays None, and so do the metrics that need one.

    dataset: prepared           experiment: of `external_experiment`
    out: the results folder; nothing is written where anything is wrong

    Raises DataError with all that does not fit, ProtocolError where the protocol cannot choose.

    >>> from adbench.benchmark.external.map_files import find_results
    >>> from adbench.benchmark.registry.registry import Registry
    >>> from adbench.datasets.phantom import Phantom
    >>> dataset, method = Phantom(shape=(16,), test=4), ExternalMethod("perfect")
    >>> dataset.prepare()
    >>> entry = Registry.read().dataset("phantom")
    >>> experiment = external_experiment(method, entry, {"shape": [16], "test": 4}, Protocol())
    >>> with TemporaryDirectory() as folder:
    ...     for sample in dataset.test():
    ...         path = Path(folder, "maps", f"{sample.key}.npy")
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         np.save(path, sample.mask)
    ...     maps = find_results(Path(folder, "maps"))
    ...     record = evaluate_results(maps, method, dataset, experiment, Path(folder, "results"))
    >>> record["metrics"]["pixel_ap"]["value"], record["external"]["splits"]
    (1.0, ['test'])
    >>> record["threshold"]["value"]  # needs calibration samples
    """
    protocol = experiment.protocol
    splits = Splits(dataset, limit=experiment.limit)
    matched = MatchedResults(results, dataset, {name: splits[name] for name in PREDICTED_SPLITS})
    matched.check()
    published = _published_level(results, method)
    _check_protocol(protocol, results)
    with TemporaryDirectory(prefix="adbench-") as folder:
        paths = {name: Path(folder) / f"{name}.h5" for name in matched.covered}
        for name, path in paths.items():
            matched.write(name, path)
        record, sample_results = _evaluate(matched, paths, published, protocol)
        samples_file = Path(folder) / "samples.h5"
        write_sample_results(samples_file, record, sample_results)

        def draw(path: Path) -> list[Path]:
            title = f"{method.name} (external) on {experiment.dataset.name}"
            level = record["level"]["chosen"]
            return write_figures(title, splits["test"], paths["test"], level, sample_results, path)

        files = write_result_files(out, experiment.name, {}, samples_file, draw, lambda *_: None)
    fingerprint = data_fingerprint(experiment, splits)
    content = {
        **record_header(experiment, dataset, None, "ok", fingerprint=fingerprint),
        **record,
        "samples": sample_results.to_json(),
        "cost": {},
        "keys": {},
        "versions": {},
        "files": files,
        "external": {
            "source": results.source,
            "digest": results.digest,
            "maps": bool(results.maps),
            "scores": bool(results.scores),
            "splits": [SPLIT_NAMES.get(name, name) for name in matched.covered],
        },
    }
    return _write_record(out / "records" / f"{experiment.name}.json", content)


def external_experiment(
    method: ExternalMethod,
    dataset: Entry,
    dataset_args: Mapping[str, Any],
    protocol: Protocol,
    limit: int | None = None,
) -> Experiment:
    """The experiment that stands for an external method on a dataset.

    >>> from adbench.benchmark.external.evaluate_results import (
    ...     ExternalMethod, external_experiment)
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.benchmark.registry.registry import Registry
    >>> phantom = Registry.read().dataset("phantom")
    >>> external_experiment(ExternalMethod("mine"), phantom, {}, Protocol()).name
    'phantom.mine.external.s0.cc2c1108'
    """
    entry = Entry(method.name, "methods", "", "external", "", label=method.name)
    return Experiment(entry, {}, dataset, dataset_args, method.seed, PROFILE, protocol, limit=limit)


def describe_evaluation(record: Mapping[str, Any]) -> list[str]:
    """What was evaluated, at which level and threshold and how these came about, a line each.

    record: of `evaluate_results`

    >>> from adbench.benchmark.external.evaluate_results import describe_evaluation
    >>> record = {"external": {"maps": False, "scores": True}, "dataset": {"name": "brats"},
    ...           "counts": {"test": 9, "test_abnormal": 4, "val": 5, "calibration": 3},
    ...           "level": {"chosen": 0, "rule": "val"}, "sweep": {"0": {}},
    ...           "threshold": {"value": None, "rule": "healthy@5%"}}
    >>> describe_evaluation(record)[1]
    'scores alone: no metric of pixels'
    """
    external, counts, level = record["external"], record["counts"], record["level"]
    kinds = [kind for kind in ("maps", "scores") if external[kind]]
    lines = [
        f"evaluated: {' and '.join(kinds)} of {counts['test']} test samples of "
        f"{record['dataset']['name']}, {counts['test_abnormal']} of them abnormal; "
        f"{counts['val']} for validation, {counts['calibration']} normal ones for calibration"
    ]
    if external["maps"]:
        reducer = record["protocol"]["reducer"]
        lines.append(
            "image score: "
            + ("the method's own" if reducer == "method" else f"{reducer} of the map")
            + ("" if reducer == "method" or not external["scores"] else
               " (that of the table with reducer=method)")
        )  # fmt: skip
    else:
        lines.append("scores alone: no metric of pixels")
    if level["chosen"] or len(record["sweep"]) > 1:
        how = "on validation" if level["rule"] == "val" else f"by the rule {level['rule']}"
        levels = ", ".join(sorted(record["sweep"], key=int))
        lines.append(f"level: {level['chosen']} of {levels}, chosen {how}")
    threshold = record["threshold"]
    if threshold["value"] is not None:
        lines.append(f"threshold: {threshold['value']:g}, by {threshold['rule']}")
    elif external["maps"]:
        need = "validation" if threshold["rule"].startswith("val") else "calibration"
        lines.append(
            f"threshold: none, for {threshold['rule']} takes results of {need} samples; Dice, IoU, "
            "healthy FP and lesions found are left out"
        )
    return lines


def _evaluate(
    matched: MatchedResults, paths: Mapping[str, Path], published: int, protocol: Protocol
) -> tuple[dict[str, Any], SampleResults]:
    """The evaluated part of the record, and the sample results; the files are closed after it."""
    calibration, val, test = (_load(matched, name, paths.get(name)) for name in PREDICTED_SPLITS)
    levels = matched.results.levels
    return evaluate(calibration, val, test, levels, published, protocol, require_threshold=False)


def _load(matched: MatchedResults, name: str, path: Path | None) -> Predictions:
    """The predictions of a split, empty where there are no results of it."""
    if path is None:
        levels, nothing = len(matched.results.levels), np.zeros(0, bool)
        return Predictions([], [], nothing, None, None, None, [], np.zeros((levels, 0)), None)
    predictions = load_predictions(matched.splits[name], path)
    return predictions if matched.results.scores else replace(predictions, score=None)


def _published_level(results: ExternalResults, method: ExternalMethod) -> int:
    if method.published is None and len(results.levels) > 1:
        raise ProtocolError(
            f"{results.source} has the levels {', '.join(map(str, results.levels))}: say which is "
            "the paper's (--published-level), to be used where validation cannot choose"
        )
    if method.published not in (None, *results.levels):
        raise ProtocolError(
            f"the published level {method.published} is none of {results.source}: it has "
            f"{', '.join(map(str, results.levels))}"
        )
    return results.levels[0] if method.published is None else method.published


def _check_protocol(protocol: Protocol, results: ExternalResults) -> None:
    if protocol.level == "pseudo":
        raise ProtocolError(
            "level 'pseudo' puts synthetic anomalies into samples, of which there are no maps from "
            "outside; use level=auto or level=published"
        )
    if protocol.repeats > 1:
        raise ProtocolError(
            f"repeats={protocol.repeats} asks a method again, and maps from outside are what they "
            "are; use repeats=1"
        )
    if protocol.reducer == "method" and not results.scores:
        raise ProtocolError(
            f"reducer 'method' takes the method's own scores, and {results.source} has maps alone: "
            "add scores.csv (key,score), or use top2%"
        )


def _write_record(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write a record with its seal and return it; a file that holds the same is left alone."""
    record = json.loads(json.dumps(content, default=float))
    record["seal"] = record_seal(record)
    parse_record(json.dumps(record))
    if read_intact_record(path) != record:
        atomic_write(path, record_text(record))
    return record
