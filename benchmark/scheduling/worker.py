"""What the process of a job does: run the job and return its outcome, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ...datasets.base import DataError, Dataset, Progress, no_progress
from ...engine.runtime.context import Interrupted
from ...engine.runtime.distributed import SINGLE_PROCESS, Team
from ..experiments.argument_conflicts import argument_conflict
from ..experiments.fit_predict import LogEvent
from ..experiments.matrix import PREDICTED_SPLITS, Experiment
from ..experiments.pipeline import predict_shared, run_experiment
from ..experiments.record import SPLIT_NAMES, record_header
from ..leaderboard.records import parse_record, plain_text, read_intact_record, record_seal
from ..store.artifact_store import Store, canonical_json
from ..store.atomic_files import StoreError, is_disk_full
from ..tracking.tracker import Tracker
from .events import (
    DiskFull,
    Failed,
    Helped,
    JobOutcome,
    NoData,
    Prepared,
    Stopped,
    Succeeded,
)
from .job import Job
from .printable import error_message, error_reason, escape_surrogates


def run_job(
    job: Job,
    log: LogEvent,
    stop: Callable[[], bool] = bool,
    *,
    team: Team = SINGLE_PROCESS,
    datasets: MutableMapping[str, Dataset] | None = None,
) -> JobOutcome:
    """Run a job in this process and return its outcome: no exception of a plugin leaves it.

    log: receives the events of the engine
    stop: whether to stop between two steps
    datasets: those that this process has prepared before

    >>> from adbench.benchmark.scheduling.job import prepare_job
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> job = prepare_job(example_experiments("thor", shape=(24,)), TrainingContext())
    >>> [*run_job(job, lambda event, facts: None).incompatible.values()]
    ['takes samples of 2 axes, these have 1']
    """
    sys.path += [folder for folder in job.path if folder not in sys.path]
    phase = _PhaseTracker(job, log)
    try:
        if job.task == "prepare":
            return _run_prepare_job(job, phase.log, stop, datasets)
        _set_up_process(job)
        (experiment,), context = job.experiments, job.context.training_context(stop, team)
        dataset = prepared_dataset(experiment, no_progress, stop, datasets)
        store, out = Store(Path(job.store)), Path(job.out)
        if job.task == "help":
            phase.enter("predict")
            return Helped(
                predict_shared(experiment, dataset, store, context, phase.log, job.helper)
            )
        phase.enter("train")
        with ExitStack() as stack:
            log_events: LogEvent = phase.log
            tracker = None
            if job.loggers:
                log_events = tracker = stack.enter_context(
                    Tracker.of(job.loggers, experiment, out, log_events)
                )
            earlier = read_intact_record(out / "records" / f"{experiment.name}.json")
            record = checked_record(
                run_experiment(experiment, dataset, store, context, log_events, out, earlier)
            )
            if tracker is not None:
                tracker.log_result(record, out)
        return Succeeded(record)
    except (Interrupted, KeyboardInterrupt) as stopped:
        return Stopped(plain_text(error_message(stopped)))
    except (Exception, SystemExit) as error:  # a plugin may end in any way; that is a row, too
        if isinstance(error, DataError) and job.task == "prepare":
            return NoData(error_message(error))
        if error_message(error) and is_disk_full(error):
            return DiskFull(phase.now, _disk_full_reason(error, phase.now))
        return Failed(phase.now, error_reason(error), traceback.format_exc())


def _disk_full_reason(error: BaseException, phase: str) -> str:
    """What could not be written, why, and what mends it; a library may not say which file."""
    if isinstance(error, StoreError):
        return error_reason(error, name_type=False)
    file = getattr(error, "filename", None)
    what = f"cannot write {file}" if file else f"a file could not be written in phase {phase}"
    remedy = f"free some space; temporary files lie in {tempfile.gettempdir()}"
    return f"{what}: {os.strerror(errno.ENOSPC)} ({remedy})"


def checked_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON values.

    Raises ValueError, with the field, where it does not fit its schema: a number that is not
    finite, a wrong type, a value out of its range.

    >>> from adbench.benchmark.scheduling.worker import checked_record
    >>> checked_record({"schema": 2, "status": "ok", "pixel_error": float("nan")})
    Traceback (most recent call last):
    ValueError: the record does not fit its schema: pixel_error is nan, no number
    """
    try:
        text = escape_surrogates(json.dumps(record, default=float, ensure_ascii=False))
        content = json.loads(text)
        parse_record(json.dumps(content | {"seal": record_seal(content)}))
        return content
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"the record does not fit its schema: {error}") from None


