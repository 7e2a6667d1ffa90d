"""What an executor offers: it starts jobs and reports what becomes of them.

What is retried, set aside, written and shown stands once, in scheduler.py, so that the same
experiments give the same results whichever executor runs them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from .events import JobEvent

if TYPE_CHECKING:
    from ..experiments.matrix import Experiment
    from .job import Job

EventHandler = Callable[[JobEvent], None]


class Executor(Protocol):
    """Works on at most `slots` jobs at a time, each in a process of its own or not.

    For every job that was started, one event `Ended` or `Died` is reported, also after
    `request_stop` and `kill`. Nothing is retried here. No result travels but the outcome: maps and
    checkpoints go through the store.

    slots: jobs at a time

    >>> from adbench.benchmark.executors.launch import InlineExecutor
    >>> executor: Executor = InlineExecutor()
    >>> executor.slots
    1
    """

    slots: int

    def start(self, job: Job) -> None:
        """Begin a job; called only while fewer than `slots` are being worked on."""
        ...

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        """Report what happened since the last call; wait up to `seconds` for something."""
        ...

    def request_stop(self, name: str) -> None:
        """Have a job finish its step, keep everything and end as `Stopped`."""
        ...

    def kill(self, name: str) -> None:
        """End a job and all processes it started, now."""
        ...

    def close(self) -> None:
        """End the jobs that still run, and free what the executor holds."""
        ...


def group_by_dataset(
    experiments: Sequence[Experiment],
) -> Iterator[tuple[object, list[Experiment]]]:
    """Yield the neighbours on one dataset together, with a key that tells it from other datasets.

    >>> from adbench.benchmark.scheduling.executor import group_by_dataset
    >>> list(group_by_dataset([]))
    []
    """
    for key, group in itertools.groupby(experiments, key=lambda c: (c.dataset.name, c.limit)):
        yield key, list(group)
