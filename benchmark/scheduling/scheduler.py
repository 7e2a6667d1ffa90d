"""A run of many cells that cannot be lost: what is started when, and what follows from how it ends.

A cell that fails is a row; one whose process dies is tried again; a method whose cells fail alike
is set aside; a full disk is waited for; Ctrl-C once finishes the step, twice ends at once. Whatever
happens, what was done is in the store, and the same command goes on.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment
from ..experiments.record import record_header
from ..experiments.tensorboard import TensorBoardError
from ..store.artifact_store import Store
from .console import ConsoleReporter
from .executor import Executor, JobEvent, group_by_dataset
from .exit_codes import FAILED, NO_DATA, STOPPED
from .job import Job, Outcome, experiment_job, prepare_job
from .job_logs import JobLogs
from .job_progress import JobProgress
from .record_writer import RecordWriter
from .retry_policies import CircuitBreaker, DiskSpaceGuard, RetryHistory, with_half_batch
from .run_state import RunState
from .work_sharing import WorkSharing

POLL_SECONDS = 0.2
"""Seconds that are waited for news at most."""


@dataclass
class _DatasetGroup:
    """Cells on one dataset, which is made ready once before them. record_headers: what their
    records say
    anyway; experiments: yet to be done."""

    experiments: deque[Experiment]
    state: str = "new"  # new, preparing, ready
    record_headers: dict[str, dict[str, Any]] = field(default_factory=dict)


class Scheduler:
    """timeout: seconds a cell may take, None for any. grace: between asking one to stop that is
    late, and ending it. patience: how long a full disk is waited for."""

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
        self._context, self._store, self._out, self._tensorboard_folder = (
            context,
            store,
            out,
            tensorboard_folder,
        )
        self._reporter, self._executor = reporter, executor
        self._timeout, self._grace = timeout, grace
        self._single_process = (
            context.team.size == 1
        )  # a team goes through every cell once, in one order
        self._groups = [_DatasetGroup(deque(group)) for _, group in group_by_dataset(experiments)]
        self._experiments_by_name = {
            cell.name: (cell, group) for group in self._groups for cell in group.experiments
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
        """Until all is done, or `stop` says so; the exit code."""
        self._stop = lambda: self._stopped or stop()
        ended = False
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
            ended = not self._has_pending()
            return self._exit_code if ended else STOPPED
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
            if ended:
                self._run_state.close()

    def _has_pending(self) -> bool:
        return any(group.experiments for group in self._groups)

    # what is started

    def _start_jobs(self) -> None:
        if len(self._running) == self._executor.slots and self._has_startable():
            for name in self._work_sharing:  # a cell of its own comes before help
                self._request_stop(self._running[name])
        while len(self._running) < self._executor.slots:
            if self._disk_guard.is_full and (self._running or not self._disk_guard.may_retry()):
                return
            job = self._next_job() or self._work_sharing.next_job(self._running, self._jobs)
            if job is None:
                return
            name = job["name"]
            self._jobs[name] = job
            tries = self._retries.setdefault(name, RetryHistory())
            self._running[name] = JobProgress(
                name, len(tries.attempts) + 1, last_heartbeat=time.monotonic()
            )
            self._executor.start(job)

    def _has_startable(self) -> bool:
        """Whether there is something to start, were there a slot."""
        return any(group.state != "preparing" and group.experiments for group in self._groups)

    def _next_job(self) -> Job | None:
        """The first cell whose dataset is ready, or a dataset that is not."""
        for group in self._groups:
            if group.state == "new" and group.experiments:
                group.state = "preparing"
                return self._with_retry_settings(
                    prepare_job(list(group.experiments), self._context)
                )
            while group.state == "ready" and group.experiments:
                cell = group.experiments.popleft()
                if self._single_process and (reason := self._breaker.open_reason(cell.method.name)):
                    self._record_failure(cell, {"phase": "none", "exception": reason})
                    continue
                job = experiment_job(
                    cell, self._context, self._store, self._out, self._tensorboard_folder
                )
                return self._with_retry_settings(job)
        return None

    def _with_retry_settings(self, job: Job) -> Job:
        tries = self._retries.get(job["name"])
        return with_half_batch(job) if tries and tries.out_of_memory else job

    def _requeue(self, name: str) -> None:
        if name in self._experiments_by_name:
            cell, group = self._experiments_by_name[name]
            group.experiments.appendleft(cell)
        else:
            self._group_of_job(name).state = "new"

    # what is heard

    def _handle_event(self, news: JobEvent) -> None:
        job, now = self._running.get(news.job_name), time.monotonic()
        if job is None:
            return
        if news.kind == "started":
            job.started = job.last_heartbeat = now
        elif news.kind == "progress":
            event, facts = news.facts["event"], news.facts["facts"]
            job.on_event(event, facts, now)
            self._reporter.on_event(news.job_name, event, facts)
        elif news.kind == "heartbeat":
            job.on_heartbeat(news.facts, now)
        elif news.kind == "output":
            self._logs.add(news.job_name, news.facts["bytes"])
        else:
            del self._running[news.job_name]
            self._reporter.forget_job(news.job_name)
            for helper in self._work_sharing.jobs_for(news.job_name):
                self._executor.kill(helper)
            ended = self._on_process_death if news.kind == "died" else self._on_outcome
            ended = (
                self._on_shared_work_ended if self._work_sharing.remove(news.job_name) else ended
            )
            ended(news.job_name, dict(news.facts), job)
            self._logs.close(news.job_name)
        self._report_progress()

    def _on_outcome(self, name: str, outcome: Outcome, job: JobProgress) -> None:
        end = outcome["end"]
        if end == "full" and self._single_process and not self._disk_guard.timed_out():
            if self._disk_guard.mark_full():
                self._reporter.print_line(
                    f"waiting for room on the disk, then going on: {outcome['said']}"
                )
            self._requeue(name)
            return
        self._disk_guard.mark_free()
        if end == "prepared":
            self._on_dataset_ready(self._group_of_job(name), outcome)
        elif end == "no-data":
            group = self._group_of_job(name)
            self._reporter.print_failure(group.experiments[0].dataset.name, outcome["said"])
            self._records.counts["to_do"] -= len(group.experiments)
            group.experiments.clear()
            self._exit_code = NO_DATA
        elif end == "ok":
            self._on_success(self._experiments_by_name[name][0], outcome["record"])
        elif end == "refused":
            raise TensorBoardError(outcome["said"])
        elif end != "stopped":
            said = outcome.get("exception") or outcome["said"]
            self._logs.add(name, outcome.get("trace", said).encode())
            self._on_failure(name, {"phase": outcome["phase"], "exception": said})
        elif job.timed_out:
            self._on_failure(name, self._timeout_failure(job))
        elif self._stop() or not self._single_process:
            self._on_interrupt(name, outcome["said"])
        else:  # somebody else sent it a signal
            self._on_process_death(name, {"signal": int(signal.SIGINT)}, job)

    def _on_shared_work_ended(self, name: str, outcome: Outcome, job: JobProgress) -> None:
        """However it ended: the cell goes on alone, and its own job finds what is wrong."""
        if trace := outcome.get("trace"):
            self._logs.add(name, trace.encode())

    def _on_process_death(self, name: str, facts: dict[str, Any], job: JobProgress) -> None:
        tries = self._retries[name]
        rows = self._jobs[name]["run"]["batch"]
        reason = tries.record_death(
            facts | {"batch": rows if facts.get("memory") else None}, job.location
        )
        if job.timed_out:
            self._on_failure(name, self._timeout_failure(job))
        elif self._stop():
            self._on_interrupt(name, "")
        elif reason:
            self._on_failure(name, {"phase": job.phase, "exception": reason})
        else:
            rest = ", with half the batch" if facts.get("memory") else ""
            said = tries.attempts[-1]["ended"]
            self._reporter.print_line(f"{name}  {said} ({job.location}); trying again{rest}")
            self._requeue(name)

    def _request_stop_all(self) -> None:
        for job in self._running.values():
            self._request_stop(job)

    def _request_stop(self, job: JobProgress) -> None:
        """Once."""
        if job.stop_requested is None:
            job.stop_requested = time.monotonic()
            self._executor.request_stop(job.name)

    def _enforce_timeouts(self) -> None:
        """Ask whatever is over its time to stop; end what was asked and does not."""
        now = time.monotonic()
        for job in list(self._running.values()):
            if (
                self._timeout is None
                or job.started is None
                or job.name not in self._experiments_by_name
            ):
                continue
            if (
                job.timed_out
                and job.stop_requested is not None
                and now - job.stop_requested >= self._grace
            ):
                self._executor.kill(job.name)
            elif job.stop_requested is None and now - job.started >= self._timeout:
                job.timed_out = True
                self._request_stop(job)

    def _timeout_failure(self, job: JobProgress) -> dict[str, Any]:
        said = f"timed out after {self._timeout:g} s"
        self._retries[job.name].attempts.append({"ended": said, "at": job.location})
        return {"phase": job.phase, "exception": said}

    def _on_interrupt(self, name: str, said: str) -> None:
        said = said or (
            "what is prepared is kept" if name not in self._experiments_by_name else name
        )
        self._reporter.print_line(f"interrupted: {said}; the same command goes on")
        self._stopped = True
        self._requeue(name)

    # what comes of it

    def _group_of_job(self, name: str) -> _DatasetGroup:
        """The one whose dataset this job makes ready."""
        return self._experiments_by_name[self._jobs[name]["names"][0]][1]

    def _on_dataset_ready(self, group: _DatasetGroup, outcome: Outcome) -> None:
        group.state, group.record_headers = "ready", outcome["heads"]
        cells, group.experiments = list(group.experiments), deque()
        for cell in cells:
            reason = outcome["unfit"].get(cell.name)
            if not reason:
                group.experiments.append(cell)
            elif cell.implicit_baseline:
                self._records.counts["to_do"] -= 1
            else:
                self._reporter.print_line(f"{cell.name}  skipped: {reason}")
                head = group.record_headers[cell.name]
                self._records.write(cell, head | {"status": "skipped", "reason": reason})

    def _on_success(self, cell: Experiment, record: dict[str, Any]) -> None:
        if attempts := self._retries[cell.name].attempts:
            record["attempts"] = attempts
        self._records.write(cell, record)
        self._reporter.print_result(cell.name, record)

    def _on_failure(self, name: str, failure: Mapping[str, Any]) -> None:
        """A job failed for good: a cell, or every cell of a dataset that cannot be made ready."""
        if name in self._experiments_by_name:
            self._record_failure(self._experiments_by_name[name][0], failure)
            return
        group = self._group_of_job(name)
        for cell in group.experiments:
            self._record_failure(cell, failure, name)
        group.experiments.clear()

    def _record_failure(self, cell: Experiment, failure: Mapping[str, Any], job: str = "") -> None:
        job = job or cell.name
        reason, tail = failure["exception"], self._logs.tail(job)
        tries = self._retries.get(job, RetryHistory())
        head = self._experiments_by_name[cell.name][1].record_headers.get(cell.name)
        head = head or record_header(cell, None, cell.method.load(), "failed")
        told = {**failure, "attempts": tries.attempts, "log": tail}
        self._records.write(cell, head | {"status": "failed", "reason": reason, "failure": told})
        self._exit_code = self._exit_code or FAILED
        self._reporter.print_failure(
            cell.name, f"{reason} (log: {self._logs.path(job)})" if tail else reason
        )
        if job == cell.name and failure["phase"] != "none" and self._single_process:
            aside = self._breaker.record_failure(cell.method.name, cell.name, reason)
            if aside:
                self._reporter.print_line(f"{cell.method.name}  {aside}")

    def _report_progress(self, *, now: bool = False) -> None:
        doing = list(self._running.values())
        counts = dict(self._records.counts) | {
            "doing": sum(job.name in self._experiments_by_name for job in doing)
        }
        counts["to_do"] -= counts["doing"]
        self._reporter.draw(doing, counts)
        said = "waiting for room on the disk" if self._disk_guard.is_full else ""
        self._run_state.write(doing, counts, said, now=now)
