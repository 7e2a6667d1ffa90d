"""What a user sees while cells run: a live line on a terminal, one line per event in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

Tell = Callable[[str, Mapping[str, Any]], None]


class Watch:
    """Tells of progress on the console it is given."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def line(self, text: str) -> None:
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def failed(self, name: str, reason: str) -> None:
        self.line(f"{name}  failed: {reason}")

    def short_of_memory(self, name: str, facts: Mapping[str, Any]) -> None:
        rows = facts.get("micro", facts.get("batch"))
        self.line(f"{name}  out of memory: going on with {rows} rows at a time")

    def done(self, name: str, record: Mapping[str, Any]) -> None:
        values = {key: value["value"] for key, value in record["metrics"].items()}
        shown = [
            f"{label} {values[key]:.3f}"
            for key, label in (("image_auroc", "image AUROC"), ("pixel_ap", "pixel AP"))
            if values.get(key) is not None
        ]
        self.line(f"{name}  ok  {'  '.join(shown)}")

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Progress of (what, done, of)."""
        with self.cell(name) as tell:
            yield lambda what, done, of: tell(what, {"step": done, "of": of})

    @contextmanager
    def cell(self, name: str) -> Iterator[Tell]:
        """Progress of one cell: told (event, facts)."""
        if not self.console.is_terminal:
            yield self._lines(name)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=1, note="")

            def tell(event: str, facts: Mapping[str, Any]) -> None:
                if event == "oom":
                    self.short_of_memory(name, facts)
                what = " ".join(str(v) for v in (name, event, facts.get("part")) if v)
                if "step" in facts:
                    progress.update(
                        task,
                        description=what,
                        completed=facts["step"],
                        total=max(facts["of"], 1),
                        note=f"loss {facts['loss']:.4f}" if "loss" in facts else "",
                    )

            yield tell

    def _lines(self, name: str) -> Tell:
        """A line when a stage begins, every 15 seconds, and when it is whole or recalled."""
        last: dict[str, float] = {}

        def tell(event: str, facts: Mapping[str, Any]) -> None:
            if event == "oom":
                self.short_of_memory(name, facts)
            stage = f"{event} {facts['part']}" if "part" in facts else event
            if "step" in facts:
                now = time.monotonic()
                if now - last.get(stage, now - 15) < 15 and facts["step"] < facts["of"]:
                    return
                last[stage] = now
                loss = f"  loss {facts['loss']:.4f}" if "loss" in facts else ""
                self.line(f"{name}  {stage}  {facts['step']:.0f}/{facts['of']:.0f}{loss}")
            elif not facts.get("fresh", True):
                self.line(f"{name}  {stage}  cached")

        return tell
