"""A job: one piece of work that any process on any host can do, as plain values and as JSON.

Nothing is pickled, and nothing need be read again on the other host: what a registry file or an
installed package says of a method travels with the job.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from ...engine.runtime.context import TrainingContext, numerics_fields
from ...engine.runtime.distributed import SINGLE_PROCESS, Team
from ...engine.runtime.setting_types import CompileMode
from ..experiments.matrix import Experiment
from ..registry.registry import Entry
from ..store.artifact_store import Store


@dataclass(frozen=True)
class JobContext:
    """The fields of a TrainingContext that travel; dtype is its `numerics`, such as "float32"."""

    device: str
    dtype: str
    compile: CompileMode
    batch: int
    micro: int | None
    workers: int | None
    checkpoint_interval: float

    @classmethod
    def of(cls, context: TrainingContext) -> JobContext:
        """Return the fields of a context that travel.

        >>> from adbench.benchmark.scheduling.job import JobContext
        >>> from adbench.engine.runtime.context import TrainingContext
        >>> JobContext.of(TrainingContext(batch=8)).dtype
        'float32'
        """
        names = [name for name in cls.__dataclass_fields__ if name != "dtype"]
        return cls(dtype=context.numerics, **{name: getattr(context, name) for name in names})

    def training_context(
        self, stop: Callable[[], bool] = bool, team: Team = SINGLE_PROCESS
    ) -> TrainingContext:
        """Return the context in the process that does the job.

        stop: whether to stop between two steps
        """
        fields = vars(self) | numerics_fields(self.dtype)
        return TrainingContext(**fields, stop=stop, team=team)


@dataclass(frozen=True)
class Job:
    """A piece of work for one process, as plain values.

    name: of the experiment, "prepare <dataset>", or "<experiment> helper 1"
    task: run an experiment, prepare a dataset, or help to predict an experiment
    experiments: one; for `prepare`, all on one dataset
    threads: of torch, 0 for as many as the process has
    store, out: absolute folders        loggers: trackers, as LoggerSpec.parse takes them
    helper: the number of a helper, from 1
    timeout: seconds for an experiment without a driver, None for any
    path: sys.path of the process that asks

    >>> from adbench.benchmark.scheduling.job import Job, JobContext
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> job = Job("prepare phantom", "prepare", (), JobContext.of(TrainingContext()))
    >>> Job.from_json(job.to_json()) == job
    True
    """

    name: str
    task: Literal["experiment", "prepare", "help"]
    experiments: tuple[Experiment, ...]
    context: JobContext
    threads: int = 0
    store: str = ""
    out: str = ""
    loggers: tuple[str, ...] = ()
    helper: int = 0
    timeout: float | None = None
    path: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The registry name of its method; empty where it prepares a dataset."""
        return "" if self.task == "prepare" else self.experiments[0].method.name

    def to_json(self) -> bytes:
        """The job as JSON, which `from_json` reads."""
        return json.dumps(msgspec.to_builtins(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Job:
        """The job that JSON holds. Raises ValueError where it holds none."""
        return msgspec.convert(json.loads(data), cls)


def experiment_job(
    experiment: Experiment,
    context: TrainingContext,
    store: Store,
    out: Path,
    loggers: Sequence[str] = (),
    threads: int = 0,
) -> Job:
    """Return the job of running an experiment.

    out: folder of the results
    threads: of torch, 0 for as many as the process has

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("dae")
    >>> job = experiment_job(experiment, TrainingContext(), Store(Path("store")), Path("results"))
    >>> job.task, job.method, job.context.device
    ('experiment', 'dae', 'cpu')
    """
    return Job(
        experiment.name,
        "experiment",
        (_portable(experiment),),
        JobContext.of(context),
        threads,
        str(store.root.absolute()),
        str(out.absolute()),
        tuple(loggers),
        path=_import_path(),
    )


def prepare_job(experiments: Sequence[Experiment], context: TrainingContext) -> Job:
    """Return the job of preparing the dataset that experiments share.

    experiments: all on one dataset

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> job = prepare_job(example_experiments(["dae", "pca"]), TrainingContext())
    >>> job.name, len(job.experiments)
    ('prepare phantom', 2)
    """
    return Job(
        f"prepare {experiments[0].dataset.name}",
        "prepare",
        tuple(map(_portable, experiments)),
        JobContext.of(context),
        path=_import_path(),
    )


def shared_predict_job(job: Job, count: int) -> Job:
    """Return the job of helping another one to predict (work_sharing.py).

    job: that is helped
    count: number of the helper, from 1

    >>> job = Job("phantom.dae.s0", "experiment", (), JobContext.of(TrainingContext()))
    >>> shared_predict_job(job, 2).name
    'phantom.dae.s0 helper 2'
    """
    return replace(job, task="help", name=f"{job.name} helper {count}", helper=count)


def _portable(experiment: Experiment) -> Experiment:
    """Without what only the registry needs. The profile stays: a worker compares the arguments
    with those that it has for the method."""
    named = experiment.profile

    def short(entry: Entry) -> Entry:
        own = {name: each for name, each in entry.profiles.items() if name == named}
        return replace(entry, profiles=own, extra={})

    return replace(experiment, method=short(experiment.method), dataset=short(experiment.dataset))


def _import_path() -> tuple[str, ...]:
    return tuple(folder or os.getcwd() for folder in sys.path)
