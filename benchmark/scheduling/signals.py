"""Ctrl-C: the first asks, the second does not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .console import ConsoleReporter


@contextmanager
def stop_on_signals(reporter: ConsoleReporter) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) asks, to be answered between steps; the second does not."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        reporter.print_line(
            "stopping after this step, with everything kept; once more stops at once"
        )

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
