"""Which jobs are retried, which methods are set aside, how long a full disk is waited for."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..leaderboard.records import plain_text
from ..store.atomic_files import free_bytes
from .events import Died
from .job import Job

MAX_ATTEMPTS = 3
"""Attempts of a job whose process dies of a signal; two where memory runs out."""

SAME_FAILURES = 2
"""Experiments of one method that fail alike, after which its others are set aside."""


@dataclass
class RetryHistory:
    """How earlier attempts of a job ended, for its record.

    >>> from adbench.benchmark.scheduling.events import Died
    >>> from adbench.benchmark.scheduling.retry_policies import RetryHistory
    >>> history = RetryHistory()
    >>> [history.record_death(Died(signal=9), "train 3/9", batch=32) for _ in range(3)]
    ['', '', 'killed by SIGKILL, in the last of 3 attempts']
    """

    attempts: list[dict[str, Any]] = field(default_factory=list)
    out_of_memory: bool = False
    deaths_with_others: int = 0

    @property
    def needs_isolation(self) -> bool:
        """Whether the last attempt runs without other jobs: one that died with others each time
        may have been the cause, or not."""
        return self.deaths_with_others >= MAX_ATTEMPTS - 1

    def record_death(self, death: Died, location: str, batch: int) -> str:
        """Note the death of an attempt, and return why to give up; empty for another attempt.

        location: how far the job was        batch: its rows at a time
        """
        reason = describe_death(death)
        self.attempts.append({"ended": reason, "at": location})
        self.deaths_with_others += death.with_others
        if death.out_of_memory:
            self.attempts[-1]["batch"] = batch
            if self.out_of_memory:
                return f"{reason}, also with half the batch"
            self.out_of_memory = True
            return ""
        if death.signal is None and not death.lost:
            return reason  # it chose to end, and would again
        count = len(self.attempts)
        return f"{reason}, in the last of {count} attempts" if count >= MAX_ATTEMPTS else ""


def describe_death(death: Died) -> str:
    """Return in one line how the process of a job ended, without an outcome.

    >>> from adbench.benchmark.scheduling.events import Died
    >>> from adbench.benchmark.scheduling.retry_policies import describe_death
    >>> describe_death(Died(signal=11)), describe_death(Died(code=7))
    ('killed by SIGSEGV', 'its process ended with exit code 7 before it was done')
    """
    if death.reason:
        return plain_text(death.reason)
    if death.out_of_memory:
        return "killed: this machine has not enough memory"
    if death.signal is not None:
        try:
            return f"killed by {signal.Signals(death.signal).name}"
        except ValueError:
            return f"killed by signal {death.signal}"
    return f"its process ended with exit code {death.code} before it was done"


def with_half_batch(job: Job) -> Job:
    """Return the same job with half as many rows at a time, in prediction and in training.

    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.scheduling.job import JobContext
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> experiment = SimpleNamespace(method=SimpleNamespace(name="dae"), method_args={"batch": 8})
    >>> context = JobContext.of(TrainingContext(batch=32))
    >>> half = with_half_batch(Job("phantom.dae.s0", "experiment", (experiment,), context)).context
    >>> half.batch, half.micro
    (16, 4)
    """
    context = job.context
    rows = context.micro or job.experiments[0].method_args.get("batch")
    whole = rows if isinstance(rows, int) and job.method else context.batch
    half = replace(context, batch=max(1, context.batch // 2), micro=max(1, whole // 2))
    return replace(job, context=half)


class CircuitBreaker:
    """Sets a method aside when experiments of it fail alike: its other experiments would, too.

    >>> from adbench.benchmark.scheduling.retry_policies import CircuitBreaker
    >>> breaker = CircuitBreaker()
    >>> breaker.record_failure("dae", "phantom.dae.s0", "ValueError: no")
    ''
    >>> breaker.record_failure("dae", "phantom.dae.s1", "ValueError: no")
    'set aside after 2 experiments of it failed alike: ValueError: no'
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._aside: dict[str, str] = {}

    def record_failure(self, method: str, experiment: str, reason: str) -> str:
        """Note a failure, and return why the method is set aside from now on, if that is new."""
        failed = self._failed[method, reason]
        failed.add(experiment)
        if len(failed) < SAME_FAILURES or method in self._aside:
            return ""
        self._aside[method] = (
            f"set aside after {len(failed)} experiments of it failed alike: {reason}"
        )
        return self._aside[method]

    def open_reason(self, method: str) -> str:
        """Why a method is set aside; empty if it is not."""
        return self._aside.get(method, "")


class DiskSpaceGuard:
    """Waits for room on a disk: after a failure for want of it, work goes on one job at a time
    until one gets through.

    timeout: seconds to wait in all before giving up

    >>> from pathlib import Path
    >>> from adbench.benchmark.scheduling.retry_policies import DiskSpaceGuard
    >>> guard = DiskSpaceGuard(Path("."), timeout=600.0)
    >>> guard.mark_full(), guard.mark_full(), guard.is_full
    (True, False, True)
    """

    STEP = 15.0
    """Seconds to the next attempt where the disk does not tell of more room (a quota)."""

    MORE = 64 * 2**20
    """Bytes that must have become free to try at once."""

    def __init__(
        self, folder: Path, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._timeout, self._clock = folder, timeout, clock
        self._since: float | None = None
        self._tried, self._free = 0.0, 0

    @property
    def is_full(self) -> bool:
        """Whether the last attempt to write failed for want of room."""
        return self._since is not None

    def mark_full(self) -> bool:
        """Note a failure, and return whether it is the first of a pause, which the user sees."""
        first = self._since is None
        now = self._clock()
        self._since = now if self._since is None else self._since
        self._tried, self._free = now, self._free_bytes()
        return first

    def may_retry(self) -> bool:
        """Whether it is time to try."""
        waited = self._clock() - self._tried
        return (
            self.timed_out() or waited >= self.STEP or self._free_bytes() >= self._free + self.MORE
        )

    def timed_out(self) -> bool:
        """Whether it has been waited for long enough."""
        return self._since is not None and self._clock() - self._since >= self._timeout

    def mark_free(self) -> None:
        """Note that something was written."""
        self._since = None

    def _free_bytes(self) -> int:
        return free_bytes(self._folder) or 0
