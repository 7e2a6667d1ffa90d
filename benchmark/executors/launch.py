"""Starts a run: on which device, on which executor; and the executor that needs no process.

An executor only starts jobs and reports what becomes of them. What is retried, set aside, written
and shown stands once, in scheduler.py, so that the same experiments give the same results whichever
executor runs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console

from ...datasets.base import DataError, Dataset
from ...engine.runtime.context import (
    NUMERICS,
    Interrupted,
    TrainingContext,
    numerics_fields,
)
from ...engine.runtime.distributed import Team, join_team
from ..experiments.distributed import run_follower
from ..experiments.matrix import Experiment
from ..experiments.run_config import ExecutorName
from ..registry.imports import did_you_mean
from ..scheduling.console import ConsoleReporter
from ..scheduling.events import (
    Died,
    Ended,
    Event,
    JobEvent,
    Started,
    format_event,
    parse_event,
    progress_event,
)
from ..scheduling.executor import EventHandler, Executor, group_by_dataset
from ..scheduling.exit_codes import STOPPED
from ..scheduling.job import Job
from ..scheduling.signals import stop_on_signals
from ..scheduling.worker import incompatibility, prepared_dataset, run_job
from ..store.artifact_store import Store
from .fork_server import ForkServer, is_supported

EXECUTORS: tuple[str, ...] = get_args(ExecutorName)


class InlineExecutor:
    """Runs one job after another in this process: for teams, in notebooks, under a debugger.

    stop: whether to stop between two steps
    team: the processes that train together

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> experiments = example_experiments(shape=(16,), limit=4)
    >>> from adbench.benchmark.scheduling.job import prepare_job
    >>> executor, events = InlineExecutor(), []
    >>> executor.start(prepare_job(experiments, TrainingContext()))
    >>> executor.poll(events.append, 0.0)
    >>> type(events[0].event).__name__, type(events[-1].event.outcome).__name__
    ('Started', 'Prepared')
    """

    slots = 1

    def __init__(self, stop: Callable[[], bool] = bool, team: Team | None = None) -> None:
        self._stop, self._team = stop, team or Team()
        self._jobs: list[Job] = []
        self._datasets: dict[str, Dataset] = {}

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        if not self._jobs:
            time.sleep(seconds)
            return
        job = self._jobs.pop()

        def report(event: Event) -> None:
            # As from another process, so that the same events are sound.
            sound = parse_event(format_event(event)) or Died(reason="it reported no event")
            on_event(JobEvent(job.name, sound))

        def log(event: str, facts: Mapping[str, Any]) -> None:
            report(progress_event(event, facts))

        report(Started())
        report(Ended(run_job(job, log, self._stop, team=self._team, datasets=self._datasets)))

    def request_stop(self, name: str) -> None:
        """Nothing: the job asks `stop` itself."""

    def kill(self, name: str) -> None:
        """Nothing: the job runs in this process."""

    def close(self) -> None:
        self._jobs.clear()


def _check_device_name(device: str) -> None:
    try:
        torch.device(device)
    except RuntimeError:
        names = ["auto", "cpu", "cuda", "cuda:1", "mps"]
        guess = (
            ". Did you mean 'cuda'?" if "gpu" in device.casefold() else did_you_mean(device, names)
        )
        raise ValueError(
            f"--device is auto, cpu, cuda or cuda:1, not {device!r}{guess.rstrip('.')}"
        ) from None


def device_context(device: str, dtype: str, *, remote: bool = False) -> TrainingContext:
    """Return the device and the dtype to compute with, as a context.

    device, dtype: "auto" is the GPU in bfloat16 if there is one, else the CPU in float32
    remote: whether the jobs run on other hosts, whose devices need not be here

    Raises ValueError on a device that is not there, and on a dtype that it does not have.

    >>> from adbench.benchmark.executors.launch import device_context
    >>> device_context("cpu", "auto").dtype
    torch.float32
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device_name(device)
    team = join_team(device)
    device = team.device or device
    kind = torch.device(device).type
    if kind == "cuda" and not remote and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here (adbench doctor)")
    if dtype == "auto":
        dtype = "bfloat16" if kind == "cuda" else "float32"
    if dtype not in NUMERICS:
        raise ValueError(f"--dtype is one of auto, {', '.join(NUMERICS)}, not {dtype!r}")
    if dtype == "tf32" and kind == "cpu":
        raise ValueError("--dtype tf32 is a precision of GPUs: take float32 on a CPU")
    batch = 64 if kind == "cuda" else 32
    return TrainingContext(device=device, batch=batch, team=team, **numerics_fields(dtype))


