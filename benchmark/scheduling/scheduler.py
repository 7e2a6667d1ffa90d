"""The scheduler of a run: which job starts when, and what follows from how a job ends.

An experiment that fails is a row; one whose process dies is retried; a method whose experiments
fail alike is set aside; a full disk is waited for; Ctrl-C once finishes the step, twice ends at
once. Whatever happens, what was done is in the store, and the same command goes on.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment
from ..leaderboard.records import plain_text
from ..store.artifact_store import Store
from .console import ConsoleReporter
from .events import (
    Died,
    DiskFull,
    Ended,
    Failed,
    Heartbeat,
    JobEvent,
    JobOutcome,
    NoData,
    Output,
    Prepared,
    Progress,
    Started,
    Stopped,
    Succeeded,
)
from .executor import Executor
from .exit_codes import FAILED, NO_DATA, STOPPED
from .experiment_queue import DatasetGroup, ExperimentQueue
from .job import Job, experiment_job, prepare_job
from .job_progress import JobProgress
from .result_recorder import ResultRecorder
from .retry_policies import CircuitBreaker, DiskSpaceGuard
from .run_state import RunState
from .running_jobs import RunningJobs
from .work_sharing import WorkSharing
from .worker import checked_record

POLL_SECONDS = 0.2
"""Seconds to wait for events at most."""


class Scheduler:
    """Runs experiments on an executor, and writes their records.

    context: device, precision and the like
    out: folder of the results
    loggers: trackers, as LoggerSpec.parse takes them
    timeout: seconds an experiment may take, None for any
    grace: seconds between asking one that is late to stop, and ending it
    disk_timeout: seconds for which a full disk is waited for

    >>> import io, tempfile
    >>> from rich.console import Console
    >>> from adbench.benchmark.executors.launch import InlineExecutor
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> experiments = example_experiments(shape=(24,), limit=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     out = Path(folder)
    ...     reporter, executor = ConsoleReporter(Console(file=io.StringIO())), InlineExecutor()
    ...     scheduler = Scheduler(
    ...         experiments, TrainingContext(), Store(out / "store"), out, reporter, executor
    ...     )
    ...     scheduler.run(stop=lambda: False), len(list(out.glob("records/*.json")))
    (0, 1)
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        context: TrainingContext,
        store: Store,
        out: Path,
        reporter: ConsoleReporter,
        executor: Executor,
        loggers: Sequence[str] = (),
        *,
        timeout: float | None = None,
        grace: float = 10.0,
        disk_timeout: float = 600.0,
    ) -> None:
        self._context, self._store, self._out = context, store, out
        self._loggers = loggers
        self._reporter, self._executor = reporter, executor
        # A team goes through every experiment once, in one order.
        self._single_process = context.team.size == 1
        self._queue = ExperimentQueue(experiments)
        self._running = RunningJobs(executor, timeout, grace)
        self._breaker, self._work_sharing = CircuitBreaker(), WorkSharing()
        self._disk_guard = DiskSpaceGuard(store.root, disk_timeout)
        self._recorder = ResultRecorder(out, len(self._queue), self._disk_guard, reporter)
        self._records, self._logs = self._recorder.writer, self._recorder.logs
        self._run_state = RunState(out)
        self._exit_code = 0
        self._stopped = False
        self._stop: Callable[[], bool] = bool

    def run(self, stop: Callable[[], bool]) -> int:
        """Run until all is done or `stop` is true, and return the exit code."""
        self._stop = lambda: self._stopped or stop()
        is_complete = False
        try:
            while (
                self._running
                or self._records.has_waiting
                or (not self._queue.is_empty and not self._stop())
            ):
                if self._stop():
                    self._running.request_stop_all()
                    self._records.discard_waiting()
                else:
                    self._start_jobs()
                self._executor.poll(self._handle_event, POLL_SECONDS)
                self._running.enforce_timeouts()
                self._records.retry()
                self._report_progress()
            is_complete = self._queue.is_empty
            return self._exit_code if is_complete else STOPPED
        except KeyboardInterrupt:
            self._running.kill_all()
            self._reporter.print_line(
                "ended at once: what was kept before is there, the same command goes on"
            )
            return STOPPED
        finally:
            self._executor.close()
            self._reporter.close()
            self._report_progress(now=True)
            if is_complete:
                self._run_state.close()

    # starting jobs

    def _start_jobs(self) -> None:
        running = self._running
        if running.is_full and self._queue.has_startable:
            for name in self._work_sharing:  # an experiment of its own comes before help
                running.request_stop(name)
        while not running.is_full:
            if any(running.needs_isolation(job.name) for job in running):
                return
            if self._disk_guard.is_full and (running or not self._disk_guard.may_retry()):
                return
            job = self._next_job() or self._work_sharing.next_job(running.progress, running.jobs)
            if job is None:
                return
            if running and running.needs_isolation(job.name):
                self._requeue(job)
                return
            running.start(job)

    def _next_job(self) -> Job | None:
        """The first experiment whose dataset is ready, or a dataset to prepare."""
        while (start := self._queue.next()) is not None:
            if isinstance(start, DatasetGroup):
                return prepare_job(list(start.experiments), self._context)
            reason = self._breaker.open_reason(start.method.name)
            if not (self._single_process and reason):
                return experiment_job(start, self._context, self._store, self._out, self._loggers)
            self._record_failure(start, Failed("none", reason))
        return None

    def _requeue(self, job: Job) -> None:
        if job.task == "experiment":
            self._queue.put_back(job.name)
        else:
            self._queue.group(job.experiments[0].name).state = "new"

    # events of jobs

    def _handle_event(self, job_event: JobEvent) -> None:
        name, event = job_event
        job, now = self._running.progress.get(name), time.monotonic()
        if job is None:
            return
        match event:
            case Started():
                job.started = job.last_heartbeat = now
            case Progress():
                job.on_progress(event, now)
                self._reporter.on_progress(name, event)
            case Heartbeat():
                job.on_heartbeat(event, now)
            case Output(data):
                self._logs.add(name, data)
            case Ended() | Died():
                del self._running.progress[name]
                self._reporter.forget_job(name)
                for helper in self._work_sharing.jobs_for(name):
                    self._executor.kill(helper)
                if self._work_sharing.remove(name):
                    self._on_helper_ended(name, event)
                elif isinstance(event, Ended):
                    self._on_outcome(name, event.outcome, job)
                else:
                    self._on_death(name, event, job)
                self._logs.close(name)
        self._report_progress()

    def _on_outcome(self, name: str, outcome: JobOutcome, job: JobProgress) -> None:
        if (
            isinstance(outcome, DiskFull)
            and self._single_process
            and not self._disk_guard.timed_out()
        ):
            if self._disk_guard.mark_full():
                self._reporter.print_line(
                    f"waiting for room on the disk, then going on: {outcome.reason}"
                )
            self._requeue(self._running.jobs[name])
            return
        self._disk_guard.mark_free()
        is_experiment = name in self._queue
        match outcome:
            case Prepared() if not is_experiment:
                self._on_dataset_ready(self._group_of_job(name), outcome)
            case NoData(reason) if not is_experiment:
                self._on_no_data(self._group_of_job(name), reason)
            case Succeeded(record) if is_experiment:
                self._on_success(self._queue.experiment(name), record, job)
            case Failed():
                self._logs.add(name, outcome.trace)
                self._on_failure(name, outcome)
            case DiskFull(phase, reason):
                self._logs.add(name, reason)
                self._on_failure(name, Failed(phase, reason))
            case Stopped(reason) if job.timed_out or self._stop() or not self._single_process:
                if job.timed_out:
                    self._on_failure(name, self._running.timeout_failure(job))
                else:
                    self._on_interrupt(name, reason)
            case Stopped():  # somebody else sent it a signal
                self._on_death(name, Died(signal=int(signal.SIGINT)), job)
            case _:  # a plugin wrote it
                reason = "its process reported the outcome of another kind of job"
                self._on_failure(name, Failed(job.phase, reason))

    def _on_helper_ended(self, name: str, event: Ended | Died) -> None:
        """However it ended: the experiment goes on alone, and its own job finds what is wrong."""
        if isinstance(event, Ended) and isinstance(event.outcome, Failed):
            self._logs.add(name, event.outcome.trace)

    def _on_death(self, name: str, death: Died, job: JobProgress) -> None:
        history, own_job = self._running.history(name), self._running.jobs[name]
        reason = history.record_death(death, job.location, own_job.context.batch)
        if job.timed_out:
            self._on_failure(name, self._running.timeout_failure(job))
        elif self._stop():
            self._on_interrupt(name, "")
        elif reason:
            self._on_failure(name, Failed(job.phase, reason))
        else:
            change = ", with half the batch" if death.out_of_memory else ""
            ended = history.attempts[-1]["ended"]
            self._reporter.print_line(f"{name}  {ended} ({job.location}); trying again{change}")
            self._requeue(own_job)

    def _on_interrupt(self, name: str, reason: str) -> None:
        if not reason:
            reason = name if name in self._queue else "what is prepared is kept"
        self._reporter.print_line(f"interrupted: {reason}; the same command goes on")
        self._stopped = True
        self._requeue(self._running.jobs[name])

    # results

    def _group_of_job(self, name: str) -> DatasetGroup:
        """The group whose dataset a job prepares."""
        return self._queue.group(self._running.jobs[name].experiments[0].name)

    def _on_dataset_ready(self, group: DatasetGroup, outcome: Prepared) -> None:
        group.state = "ready"
        for name, header in outcome.headers.items():
            with suppress(ValueError):
                group.headers[name] = checked_record(header)
        for experiment in list(group.experiments):
            if reason := outcome.incompatible.get(experiment.name):
                group.experiments.remove(experiment)
                if experiment.implicit_baseline:
                    self._records.counts["to_do"] -= 1
                else:
                    self._recorder.skipped(experiment, self._queue.header(experiment), reason)

    def _on_no_data(self, group: DatasetGroup, reason: str) -> None:
        self._reporter.print_failure(group.experiments[0].dataset.name, reason)
        self._records.counts["to_do"] -= len(group.experiments)
        group.experiments.clear()
        self._exit_code = NO_DATA

    def _on_success(self, experiment: Experiment, record: dict[str, Any], job: JobProgress) -> None:
        try:
            record = checked_record(record)
        except ValueError as error:
            self._on_failure(experiment.name, Failed(job.phase, plain_text(str(error))))
            return
        attempts = self._running.history(experiment.name).attempts
        self._recorder.succeeded(experiment, record, attempts)

    def _on_failure(self, name: str, failure: Failed) -> None:
        """Record a failure of an experiment, or of each whose dataset cannot be prepared."""
        if name in self._queue:
            self._record_failure(self._queue.experiment(name), failure)
            return
        group = self._group_of_job(name)
        for experiment in group.experiments:
            self._record_failure(experiment, failure, name)
        group.experiments.clear()

    def _record_failure(self, experiment: Experiment, failure: Failed, job: str = "") -> None:
        job = job or experiment.name
        attempts = self._running.history(job).attempts
        header = self._queue.header(experiment)
        reason = self._recorder.failed(experiment, header, failure, attempts, job)
        self._exit_code = self._exit_code or FAILED
        if job == experiment.name and failure.phase != "none" and self._single_process:
            method = experiment.method.name
            if message := self._breaker.record_failure(method, experiment.name, reason):
                self._reporter.print_line(f"{method}  {message}")

    def _report_progress(self, *, now: bool = False) -> None:
        running = list(self._running)
        counts = dict(self._records.counts) | {
            "doing": sum(job.name in self._queue for job in running)
        }
        counts["to_do"] -= counts["doing"]
        self._reporter.draw(running, counts)
        message = "waiting for room on the disk" if self._disk_guard.is_full else ""
        self._run_state.write(running, counts, message, now=now)
