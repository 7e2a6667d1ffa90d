"""Where cells are worked on: what every executor offers, and the one that needs no other process.

An executor only starts jobs and tells what becomes of them. What is retried, set aside, written and
shown stands once, in sweep.py, so that the same tasks give the same results whichever it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...datasets.base import DataError, Dataset
from ...engine.runtime.context import Interrupted, TrainingContext
from ...engine.runtime.distributed import Team, join_team
from ..experiments.distributed import run_follower
from ..experiments.matrix import Experiment
from ..scheduling.console import ConsoleReporter
from ..scheduling.executor import EventHandler, Executor, JobEvent, group_by_dataset
from ..scheduling.exit_codes import STOPPED
from ..scheduling.job import Job, incompatibility, prepared_dataset, run_job
from ..scheduling.signals import stop_on_signals
from ..store.artifact_store import Store
from .fork_server import ForkServer, is_supported

EXECUTORS = ("local", "inline", "ray", "slurm")


class InlineExecutor:
    """One job after another, here: in a team of processes, in tests, under a debugger."""

    slots = 1

    def __init__(self, stop: Callable[[], bool] = bool, team: Team | None = None) -> None:
        self._stop, self._team = stop, team or Team()
        self._jobs: list[Job] = []
        self._kept: dict[str, Dataset] = {}

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        if not self._jobs:
            time.sleep(seconds)
            return
        job = self._jobs.pop()
        name = job["name"]

        def tell(event: str, facts: Mapping[str, Any]) -> None:
            on_event(JobEvent(name, "progress", {"event": event, "facts": facts}))

        on_event(JobEvent(name, "started", {}))
        ended = run_job(job, tell, self._stop, team=self._team, kept=self._kept)
        on_event(JobEvent(name, "ended", ended))

    def request_stop(self, name: str) -> None:
        """It hears of the stop by itself."""

    def kill(self, name: str) -> None:
        """There is nobody else to do it."""

    def close(self) -> None:
        self._jobs.clear()


def device_context(device: str, dtype: str, *, remote: bool = False) -> TrainingContext:
    """Where and how precisely to compute. "auto": the GPU in bfloat16 if there is one, else the
    CPU in float32. remote: on other hosts, whose devices need not be here.

    Raises ValueError on a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    team = join_team(device)
    device = team.device or device
    kind = torch.device(device).type
    if kind == "cuda" and not remote and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here (adbench doctor)")
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype == "auto":
        dtype = "bfloat16" if kind == "cuda" else "float32"
    if dtype not in kinds:
        raise ValueError(f"--dtype is one of auto, {', '.join(kinds)}, not {dtype!r}")
    batch = 64 if kind == "cuda" else 32
    return TrainingContext(device=device, dtype=kinds[dtype], batch=batch, team=team)


def run_experiments(
    experiments: Sequence[Experiment],
    context: TrainingContext,
    store: Store,
    out: Path,
    reporter: ConsoleReporter,
    tensorboard_folder: Path | None = None,
    executor: Executor | None = None,
    **limits: Any,
) -> int:
    """Run every cell that has no record yet; the exit code (0, 3, 5 or 130).

    tensorboard_folder: a folder for TensorBoard. executor: where; in this process if none is
    given. limits:
    timeout, grace and patience, as Sweep takes them. Launched as several processes, the first does
    all this, and the others train along.
    """
    from ..scheduling.scheduler import Scheduler

    if context.team.rank > 0:
        return _follow_rank_0(experiments, context)
    with stop_on_signals(reporter) as stop:
        where = executor or InlineExecutor(stop, context.team)
        return Scheduler(
            experiments, context, store, out, reporter, where, tensorboard_folder, **limits
        ).run(stop)


def create_executor(
    name: str,
    context: TrainingContext,
    experiments: Sequence[Experiment],
    slots: int | None,
    fork_server: ForkServer | None = None,
) -> Executor | None:
    """The executor of that name; None for this process, which is also where teams work.

    fork_server: one that was started early, for the local one. Raises ValueError on another name.
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor is one of {', '.join(EXECUTORS)}, not {name!r}")
    if name == "inline" or context.team.size > 1 or not is_supported():
        return None
    from .local import LocalExecutor, device_slots

    named = [cell.dataset.import_path.rpartition(":")[0] for cell in experiments]
    named += [cell.method.import_path for cell in experiments]
    return LocalExecutor(device_slots(context.device, slots), named, fork_server)


def prepare_dataset(
    experiment: Experiment, reporter: ConsoleReporter, stop: Callable[[], bool] = bool
) -> Dataset:
    """The cell's dataset, ready, with its progress shown. Raises KeyboardInterrupt when asked to
    stop meanwhile."""
    with reporter.progress_of(f"prepare {experiment.dataset.name}") as progress:
        return prepared_dataset(experiment, progress, stop)


def _follow_rank_0(cells: Sequence[Experiment], run: TrainingContext) -> int:
    """What the other processes of a team do: they train with the first."""
    for _, group in group_by_dataset(cells):
        try:
            dataset = prepare_dataset(group[0], ConsoleReporter(Console(quiet=True)))
        except DataError:
            continue  # the first process says so
        try:
            run_follower(
                [cell for cell in group if not incompatibility(cell, dataset)], dataset, run
            )
        except (Interrupted, KeyboardInterrupt):
            return STOPPED
    return 0
