"""One trial: an experiment is trained, and evaluated on validation or on synthetic anomalies.

The test split is neither predicted nor loaded. What a trial gave is an artifact of the store, so
that a repeated tuning reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ...datasets.base import Dataset
from ...engine.runtime.context import TrainingContext
from ...engine.training.loss import NotFinite
from ..evaluation.build_ground_truth import build_ground_truth
from ..evaluation.load_predictions import load_predictions
from ..evaluation.protocol import best_level
from ..evaluation.synthetic_anomalies import concatenate_predictions
from ..experiments.cache_keys import evaluation_code
from ..experiments.matrix import Experiment
from ..experiments.pipeline import fit_experiment, predict_splits
from ..experiments.resolve import resolve
from ..experiments.splits import SYNTHETIC
from ..store.artifact_store import Store
from ..store.cache_key import to_json_dict

Objective = Literal["val", "pseudo"]
"""What trials are evaluated on: validation, or synthetic anomalies in calibration samples."""

SPLITS: dict[Objective, tuple[str, ...]] = {"val": ("val",), "pseudo": ("held_out", SYNTHETIC)}
"""The splits that a trial predicts."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial gave.

    value: of the metric, at the level that is best by it; None where the trial failed
    metric: pixel_ap or image_auroc            reason: why it failed; "" if it did not
    checkpoint: the key of its training        train_steps, train_seconds: what that took

    >>> TrialResult(0.5, "pixel_ap").reason
    ''
    """

    value: float | None
    metric: str = ""
    reason: str = ""
    checkpoint: str = ""
    train_steps: int = 0
    train_seconds: float = 0.0


def run_trial(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    objective: Objective,
) -> TrialResult:
    """Train and evaluate an experiment, or read what is stored of that.

    dataset: prepared        context: the seed is the experiment's
    A method that refuses its arguments, or whose training is not finite, has failed; every other
    exception is raised.

    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments(limit=8)
    >>> result = run_trial(
    ...     experiment, Phantom(shape=(8, 8)), Store(Path("store")), TrainingContext(), "val")
    >>> result.metric, 0 < result.value <= 1
    ('pixel_ap', True)
    """
    level = SYNTHETIC if objective == "pseudo" else experiment.protocol.level
    experiment.protocol.require_unscored_maps("tuning")
    trial = replace(experiment, protocol=replace(experiment.protocol, level=level))
    context = replace(context, seed=experiment.seed)
    resolved = resolve(trial, dataset, context.numerics)
    names = SPLITS[objective]
    key_inputs = to_json_dict(
        {
            "maps": {name: resolved.key_inputs.maps[name] for name in names},
            "protocol": trial.protocol.as_dict(),
            "objective": objective,
            "code": evaluation_code(),
        }
    )

    def create(path: Path) -> Mapping[str, Any]:
        try:
            checkpoint = fit_experiment(resolved, store, context)
            maps = predict_splits(resolved, store, context, checkpoint, names)
        except (NotFinite, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            content: dict[str, Any] = {"value": None, "reason": reason}
        else:
            predictions = [load_predictions(resolved.splits[n], maps[n].path) for n in names]
            evaluated = predictions[0]
            if objective == "pseudo":
                evaluated = concatenate_predictions(*predictions)
            truth = build_ground_truth(evaluated, trial.protocol)
            levels = resolved.levels
            sweep = [truth.metrics_at(index) for index in range(len(levels))]
            metric = trial.protocol.selection_metric(sweep)
            chosen = best_level(sweep, metric, levels)
            if trial.protocol.level == "published":
                chosen = levels.index(resolved.method_class.published)
            content = {
                "value": sweep[chosen][metric],
                "metric": metric,
                "checkpoint": checkpoint.key,
                "train_steps": checkpoint.metadata["train_steps"],
                "train_seconds": checkpoint.metadata["train_seconds"],
            }
        path.write_text(json.dumps(content))
        return {}

    artifact = store.get_or_create("trial", key_inputs, create, name="trial.json")
    return TrialResult(**json.loads(artifact.path.read_text()))
