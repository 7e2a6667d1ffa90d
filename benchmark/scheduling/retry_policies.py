"""What is tried again, what is set aside, and how long a full disk is waited for."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..store.atomic_files import free_bytes
from .job import Job

MAX_ATTEMPTS = 3
"""Of a job whose process dies of a signal; of one that dies for want of memory, two."""

SAME_FAILURES = 2
"""Cells of one method that fail alike before the rest of it is set aside."""


@dataclass
class RetryHistory:
    """What became of a job's attempts so far, for its record."""

    attempts: list[dict[str, Any]] = field(default_factory=list)
    out_of_memory: bool = False

    def record_death(self, facts: Mapping[str, Any], where: str) -> str:
        """Note a death; the reason to give up, empty where it is worth another attempt."""
        said = describe_death(facts)
        told: dict[str, Any] = {"ended": said, "at": where}
        if facts.get("batch"):
            told["batch"] = facts["batch"]
        self.attempts.append(told)
        if facts.get("memory"):
            if self.out_of_memory:
                return f"{said}, also with half the batch"
            self.out_of_memory = True
            return ""
        if facts.get("signal") is None and not facts.get("lost"):
            return said  # it chose to end, and would again
        count = len(self.attempts)
        return f"{said}, in the last of {count} attempts" if count >= MAX_ATTEMPTS else ""


def describe_death(facts: Mapping[str, Any]) -> str:
    """One line on how a process ended that should not have."""
    if facts.get("said"):
        return str(facts["said"])
    if facts.get("memory"):
        return "killed: this machine has not enough memory"
    if (number := facts.get("signal")) is not None:
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"its process ended with exit code {facts.get('code')} before it was done"


def with_half_batch(job: Job) -> Job:
    """The same job with half as many rows at a time, in prediction and in training."""
    run = dict(job["run"])
    rows = run["micro"] or job.get("experiment", {}).get("method_args", {}).get("batch")
    whole = rows if isinstance(rows, int) else run["batch"]
    return job | {"run": run | {"batch": max(1, run["batch"] // 2), "micro": max(1, whole // 2)}}


class CircuitBreaker:
    """Sets a method aside when experiments of it fail alike: its other experiments would, too."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._aside: dict[str, str] = {}

    def record_failure(self, method: str, cell: str, said: str) -> str:
        """Note a failure; why the method is set aside from now on, if that is new."""
        cells = self._cells[method, said]
        cells.add(cell)
        if len(cells) < SAME_FAILURES or method in self._aside:
            return ""
        self._aside[method] = f"set aside after {len(cells)} experiments of it failed alike: {said}"
        return self._aside[method]

    def open_reason(self, method: str) -> str:
        """Why a method is set aside; empty if it is not."""
        return self._aside.get(method, "")


class DiskSpaceGuard:
    """Waits for room on a disk: after a failure for want of it, work goes on one job at a time
    until one gets through.

    patience: seconds to wait in all before giving up
    """

    STEP = 15.0
    """Seconds to the next attempt where the disk does not tell of more room (a quota)."""

    MORE = 64 * 2**20
    """Bytes that must have become free to try at once."""

    def __init__(
        self, folder: Path, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._patience, self._clock = folder, timeout, clock
        self._since: float | None = None
        self._tried, self._free = 0.0, 0

    @property
    def is_full(self) -> bool:
        return self._since is not None

    def mark_full(self) -> bool:
        """Note a failure; whether this is the first of a pause, which a user should hear of."""
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
        return self._since is not None and self._clock() - self._since >= self._patience

    def mark_free(self) -> None:
        """Something got through."""
        self._since = None

    def _free_bytes(self) -> int:
        return free_bytes(self._folder) or 0