def prepared_dataset(
    experiment: Experiment,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = bool,
    datasets: MutableMapping[str, Dataset] | None = None,
) -> Dataset:
    """Return the dataset of an experiment, prepared.

    progress: receives what is done, how far, and of how many
    stop: whether to stop
    datasets: those that this process has prepared before; the one returned replaces them

    Raises KeyboardInterrupt when asked to stop meanwhile, DataError where data are missing or bad.

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("dae", shape=(16, 16))
    >>> prepared_dataset(experiment).spec.shape
    (16, 16)
    """
    key = canonical_json([experiment.dataset.import_path, experiment.dataset_args])
    if datasets is not None and key in datasets:
        return datasets[key]
    dataset: Dataset = experiment.dataset.build(**experiment.dataset_args)

    def on_progress(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if stop():
            raise KeyboardInterrupt

    dataset.prepare(on_progress)
    if datasets is not None:
        datasets.clear()  # one at a time: experiments come dataset by dataset
        datasets[key] = dataset
    return dataset


def incompatibility(experiment: Experiment, dataset: Dataset) -> str:
    """Return why a method cannot be run on a dataset; empty if it can.

    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.scheduling.worker import incompatibility
    >>> method = SimpleNamespace(load=lambda: SimpleNamespace(ndims={2, 3}))
    >>> dataset = SimpleNamespace(spec=SimpleNamespace(shape=(64,)))
    >>> incompatibility(SimpleNamespace(method=method), dataset)
    'takes samples of 2 or 3 axes, these have 1'
    """
    method_class, axes = experiment.method.load(), len(dataset.spec.shape)
    if axes not in method_class.ndims:
        takes = " or ".join(map(str, sorted(method_class.ndims)))
        return f"takes samples of {takes} {'axis' if takes == '1' else 'axes'}, these have {axes}"
    if method_class.supervision == "image-labels" and not dataset.spec.labels:
        return "needs labelled abnormal samples to train on, and this dataset has none"
    conflict = argument_conflict(
        experiment.method,
        experiment.method_args,
        experiment.profile,
        dataset.spec,
        experiment.levels,
    )
    return f"cannot be built for these samples: {conflict}" if conflict else ""


def _set_up_process(job: Job) -> None:
    if job.threads:
        torch.set_num_threads(job.threads)
    device = torch.device(job.context.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # so that nothing is put on another GPU by default


def _run_prepare_job(
    job: Job,
    log: LogEvent,
    stop: Callable[[], bool],
    datasets: MutableMapping[str, Dataset] | None,
) -> Prepared:
    def progress(what: str, done: int, total: int) -> None:
        log(what, {"step": done, "of": total})

    dataset = prepared_dataset(job.experiments[0], progress, stop, datasets)
    headers = {
        each.name: record_header(each, dataset, each.method.load(), "failed")
        for each in job.experiments
    }
    reasons = {each.name: incompatibility(each, dataset) for each in job.experiments}
    return Prepared(headers, {name: reason for name, reason in reasons.items() if reason})


class _PhaseTracker:
    """The phase of a job, read from the events of the engine, and logged when it changes."""

    def __init__(self, job: Job, log: LogEvent) -> None:
        self.now, self._log = "prepare", log
        pseudo = job.task == "experiment" and job.experiments[0].protocol.level == "pseudo"
        self._predictions = len(PREDICTED_SPLITS) + pseudo

    def enter(self, phase: str) -> None:
        self.now = phase
        self._log("phase", {"phase": phase})

    def log(self, event: str, facts: Mapping[str, Any]) -> None:
        if (part := facts.get("part")) in SPLIT_NAMES:
            facts = {**facts, "part": SPLIT_NAMES[part]}
        self._log(event, facts)
        if event == "checkpoint":
            self.enter("predict")
        elif event == "maps":
            self._predictions -= 1
            if not self._predictions:
                self.enter("evaluate")