def run_experiments(
    experiments: Sequence[Experiment],
    context: TrainingContext,
    store: Store,
    out: Path,
    reporter: ConsoleReporter,
    loggers: Sequence[str] = (),
    executor: Executor | None = None,
    **limits: Any,
) -> int:
    """Run every experiment that has no record yet, and return the exit code (0, 3, 5 or 130).

    Launched as several processes, the first does all this, and the others train along.

    loggers: trackers, as LoggerSpec.parse takes them
    executor: where jobs run; None for this process
    limits: timeout, grace and disk_timeout of Scheduler

    >>> import io, tempfile
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> experiments = example_experiments(shape=(16,), limit=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     out, store = Path(folder, "results"), Store(Path(folder, "store"))
    ...     reporter = ConsoleReporter(Console(file=io.StringIO()))
    ...     code = run_experiments(experiments, TrainingContext(), store, out, reporter)
    ...     code, len(list(out.glob("records/*.json")))
    (0, 1)
    """
    from ..scheduling.scheduler import Scheduler

    if context.team.rank > 0:
        return _follow_rank_0(experiments, context)
    with stop_on_signals(reporter) as stop:
        executor = executor or InlineExecutor(stop, context.team)
        return Scheduler(
            experiments, context, store, out, reporter, executor, loggers, **limits
        ).run(stop)


def create_executor(
    name: str,
    context: TrainingContext,
    experiments: Sequence[Experiment],
    slots: int | None,
    fork_server: ForkServer | None = None,
) -> Executor | None:
    """Return the executor of a name; None for this process, which is also where teams work.

    slots: jobs at a time; None for one per GPU, or one
    fork_server: one that was started early, for the local executor

    Raises ValueError on an unknown name.

    >>> from adbench.benchmark.executors.launch import create_executor
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> create_executor("inline", TrainingContext(), [], None) is None
    True
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor is one of {', '.join(EXECUTORS)}, not {name!r}")
    if name == "inline" or context.team.size > 1 or not is_supported():
        return None
    from .local import LocalExecutor, device_slots

    preload = [each.dataset.import_path.rpartition(":")[0] for each in experiments]
    preload += [each.method.import_path for each in experiments]
    return LocalExecutor(device_slots(context.device, slots), preload, fork_server)


def prepare_dataset(
    experiment: Experiment, reporter: ConsoleReporter, stop: Callable[[], bool] = bool
) -> Dataset:
    """Return the dataset of an experiment, prepared, with the progress shown.

    Raises KeyboardInterrupt when asked to stop meanwhile, DataError where data are missing or bad.

    >>> import io
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> experiments = example_experiments(shape=(16,), limit=4)
    >>> dataset = prepare_dataset(experiments[0], ConsoleReporter(Console(file=io.StringIO())))
    >>> dataset.spec.shape
    (16,)
    """
    with reporter.progress_of(f"prepare {experiment.dataset.name}") as progress:
        return prepared_dataset(experiment, progress, stop)


def _follow_rank_0(experiments: Sequence[Experiment], context: TrainingContext) -> int:
    """Train with the first process of a team, in the others."""
    for _, group in group_by_dataset(experiments):
        try:
            dataset = prepare_dataset(group[0], ConsoleReporter(Console(quiet=True)))
        except DataError:
            continue  # the first process says so
        try:
            compatible = [each for each in group if not incompatibility(each, dataset)]
            run_follower(compatible, dataset, context)
        except (Interrupted, KeyboardInterrupt):
            return STOPPED
    return 0
