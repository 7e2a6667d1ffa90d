"""Looking shared by image: slots that have nothing else to do help a cell that looks at samples.

The cell's own job goes through the samples from the first on, a helper from the last, and each
keeps what it has seen where the other finds it. A helper is never needed: if it fails, or its
process dies, the cell goes on alone. What it makes is what the cell would have made, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from .job import Job, shared_predict_job
from .job_progress import JobProgress

MIN_SECONDS_LEFT = 10.0
"""Seconds that a cell has yet to look, at its pace, for a process to be worth its start."""


class WorkSharing:
    """Which jobs help which cell. Cells are named as their jobs."""

    def __init__(self, min_seconds_left: float = MIN_SECONDS_LEFT) -> None:
        self._worth = min_seconds_left
        self._helps: dict[str, str] = {}
        self._begun: Counter[str] = Counter()

    def next_job(self, running: Mapping[str, JobProgress], jobs: Mapping[str, Job]) -> Job | None:
        """For the cell that would look longest with those it has; None if none is worth it. A
        second helper is worth it where four times as much is left, a third where nine times."""
        busy = Counter(self._helps.values())
        left = {
            name: seconds / (1 + busy[name])
            for name, job in running.items()
            if name not in self._helps and job.phase == "predict" and job.stop_requested is None
            if (seconds := job.seconds_left() or 0.0) >= self._worth * (1 + busy[name]) ** 2
        }
        if not left:
            return None
        name = max(left, key=left.__getitem__)
        self._begun[name] += 1
        job = shared_predict_job(jobs[name], self._begun[name])
        self._helps[job["name"]] = name
        return job

    def jobs_for(self, experiment_name: str) -> list[str]:
        return [name for name, helped in self._helps.items() if helped == experiment_name]

    def remove(self, name: str) -> bool:
        """Whether it is a helper's job that is over."""
        return self._helps.pop(name, None) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._helps))
