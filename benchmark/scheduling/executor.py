"""What an executor offers: it starts jobs and reports what becomes of them.

What is retried, set aside, written and shown stands once, in scheduler.py, so that the same
experiments give the same results whichever executor runs them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ..experiments.matrix import Experiment
    from .job import Job


class JobEvent(NamedTuple):
    """Something about a job: its kind, and the facts of that kind.

    started    its process runs: pid, slot, or whatever else says where
    progress   event, facts: what the engine reports as it goes on
    heartbeat  memory_mb, perhaps gpu_mb: a sign of life, every second or few
    output     bytes: what it printed
    ended      the outcome (job.py)
    died       its process is gone without an outcome: signal or code (an int), said (one line),
               and memory, whether it was for want of memory; lost, that its host went away
    """

    job_name: str
    kind: str
    facts: Mapping[str, Any]


EventHandler = Callable[[JobEvent], None]


class Executor(Protocol):
    """Works on at most `slots` jobs at a time, each in a process of its own or not.

    Every job that was started is heard of once as `ended` or `died`, also after `request_stop` and
    `kill`.
    Nothing is retried here. No result travels but the outcome: maps and checkpoints go through the
    store.
    """

    slots: int

    def start(self, job: Job) -> None:
        """Begin; called only while fewer than `slots` are being worked on."""
        ...

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        """Tell what happened since the last call; wait up to `seconds` for something."""
        ...

    def request_stop(self, name: str) -> None:
        """Have a job finish its step, keep everything and end as `stopped`."""
        ...

    def kill(self, name: str) -> None:
        """End a job and all processes it started, now."""
        ...

    def close(self) -> None:
        """End what still runs, and give back what is held."""
        ...


def group_by_dataset(
    experiments: Sequence[Experiment],
) -> Iterator[tuple[object, list[Experiment]]]:
    """Neighbours on one dataset together."""
    for key, group in itertools.groupby(experiments, key=lambda c: (c.dataset.name, c.limit)):
        yield key, list(group)
