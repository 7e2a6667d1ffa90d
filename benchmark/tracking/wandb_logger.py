"""Weights & Biases: a run per experiment, offline unless WANDB_MODE says otherwise."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..leaderboard.records import Record
from .logger import metrics_of, picture_name


class WandbLogger:
    """A Logger that writes to W&B, in the project `adbench` or $WANDB_PROJECT.

    Nothing is uploaded unless WANDB_MODE=online says so; `wandb sync FOLDER/wandb/offline-run-*`
    uploads later what was written offline.

    name: of the run; a run that resumes has the same id        folder: in which wandb/ is made

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     logger = WandbLogger("anoddpm on brats", Path(folder))
    ...     logger.log_parameters({"seed": 0})
    ...     logger.log_points("train", {"loss": 0.5}, step=1)
    ...     logger.close()
    ...     len(list(Path(folder).glob("wandb/offline-run-*/*.wandb")))  # nothing was uploaded
    1
    """

    def __init__(self, name: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        folder.mkdir(parents=True, exist_ok=True)
        self._name, self._folder, self._curves = name, folder, set[str]()

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "adbench"),
            name=self._name,
            id=hashlib.sha256(self._name.encode()).hexdigest()[:16],
            config=dict(parameters),
            dir=str(self._folder),
            mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline",
            reinit="create_new",
            allow_val_change=True,
            settings=wandb.Settings(
                console="off", silent=True, x_disable_stats=True, save_code=False, disable_git=True
            ),
        )

    def log_points(self, curve: str, values: Mapping[str, float], step: int) -> None:
        if curve not in self._curves:  # each has steps of its own: a later training starts again
            self._run.define_metric(f"{curve}/*", step_metric=f"{curve}/step")
            self._curves.add(curve)
        points = {f"{curve}/{name}": value for name, value in values.items()}
        self._run.log({f"{curve}/step": step, **points})

    def log_result(self, record: Record, pictures: Sequence[Path]) -> None:
        import wandb

        self._run.summary.update({f"result/{k}": v for k, v in metrics_of(record).items()})
        if pictures:
            self._run.log({f"pictures/{picture_name(p)}": wandb.Image(str(p)) for p in pictures})
        artifact = wandb.Artifact(f"record-{self._run.id}", "record")
        with artifact.new_file("record.json") as file:
            file.write(json.dumps(record, indent=1, default=str))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        import wandb

        self._run.finish()
        if wandb.run is None:  # no run of the user's own
            wandb.teardown()  # waits until the file is complete; `finish` alone does not
