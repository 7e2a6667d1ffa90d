"""A cell as plain data that any process on any host can work on, and the work itself.

An executor carries a job to a process that sees the same files, and an outcome back; both are
JSON, so nothing is pickled and nothing need be read again: what a registry file or an installed
package said of a method travels with it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ...datasets.base import DataError, Dataset, Progress, no_progress
from ...engine.runtime.context import Interrupted, TrainingContext
from ...engine.runtime.distributed import SINGLE_PROCESS, Team
from ..evaluation.protocol import Protocol
from ..experiments.fit_predict import LogEvent
from ..experiments.matrix import PREDICTED_SPLITS, Experiment
from ..experiments.pipeline import predict_shared, run_experiment
from ..experiments.record import record_header
from ..experiments.tensorboard import TensorBoardError, TensorBoardLogger
from ..leaderboard.records import read_intact_record
from ..registry.registry import Entry
from ..store.artifact_store import Store, canonical_json
from ..store.atomic_files import is_disk_full

Job = dict[str, Any]
"""name: of the experiment, "prepare <dataset>", or "<experiment> helper 1"
task: experiment | prepare | help
experiment, or cells and names: as `_experiment_to_json` writes them
run: device, dtype, batch and the like
store, out, curves: absolute folders              path, cwd: sys.path and the working folder"""

Outcome = dict[str, Any]
"""What became of a job, by its "end":

prepared  heads: per cell what its record says anyway; unfit: why a cell cannot be
ok        record
helped    samples: how many a helper predicted
failed    phase (prepare, train, predict, evaluate), exception (one line), trace
stopped   said; asked to, with everything kept
no-data   said; the dataset is missing or bad
full      phase, said; no room on a disk: the same job goes on when there is
refused   said; the run cannot go on at all"""

CONTEXT_FIELDS = ("device", "compile", "batch", "micro", "workers", "checkpoint_interval")
ENTRY_FIELDS = (
    "name", "package", "class_path", "origin", "import_path", "label", "about", "paper", "baseline",
)  # fmt: skip


def experiment_job(
    experiment: Experiment,
    context: TrainingContext,
    store: Store,
    out: Path,
    tensorboard_folder: Path | None = None,
    threads: int = 0,
) -> Job:
    """One cell to work on. threads: of torch, 0 for as many as the process has."""
    job = _job_fields(experiment.name, "experiment", context, threads)
    job |= {
        "experiment": _experiment_to_json(experiment),
        "store": str(store.root.absolute()),
        "out": str(out.absolute()),
    }
    return job | {
        "curves": str(tensorboard_folder.absolute()) if tensorboard_folder is not None else None
    }


def prepare_job(experiments: Sequence[Experiment], context: TrainingContext) -> Job:
    """The dataset of these cells to make ready."""
    job = _job_fields(f"prepare {experiments[0].dataset.name}", "prepare", context, 0)
    return job | {
        "cells": [_experiment_to_json(c) for c in experiments],
        "names": [c.name for c in experiments],
    }


def shared_predict_job(job: Job, count: int) -> Job:
    """One that looks along with the job of a cell (helping.py). count: from 1, a helper's own."""
    return job | {"task": "help", "name": f"{job['name']} helper {count}", "share": count}


def run_job(
    job: Job,
    on_event: LogEvent,
    stop: Callable[[], bool] = bool,
    *,
    team: Team = SINGLE_PROCESS,
    kept: MutableMapping[str, Dataset] | None = None,
) -> Outcome:
    """Do it here and now. Tells what the engine tells; whatever goes wrong is an outcome.

    kept: datasets that this process has made ready before
    """
    sys.path += [place for place in job["path"] if place not in sys.path]
    phase = _PhaseTracker(job, on_event)
    try:
        if job["task"] == "prepare":
            return _run_prepare_job(
                [experiment_from_json(told) for told in job["cells"]], phase.on_event, stop, kept
            )
        _set_up_process(job)
        cell, run = (
            experiment_from_json(job["experiment"]),
            context_from_json(job["run"], stop, team),
        )
        dataset = prepared_dataset(cell, no_progress, stop, kept)
        if job["task"] == "help":
            phase.enter("predict")
            store = Store(Path(job["store"]))
            count = predict_shared(cell, dataset, store, run, phase.on_event, job["share"])
            return {"end": "helped", "samples": count}
        phase.enter("train")
        with ExitStack() as stack:
            told: LogEvent = phase.on_event
            if job["curves"] is not None:
                told = stack.enter_context(TensorBoardLogger(Path(job["curves"]) / cell.name, told))
            store, out = Store(Path(job["store"])), Path(job["out"])
            earlier = read_intact_record(out / "records" / f"{cell.name}.json")
            record = run_experiment(cell, dataset, store, run, told, out, earlier)
        return {"end": "ok", "record": record}
    except (Interrupted, KeyboardInterrupt) as stopped:
        return {"end": "stopped", "said": str(stopped)}
    except TensorBoardError as error:
        return {"end": "refused", "said": str(error)}
    except (Exception, SystemExit) as error:  # a plugin may end in any way; that is a row, too
        if isinstance(error, DataError) and job["task"] == "prepare":
            return {"end": "no-data", "said": str(error)}
        if is_disk_full(error):
            return {"end": "full", "phase": phase.now, "said": one_line(error)}
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        trace = traceback.format_exc()
        return {"end": "failed", "phase": phase.now, "exception": said, "trace": trace}


