"""Ctrl-C and SIGTERM: the first lets every job finish its step, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .console import ConsoleReporter


@contextmanager
def stop_on_signals(reporter: ConsoleReporter) -> Iterator[Callable[[], bool]]:
    """Catch Ctrl-C and SIGTERM in the block, and yield a function that says whether one came.

    A second signal raises KeyboardInterrupt. Outside the main thread, where Python catches no
    signals, the function always returns False.

    reporter: prints that the run stops after its step

    >>> import io, os
    >>> from rich.console import Console
    >>> from adbench.benchmark.scheduling.console import ConsoleReporter
    >>> reporter = ConsoleReporter(Console(file=io.StringIO()))
    >>> with stop_on_signals(reporter) as stop:
    ...     before = stop()
    ...     os.kill(os.getpid(), signal.SIGINT)
    ...     before, stop()
    (False, True)
    """
    stopping = False

    def request_stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        reporter.print_line(
            "stopping after this step, with everything kept; once more stops at once"
        )

    with _handlers(request_stop, signal.SIGINT, signal.SIGTERM):
        yield lambda: stopping


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM in the block, as on Ctrl-C.

    >>> import os, signal
    >>> from adbench.benchmark.scheduling.signals import interrupt_on_sigterm
    >>> try:
    ...     with interrupt_on_sigterm():
    ...         os.kill(os.getpid(), signal.SIGTERM)
    ... except KeyboardInterrupt:
    ...     print("interrupted")
    interrupted
    """
    with _handlers(signal.default_int_handler, signal.SIGTERM):
        yield


@contextmanager
def _handlers(
    handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals
) -> Iterator[None]:
    """Replace the handlers of signals in the block, if this is the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if is_main}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
