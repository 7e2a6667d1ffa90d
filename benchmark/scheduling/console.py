"""The progress of a run: a table that is redrawn on a terminal, one line per event in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..leaderboard.records import Record, metric_value, plain_text
from .events import Progress, progress_event
from .job_progress import JobProgress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

LINE_INTERVAL = 15.0
"""Seconds between two lines on one phase, in a pipe."""

REDRAW_INTERVAL = 0.25
"""Seconds between two drawings of the table."""


class ConsoleReporter:
    """Prints the progress of jobs on a console.

    >>> from rich.console import Console
    >>> from adbench.benchmark.scheduling.console import ConsoleReporter
    >>> ConsoleReporter(Console()).print_failure("phantom.dae", "ValueError: no good")
    phantom.dae  failed: ValueError: no good
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._drawn = 0.0
        self._printed: dict[tuple[str, str], float] = {}
        self._notes: set[str] = set()

    def print_line(self, text: str) -> None:
        """Print one line; what would move the cursor is escaped."""
        self.console.print(Text(plain_text(text)), highlight=False, soft_wrap=True)

    def print_failure(self, name: str, reason: str) -> None:
        """Print why something failed."""
        self.print_line(f"{name}  failed: {reason}")

    def print_result(self, name: str, record: Record) -> None:
        """Print the two metrics of a record that are read first."""
        metrics = [
            f"{label} {value:.3f}"
            for key, label in (("image_auroc", "image AUROC"), ("pixel_ap", "pixel AP"))
            if (value := metric_value(record, key)) is not None
        ]
        self.print_line(f"{name}  ok  {'  '.join(metrics)}")

    def on_progress(self, name: str, progress: Progress) -> None:
        """Print the progress of a job: in a pipe a line when a phase begins, every 15 seconds, at
        its end, and for what is in the store; on a terminal only what the table does not show."""
        event = progress.event
        if event == "oom":
            rows = progress.batch if progress.micro is None else progress.micro
            rows = "fewer" if rows is None else f"{rows:.0f}"
            self.print_line(f"{name}  out of memory: going on with {rows} rows at a time")
        elif event == "note":
            if progress.text not in self._notes:
                self._notes.add(progress.text)
                self.print_line(f"note: {progress.text}")
        elif not self.console.is_terminal:
            self._print_progress(name, f"{event} {progress.part}".rstrip(), progress)

    def forget_job(self, name: str) -> None:
        """Note that a job is over."""
        self._printed = {key: when for key, when in self._printed.items() if key[0] != name}

    def draw(self, running: Sequence[JobProgress], counts: Mapping[str, int]) -> None:
        """Draw the table, a few times a second at most. counts: of experiments by status; `to_do`
        counts those that are left."""
        now = time.monotonic()
        if not self.console.is_terminal or now - self._drawn < REDRAW_INTERVAL:
            return
        self._drawn = now
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(progress_table(running, counts, now), refresh=True)

    def close(self) -> None:
        """Remove the table; lines may still follow."""
        if self._live is not None:
            self._live.stop()
            self._live, self._drawn = None, float("inf")

    @contextmanager
    def progress_of(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Show the progress of one thing outside a run; what is given takes (what, done, of)."""
        job = JobProgress(name, 1, started=time.monotonic())

        def on_progress(what: str, done: int, of: int) -> None:
            progress = progress_event(what, {"step": done, "of": of})
            self.on_progress(name, progress)
            job.on_progress(progress, time.monotonic())
            self.draw([job], {})

        try:
            yield on_progress
        finally:
            self.close()
            self._drawn = 0.0

    def _print_progress(self, name: str, phase: str, progress: Progress) -> None:
        step, total = progress.step, progress.of
        if step is not None and total is not None:
            now, last = time.monotonic(), self._printed.get((name, phase))
            if last is not None and now - last < LINE_INTERVAL and step < total:
                return
            self._printed[name, phase] = now
            loss = f"  loss {progress.loss:.4f}" if progress.loss is not None else ""
            self.print_line(f"{name}  {phase}  {step:.0f}/{total:.0f}{loss}")
        elif not progress.fresh:
            self.print_line(f"{name}  {phase}  cached")


def progress_table(running: Sequence[JobProgress], counts: Mapping[str, int], now: float) -> Table:
    """Return the table of a run: one row per running job, and the counts of experiments below.

    counts: of experiments by status
    now: the time of the clock that the jobs' times are of

    >>> import io
    >>> job = JobProgress("phantom.dae.s0", attempt=1, phase="train", step=30, total=100)
    >>> console = Console(file=io.StringIO(), width=80)
    >>> console.print(progress_table([job], {"ok": 2, "to_do": 1}, 0.0))
    >>> text = console.file.getvalue()
    >>> "train" in text, "30/100" in text, "2 ok, 1 to do" in text
    (True, True, True)
    """
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    caption = ", ".join(
        f"{count} {key.replace('_', ' ')}" for key, count in counts.items() if count
    )
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=caption)
    table.add_column("experiment", overflow="ellipsis", no_wrap=True, ratio=1)
    table.add_column("phase", no_wrap=True)
    table.add_column("", width=12)
    for title in ("progress", "s each", "loss", "memory", "left"):
        table.add_column(title, justify="right", no_wrap=True)
    for job in running:
        each, left = job.seconds_per_step(), job.seconds_left()
        silent = now - job.last_heartbeat
        attempt = "" if job.attempt == 1 else f" (attempt {job.attempt})"
        table.add_row(
            Text(plain_text(f"{job.name}{attempt}")),
            Text(plain_text(" ".join(filter(None, (job.phase, job.part))))),
            ProgressBar(total=max(job.total, 1), completed=job.step, width=12),
            f"{job.step:.0f}/{job.total:.0f}" if job.total else "",
            f"{each:.2f}" if each is not None else "",
            f"{job.loss:.4f}" if job.loss is not None else "",
            memory_text(job),
            duration_text(left)
            if silent < 60 or job.last_heartbeat == 0
            else f"silent {duration_text(silent)}",
        )
    return table


def memory_text(job: JobProgress) -> str:
    """The memory of a job: the GPU's where it uses one, else the process's.

    >>> from adbench.benchmark.scheduling.console import memory_text
    >>> from adbench.benchmark.scheduling.job_progress import JobProgress
    >>> memory_text(JobProgress("a", 1, memory_mb=1500.0))
    '1.5 GB'
    """
    amount = job.gpu_mb if job.gpu_mb is not None else job.memory_mb
    return f"{amount / 1e3:.1f} GB" if amount is not None else ""


def duration_text(seconds: float | None) -> str:
    """Seconds as a clock shows them; empty for None.

    >>> from adbench.benchmark.scheduling.console import duration_text
    >>> duration_text(3900), duration_text(130)
    ('1:05:00', '2:10')
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
