"""Progress of a run for Python callers: a table that a notebook redraws, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ..scheduling.console import REDRAW_INTERVAL, ConsoleReporter, progress_table
from ..scheduling.events import Progress
from ..scheduling.job_progress import JobProgress


class NotebookReporter(ConsoleReporter):
    """A ConsoleReporter whose table is an output of the cell that runs; it keeps failures.

    failures: why, by the name of what failed

    >>> from rich.console import Console
    >>> from adbench.benchmark.api.notebook import NotebookReporter
    >>> reporter = NotebookReporter(Console(quiet=True))
    >>> reporter.print_failure("phantom.ddad", "CUDA out of memory")
    >>> reporter.failures
    {'phantom.ddad': 'CUDA out of memory'}
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.failures: dict[str, str] = {}
        self._output: Any = None
        self._redrawn = 0.0

    def print_failure(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        super().print_failure(name, reason)

    def draw(self, running: Sequence[JobProgress], counts: Mapping[str, int]) -> None:
        now = time.monotonic()
        if not self.console.is_jupyter or now - self._redrawn < REDRAW_INTERVAL:
            super().draw(running, counts)
            return
        from IPython.display import display

        self._redrawn = now
        if self._output is None:
            self._output = display(progress_table(running, counts, now), display_id=True)
        else:
            self._output.update(progress_table(running, counts, now))

    def on_progress(self, name: str, progress: Progress) -> None:
        if not self.console.is_jupyter or progress.event in ("oom", "note"):
            super().on_progress(name, progress)

    def close(self) -> None:
        super().close()
        self._output = None


def make_reporter(*, quiet: bool = False) -> NotebookReporter:
    """Return a reporter that writes into this notebook, or elsewhere to standard error.

    quiet: whether it shows nothing

    >>> from adbench.benchmark.api.notebook import make_reporter
    >>> make_reporter(quiet=True).console.quiet, make_reporter().console.stderr
    (True, True)
    """
    console = Console(quiet=quiet)
    return NotebookReporter(console if console.is_jupyter else Console(stderr=True, quiet=quiet))