def prepared_dataset(
    experiment: Experiment,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = bool,
    kept: MutableMapping[str, Dataset] | None = None,
) -> Dataset:
    """The cell's dataset, prepared. Raises KeyboardInterrupt when asked to stop meanwhile."""
    key = canonical_json([experiment.dataset.import_path, experiment.dataset_args])
    if kept is not None and key in kept:
        return kept[key]
    dataset: Dataset = experiment.dataset.load()(**experiment.dataset_args)

    def told(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if stop():
            raise KeyboardInterrupt

    dataset.prepare(told)
    if kept is not None:
        kept.clear()  # one at a time: cells come dataset by dataset
        kept[key] = dataset
    return dataset


def incompatibility(experiment: Experiment, dataset: Dataset) -> str:
    """Why this method cannot look at this dataset; empty if it can."""
    cls, axes = experiment.method.load(), len(dataset.spec.shape)
    if axes not in cls.ndims:
        takes = " or ".join(map(str, sorted(cls.ndims)))
        return f"takes samples of {takes} {'axis' if takes == '1' else 'axes'}, these have {axes}"
    if cls.supervision == "image-labels" and not dataset.spec.labels:
        return "needs labelled abnormal samples to train on, and this dataset has none"
    return ""


def one_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def experiment_from_json(told: Mapping[str, Any]) -> Experiment:
    """Back from JSON. Its registry entries know no profiles any more: arguments are resolved."""
    plain = {key: value for key, value in told.items() if key not in ("method", "dataset")}
    plain["protocol"] = Protocol.from_dict(told["protocol"])
    plain["levels"] = tuple(told["levels"]) if told["levels"] is not None else None
    return Experiment(method=Entry(**told["method"]), dataset=Entry(**told["dataset"]), **plain)


def context_from_json(
    told: Mapping[str, Any], stop: Callable[[], bool] = bool, team: Team = SINGLE_PROCESS
) -> TrainingContext:
    dtype = getattr(torch, told["dtype"])
    return TrainingContext(
        dtype=dtype, stop=stop, team=team, **{key: told[key] for key in CONTEXT_FIELDS}
    )


def _set_up_process(job: Job) -> None:
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    device = torch.device(job["run"]["device"])
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # so that nothing is put on another GPU by default


def _job_fields(name: str, task: str, run: TrainingContext, threads: int) -> Job:
    where = {key: getattr(run, key) for key in CONTEXT_FIELDS}
    where["dtype"] = str(run.dtype).removeprefix("torch.")
    path = [place or os.getcwd() for place in sys.path]
    return {"name": name, "task": task, "run": where, "threads": threads} | {
        "path": path,
        "cwd": os.getcwd(),
    }


def _experiment_to_json(cell: Experiment) -> dict[str, Any]:
    told = {field.name: getattr(cell, field.name) for field in fields(cell)}
    told["protocol"] = cell.protocol.as_dict()
    for room in ("method", "dataset"):
        told[room] = {key: getattr(told[room], key) for key in ENTRY_FIELDS}
    return told


def _run_prepare_job(
    cells: Sequence[Experiment],
    tell: LogEvent,
    stop: Callable[[], bool],
    kept: MutableMapping[str, Dataset] | None,
) -> Outcome:
    def progress(what: str, done: int, total: int) -> None:
        tell(what, {"step": done, "of": total})

    dataset = prepared_dataset(cells[0], progress, stop, kept)
    heads = {c.name: record_header(c, dataset, c.method.load(), "failed") for c in cells}
    why = {cell.name: incompatibility(cell, dataset) for cell in cells}
    return {"end": "prepared", "heads": heads, "unfit": {k: v for k, v in why.items() if v}}


class _PhaseTracker:
    """Where a job is, read from what it tells, and told when it changes."""

    def __init__(self, job: Job, tell: LogEvent) -> None:
        self.now, self._tell = "prepare", tell
        pseudo = job["task"] == "experiment" and job["experiment"]["protocol"]["level"] == "pseudo"
        self._looks = len(PREDICTED_SPLITS) + pseudo

    def enter(self, phase: str) -> None:
        self.now = phase
        self._tell("phase", {"phase": phase})

    def on_event(self, event: str, facts: Mapping[str, Any]) -> None:
        self._tell(event, facts)
        if event == "checkpoint":
            self.enter("predict")
        elif event == "maps":
            self._looks -= 1
            if not self._looks:
                self.enter("evaluate")
