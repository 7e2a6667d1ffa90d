"""Prediction shared by sample: free slots help an experiment that predicts.

The experiment's own job predicts from the first sample on, a helper from the last, and each stores
its predictions where the other reads them. A helper is never needed: if it fails, or its process
dies, the experiment goes on alone. Its predictions are those of the experiment's own job, to the
bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from .job import Job, shared_predict_job
from .job_progress import JobProgress

MIN_SECONDS_LEFT = 10.0
"""Seconds of prediction left, at its pace, for which a helper is worth its start."""


class WorkSharing:
    """Which jobs help which experiment; both by their names.

    >>> from adbench.benchmark.scheduling.work_sharing import WorkSharing
    >>> WorkSharing().next_job({}, {}) is None
    True
    """

    def __init__(self, min_seconds_left: float = MIN_SECONDS_LEFT) -> None:
        self._worth = min_seconds_left
        self._helps: dict[str, str] = {}
        self._begun: Counter[str] = Counter()

    def next_job(self, running: Mapping[str, JobProgress], jobs: Mapping[str, Job]) -> Job | None:
        """A job that helps the experiment whose prediction would take longest with the helpers it
        has; None if none is worth it. A second helper is worth it where four times as much is left,
        a third where nine times."""
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
        self._helps[job.name] = name
        return job

    def jobs_for(self, experiment_name: str) -> list[str]:
        """The helpers of an experiment."""
        return [name for name, helped in self._helps.items() if helped == experiment_name]

    def remove(self, name: str) -> bool:
        """Note that a job is over, and return whether it was a helper."""
        return self._helps.pop(name, None) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._helps))
