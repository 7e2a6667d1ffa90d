"""What a user sees while cells run: a live table on a terminal, one line per event in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ..leaderboard.records import plain_text
from .job_progress import JobProgress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

LINE_INTERVAL = 15.0
"""Seconds between two lines on one stage, in a pipe."""

REDRAW_INTERVAL = 0.25
"""Seconds between two drawings of the table."""


class ConsoleReporter:
    """Tells of progress on the console it is given."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._drawn = 0.0
        self._told: dict[tuple[str, str], float] = {}
        self._notes: set[str] = set()

    def print_line(self, text: str) -> None:
        self.console.print(escape(plain_text(text)), highlight=False, soft_wrap=True)

    def print_failure(self, name: str, reason: str) -> None:
        self.print_line(f"{name}  failed: {reason}")

    def print_out_of_memory(self, name: str, facts: Mapping[str, Any]) -> None:
        rows = facts.get("micro", facts.get("batch"))
        self.print_line(f"{name}  out of memory: going on with {rows} rows at a time")

    def print_result(self, name: str, record: Mapping[str, Any]) -> None:
        values = {key: value["value"] for key, value in record["metrics"].items()}
        shown = [
            f"{label} {values[key]:.3f}"
            for key, label in (("image_auroc", "image AUROC"), ("pixel_ap", "pixel AP"))
            if values.get(key) is not None
        ]
        self.print_line(f"{name}  ok  {'  '.join(shown)}")

    def on_event(self, name: str, event: str, facts: Mapping[str, Any]) -> None:
        """What a job told: in a pipe a line when a stage begins, every 15 seconds, at its end, and
        when it is recalled; on a terminal only what the table does not show."""
        if event == "oom":
            self.print_out_of_memory(name, facts)
        elif event == "note":
            if facts["text"] not in self._notes:
                self._notes.add(facts["text"])
                self.print_line(f"note: {facts['text']}")
        elif not self.console.is_terminal:
            self._print_event(name, f"{event} {facts['part']}" if "part" in facts else event, facts)

    def forget_job(self, name: str) -> None:
        """A job is no longer worked on."""
        self._told = {key: when for key, when in self._told.items() if key[0] != name}

    def draw(self, running: Sequence[JobProgress], counts: Mapping[str, int]) -> None:
        """Draw the table, a few times a second at most. counts: of cells, by what became of them;
        what is left of them is `to_do`."""
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
        """Take the table away; lines may still follow."""
        if self._live is not None:
            self._live.stop()
            self._live, self._drawn = None, float("inf")

    @contextmanager
    def progress_of(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Progress of one thing outside a run: (what, done, of)."""
        job = JobProgress(name, 1, started=time.monotonic())

        def tell(what: str, done: int, of: int) -> None:
            facts = {"step": done, "of": of}
            self.on_event(name, what, facts)
            job.on_event(what, facts, time.monotonic())
            self.draw([job], {})

        try:
            yield tell
        finally:
            self.close()
            self._drawn = 0.0

    def _print_event(self, name: str, stage: str, facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            now, last = time.monotonic(), self._told.get((name, stage))
            if last is not None and now - last < LINE_INTERVAL and facts["step"] < facts["of"]:
                return
            self._told[name, stage] = now
            loss = f"  loss {facts['loss']:.4f}" if facts.get("loss") is not None else ""
            self.print_line(f"{name}  {stage}  {facts['step']:.0f}/{facts['of']:.0f}{loss}")
        elif not facts.get("fresh", True):
            self.print_line(f"{name}  {stage}  cached")


def progress_table(running: Sequence[JobProgress], counts: Mapping[str, int], now: float) -> Table:
    """One row per job that is being worked on; beneath them how many cells are done."""
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    said = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items() if count)
    made = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=said)
    made.add_column("experiment", overflow="ellipsis", no_wrap=True, ratio=1)
    made.add_column("phase", no_wrap=True)
    made.add_column("", width=12)
    for head in ("progress", "s each", "loss", "memory", "left"):
        made.add_column(head, justify="right", no_wrap=True)
    for job in running:
        each, left = job.seconds_per_step(), job.seconds_left()
        silent = now - job.last_heartbeat
        made.add_row(
            Text(job.name if job.attempt == 1 else f"{job.name} (attempt {job.attempt})"),
            Text(" ".join(filter(None, (job.phase, job.part)))),
            ProgressBar(total=max(job.total, 1), completed=job.step, width=12),
            f"{job.step:.0f}/{job.total:.0f}" if job.total else "",
            f"{each:.2f}" if each is not None else "",
            f"{job.loss:.4f}" if job.loss is not None else "",
            memory_text(job),
            duration_text(left)
            if silent < 60 or job.last_heartbeat == 0
            else f"silent {duration_text(silent)}",
        )
    return made


def memory_text(job: JobProgress) -> str:
    """The GPU's where it is known, else the process's."""
    amount = job.gpu_mb if job.gpu_mb is not None else job.memory_mb
    return f"{amount / 1e3:.1f} GB" if amount is not None else ""


def duration_text(seconds: float | None) -> str:
    """ "1:05:00", "2:10"; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
