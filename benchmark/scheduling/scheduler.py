"""The scheduler of a run: which job starts when, and what follows from how a job ends.

An experiment that fails is a row; one whose process dies is retried; a method whose experiments
fail alike is set aside; a full disk is waited for; Ctrl-C once finishes the step, twice ends at
once. Whatever happens, what was done is in the store, and the same command goes on.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment
from ..experiments.record import record_header
from ..experiments.tensorboard import TensorBoardError
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
    Refused,
    Started,
    Stopped,
    Succeeded,
)
from .executor import Executor, group_by_dataset
from .exit_codes import FAILED, NO_DATA, STOPPED
from .job import Job, experiment_job, prepare_job
from .job_logs import JobLogs
from .job_progress import JobProgress
from .printable import shorten
from .record_writer import RecordWriter
from .retry_policies import CircuitBreaker, DiskSpaceGuard, RetryHistory, with_half_batch
from .run_state import RunState
from .work_sharing import WorkSharing
from .worker import checked_record

POLL_SECONDS = 0.2
"""Seconds to wait for events at most."""

REASON_LENGTH = 300
"""Letters of a reason in a record at most; its log has the rest."""


@dataclass
class _DatasetGroup:
    """Experiments on one dataset, which is prepared once before them.

    experiments: those that are yet to be started
    state: new, preparing or ready
    headers: the fields that every record has, by experiment
    """

    experiments: deque[Experiment]
    state: str = "new"
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)


class Scheduler:
    """Runs experiments on an executor, and writes their records.

    timeout: seconds an experiment may take, None for any
    grace: seconds between asking one that is late to stop, and ending it
    disk_timeout: seconds for which a full disk is waited for
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        context: TrainingContext,
        store: Store,
        out: Path,
        reporter: ConsoleReporter,
        executor: Executor,
        tensorboard_folder: Path | None = None,
        *,
        timeout: float | None = None,
        grace: float = 10.0,
        disk_timeout: float = 600.0,
    ) -> None:
        self._context, self._store, self._out = context, store, out
        self._tensorboard_folder = tensorboard_folder
        self._reporter, self._executor = reporter, executor
        self._timeout, self._grace = timeout, grace
        # A team goes through every experiment once, in one order.
        self._single_process = context.team.size == 1
        self._groups = [_DatasetGroup(deque(group)) for _, group in group_by_dataset(experiments)]
        self._experiments_by_name = {
            each.name: (each, group) for group in self._groups for each in group.experiments
        }
        self._running: dict[str, JobProgress] = {}
        self._jobs: dict[str, Job] = {}
        self._retries: dict[str, RetryHistory] = {}
        self._breaker, self._work_sharing = CircuitBreaker(), WorkSharing()
        self._disk_guard = DiskSpaceGuard(store.root, disk_timeout)
        self._records = RecordWriter(
            out, len(self._experiments_by_name), self._disk_guard, reporter
        )
        self._logs, self._run_state = JobLogs(out / "logs"), RunState(out)
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
                or (self._has_pending() and not self._stop())
            ):
                if self._stop():
                    self._request_stop_all()
                    self._records.discard_waiting()
                else:
                    self._start_jobs()
                self._executor.poll(self._handle_event, POLL_SECONDS)
                self._enforce_timeouts()
                self._records.retry()
                self._report_progress()
            is_complete = not self._has_pending()
            return self._exit_code if is_complete else STOPPED
        except KeyboardInterrupt:
            for name in list(self._running):
                self._executor.kill(name)
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

    def _has_pending(self) -> bool:
        return any(group.experiments for group in self._groups)

    # starting jobs

    def _start_jobs(self) -> None:
        if len(self._running) == self._executor.slots and self._has_startable():
            for name in self._work_sharing:  # an experiment of its own comes before help
                self._request_stop(self._running[name])
        while len(self._running) < self._executor.slots:
            if any(map(self._needs_isolation, self._running)):
                return
            if self._disk_guard.is_full and (self._running or not self._disk_guard.may_retry()):
                return
            job = self._next_job() or self._work_sharing.next_job(self._running, self._jobs)
            if job is None:
                return
            if self._running and self._needs_isolation(job.name):
                self._requeue(job.name)
                return
            self._jobs[job.name] = job
            history = self._retries.setdefault(job.name, RetryHistory())
            self._running[job.name] = JobProgress(
                job.name, len(history.attempts) + 1, last_heartbeat=time.monotonic()
            )
            self._executor.start(job)

    def _needs_isolation(self, name: str) -> bool:
        return name in self._retries and self._retries[name].needs_isolation

    def _has_startable(self) -> bool:
        """Whether a free slot would start something."""
        return any(group.state != "preparing" and group.experiments for group in self._groups)

    def _next_job(self) -> Job | None:
        """The first experiment whose dataset is ready, or a dataset to prepare."""
        for group in self._groups:
            if group.state == "new" and group.experiments:
                group.state = "preparing"
                return self._with_retry_settings(
                    prepare_job(list(group.experiments), self._context)
                )
            while group.state == "ready" and group.experiments:
                experiment = group.experiments.popleft()
                reason = self._breaker.open_reason(experiment.method.name)
                if self._single_process and reason:
                    self._record_failure(experiment, Failed("none", reason))
                    continue
                job = experiment_job(
                    experiment, self._context, self._store, self._out, self._tensorboard_folder
                )
                return self._with_retry_settings(job)
        return None

    def _with_retry_settings(self, job: Job) -> Job:
        history = self._retries.get(job.name)
        return with_half_batch(job) if history and history.out_of_memory else job

    def _requeue(self, name: str) -> None:
        if name in self._experiments_by_name:
            experiment, group = self._experiments_by_name[name]
            group.experiments.appendleft(experiment)
        else:
            self._group_of_job(name).state = "new"

    # events of jobs

    def _handle_event(self, job_event: JobEvent) -> None:
        name, event = job_event
        job, now = self._running.get(name), time.monotonic()
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
                del self._running[name]
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
            self._requeue(name)
            return
        self._disk_guard.mark_free()
        is_experiment = name in self._experiments_by_name
        match outcome:
            case Prepared() if not is_experiment:
                self._on_dataset_ready(self._group_of_job(name), outcome)
            case NoData(reason) if not is_experiment:
                self._on_no_data(self._group_of_job(name), reason)
            case Succeeded(record) if is_experiment:
                self._on_success(self._experiments_by_name[name][0], record, job)
            case Refused(reason) if self._tensorboard_folder is not None:
                raise TensorBoardError(reason)
            case Failed():
                self._logs.add(name, outcome.trace)
                self._on_failure(name, outcome)
            case DiskFull(phase, reason):
                self._logs.add(name, reason)
                self._on_failure(name, Failed(phase, reason))
            case Stopped(reason) if job.timed_out or self._stop() or not self._single_process:
                if job.timed_out:
                    self._on_failure(name, self._timeout_failure(job))
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
        history = self._retries[name]
        reason = history.record_death(death, job.location, self._jobs[name].context.batch)
        if job.timed_out:
            self._on_failure(name, self._timeout_failure(job))
        elif self._stop():
            self._on_interrupt(name, "")
        elif reason:
            self._on_failure(name, Failed(job.phase, reason))
        else:
            change = ", with half the batch" if death.out_of_memory else ""
            ended = history.attempts[-1]["ended"]
            self._reporter.print_line(f"{name}  {ended} ({job.location}); trying again{change}")
            self._requeue(name)

    def _request_stop_all(self) -> None:
        for job in self._running.values():
            self._request_stop(job)

    def _request_stop(self, job: JobProgress) -> None:
        """Ask a job to stop, once."""
        if job.stop_requested is None:
            job.stop_requested = time.monotonic()
            self._executor.request_stop(job.name)

    def _enforce_timeouts(self) -> None:
        """Ask experiments that are over their time to stop; end those that do not."""
        if self._timeout is None:
            return
        now = time.monotonic()
        for job in list(self._running.values()):
            if job.started is None or job.name not in self._experiments_by_name:
                continue
            if job.stop_requested is None and now - job.started >= self._timeout:
                job.timed_out = True
                self._request_stop(job)
            elif (
                job.timed_out
                and job.stop_requested is not None
                and now - job.stop_requested >= self._grace
            ):
                self._executor.kill(job.name)

    def _timeout_failure(self, job: JobProgress) -> Failed:
        reason = f"timed out after {self._timeout:g} s"
        self._retries[job.name].attempts.append({"ended": reason, "at": job.location})
        return Failed(job.phase, reason)

    def _on_interrupt(self, name: str, reason: str) -> None:
        if not reason:
            is_experiment = name in self._experiments_by_name
            reason = name if is_experiment else "what is prepared is kept"
        self._reporter.print_line(f"interrupted: {reason}; the same command goes on")
        self._stopped = True
        self._requeue(name)

    # results

    def _group_of_job(self, name: str) -> _DatasetGroup:
        """The group whose dataset a job prepares."""
        return self._experiments_by_name[self._jobs[name].experiments[0].name][1]

    def _on_dataset_ready(self, group: _DatasetGroup, outcome: Prepared) -> None:
        group.state = "ready"
        for name, header in outcome.headers.items():
            with suppress(ValueError):
                group.headers[name] = checked_record(header)
        experiments, group.experiments = list(group.experiments), deque()
        for experiment in experiments:
            reason = outcome.incompatible.get(experiment.name)
            if not reason:
                group.experiments.append(experiment)
            elif experiment.implicit_baseline:
                self._records.counts["to_do"] -= 1
            else:
                reason = shorten(plain_text(reason), REASON_LENGTH)
                self._reporter.print_line(f"{experiment.name}  skipped: {reason}")
                fields = {"status": "skipped", "reason": reason}
                self._records.write(experiment, self._header(experiment) | fields)

    def _on_no_data(self, group: _DatasetGroup, reason: str) -> None:
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
        if attempts := self._retries[experiment.name].attempts:
            record["attempts"] = attempts
        self._records.write(experiment, record)
        self._reporter.print_result(experiment.name, record)

    def _on_failure(self, name: str, failure: Failed) -> None:
        """Record a failure of an experiment, or of each whose dataset cannot be prepared."""
        if name in self._experiments_by_name:
            self._record_failure(self._experiments_by_name[name][0], failure)
            return
        group = self._group_of_job(name)
        for experiment in group.experiments:
            self._record_failure(experiment, failure, name)
        group.experiments.clear()

    def _record_failure(self, experiment: Experiment, failure: Failed, job: str = "") -> None:
        job = job or experiment.name
        tail, log = self._logs.tail(job), self._logs.path(job)
        named = f"… (log: {log.relative_to(self._out)})" if tail else "…"
        reason = shorten(plain_text(failure.exception), REASON_LENGTH, named)
        fields = {
            "status": "failed",
            "reason": reason,
            "failure": {
                "phase": plain_text(failure.phase),
                "exception": reason,
                "attempts": self._retries.get(job, RetryHistory()).attempts,
                "log": tail,
            },
        }
        self._records.write(experiment, self._header(experiment) | fields)
        self._exit_code = self._exit_code or FAILED
        is_named = not tail or reason.endswith(named)
        self._reporter.print_failure(
            experiment.name, reason if is_named else f"{reason} (log: {log})"
        )
        if job == experiment.name and failure.phase != "none" and self._single_process:
            method = experiment.method.name
            if message := self._breaker.record_failure(method, experiment.name, reason):
                self._reporter.print_line(f"{method}  {message}")

    def _header(self, experiment: Experiment) -> dict[str, Any]:
        """The fields that every record has; without the dataset's where it was not prepared."""
        header = self._experiments_by_name[experiment.name][1].headers.get(experiment.name)
        return header or record_header(experiment, None, experiment.method.load(), "failed")

    def _report_progress(self, *, now: bool = False) -> None:
        running = list(self._running.values())
        counts = dict(self._records.counts) | {
            "doing": sum(job.name in self._experiments_by_name for job in running)
        }
        counts["to_do"] -= counts["doing"]
        self._reporter.draw(running, counts)
        message = "waiting for room on the disk" if self._disk_guard.is_full else ""
        self._run_state.write(running, counts, message, now=now)
