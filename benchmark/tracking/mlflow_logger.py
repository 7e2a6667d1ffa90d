"""MLflow: a run per experiment, in its file store or at MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..leaderboard.records import Record
from .logger import metrics_of

TAG = "adbench.experiment"
"""Of a run: the name of its experiment, by which a run that resumes finds it again."""

DEFAULTS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder is enough: no database to install
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is down must not hold up a training
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Settings of MLflow, where the environment has none."""


class MLflowLogger:
    """A Logger that writes to MLflow, in the experiment `adbench` or $MLFLOW_EXPERIMENT_NAME.

    name: of the run        folder: of the file store, without MLFLOW_TRACKING_URI

    >>> from tempfile import TemporaryDirectory
    >>> from mlflow.tracking import MlflowClient
    >>> with TemporaryDirectory() as folder:
    ...     logger = MLflowLogger("anoddpm on brats", Path(folder))
    ...     logger.log_points("train", {"loss": 0.5}, step=1)
    ...     logger.close()
    ...     client = MlflowClient(Path(folder).as_uri())
    ...     experiment = client.get_experiment_by_name("adbench")
    ...     (run,) = client.search_runs([experiment.experiment_id])
    >>> run.info.run_name, run.data.metrics, run.info.status  # it ended without a result
    ('anoddpm on brats', {'train/loss': 0.5}, 'KILLED')
    """

    def __init__(self, name: str, folder: Path) -> None:
        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or folder.absolute().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        self._run = self._find_or_create_run(name)
        self._status = "KILLED"

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [Param(key, str(value)) for key, value in parameters.items()]
        self._client.log_batch(self._run, params=values)

    def log_points(self, curve: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(f"{curve}/{name}", value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=points)

    def log_result(self, record: Record, pictures: Sequence[Path]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in metrics_of(record).items()]
        self._client.log_batch(self._run, metrics=metrics)
        self._client.log_dict(self._run, dict(record), "record.json")
        for path in pictures:
            self._client.log_artifact(self._run, str(path), "pictures")
        self._status = "FINISHED"

    def close(self) -> None:
        self._client.set_terminated(self._run, self._status)

    def _find_or_create_run(self, name: str) -> str:
        experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "adbench")
        experiment = self._client.get_experiment_by_name(experiment_name)
        if experiment is None:
            key = self._client.create_experiment(experiment_name)
        else:
            key = experiment.experiment_id
        runs = self._client.search_runs([key], f"tags.`{TAG}` = '{name}'", max_results=1)
        if runs:
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            return runs[0].info.run_id
        return self._client.create_run(key, tags={TAG: name}, run_name=name).info.run_id
