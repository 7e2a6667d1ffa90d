"""The jobs of a run that are being worked on: how far each is, and when it is asked to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .events import Failed
from .executor import Executor
from .job import Job
from .job_progress import JobProgress
from .retry_policies import RetryHistory, with_half_batch


class RunningJobs:
    """Starts jobs on an executor, asks them to stop, and ends those that do not.

    timeout: seconds an experiment may take, None for any
    grace: seconds between asking one that is late to stop, and ending it
    progress: of each job that runs, by its name
    jobs: every job that was started, by its name

    >>> from adbench.benchmark.executors.launch import InlineExecutor
    >>> from adbench.benchmark.scheduling.job import JobContext
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> running = RunningJobs(InlineExecutor(lambda: False))
    >>> running.start(Job("prepare phantom", "prepare", (), JobContext.of(TrainingContext())))
    >>> len(running), running.is_full, running.progress["prepare phantom"].attempt
    (1, True, 1)
    """

    def __init__(
        self, executor: Executor, timeout: float | None = None, grace: float = 10.0
    ) -> None:
        self._executor, self._timeout, self._grace = executor, timeout, grace
        self._histories: dict[str, RetryHistory] = {}
        self.progress: dict[str, JobProgress] = {}
        self.jobs: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self.progress)

    def __iter__(self) -> Iterator[JobProgress]:
        return iter(list(self.progress.values()))

    @property
    def is_full(self) -> bool:
        """Whether the executor has no free slot."""
        return len(self.progress) >= self._executor.slots

    def history(self, name: str) -> RetryHistory:
        """Return how earlier attempts of a job ended."""
        return self._histories.get(name) or RetryHistory()

    def needs_isolation(self, name: str) -> bool:
        """Whether a job runs without others."""
        return self.history(name).needs_isolation

    def start(self, job: Job) -> None:
        """Start a job: with half the batch if an earlier attempt ran out of memory."""
        history = self._histories.setdefault(job.name, RetryHistory())
        job = with_half_batch(job) if history.out_of_memory else job
        self.jobs[job.name] = job
        self.progress[job.name] = JobProgress(
            job.name, len(history.attempts) + 1, last_heartbeat=time.monotonic()
        )
        self._executor.start(job)

    def request_stop(self, name: str) -> None:
        """Ask a job to stop, once."""
        progress = self.progress[name]
        if progress.stop_requested is None:
            progress.stop_requested = time.monotonic()
            self._executor.request_stop(name)

    def request_stop_all(self) -> None:
        """Ask every job to stop, once."""
        for name in self.progress:
            self.request_stop(name)

    def kill_all(self) -> None:
        """End every job now."""
        for name in list(self.progress):
            self._executor.kill(name)

    def enforce_timeouts(self) -> None:
        """Ask experiments that are over their time to stop; end those that do not."""
        if self._timeout is None:
            return
        now = time.monotonic()
        for job in self:
            if job.started is None or self.jobs[job.name].task != "experiment":
                continue
            if job.stop_requested is None and now - job.started >= self._timeout:
                job.timed_out = True
                self.request_stop(job.name)
            elif (
                job.timed_out
                and job.stop_requested is not None
                and now - job.stop_requested >= self._grace
            ):
                self._executor.kill(job.name)

    def timeout_failure(self, job: JobProgress) -> Failed:
        """Return the failure of an experiment that was over its time, and note the attempt."""
        reason = f"timed out after {self._timeout:g} s"
        self.history(job.name).attempts.append({"ended": reason, "at": job.location})
        return Failed(job.phase, reason)
