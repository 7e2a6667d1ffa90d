"""Hosts of a cluster that are forks of the test itself, with everything imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress


class Hosts:
    """Processes that each do one thing, by their id as text."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}
        self.running: dict[str, int] = {}

    def begin(self, what: Callable[[], object]) -> str:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                what()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            finally:
                os._exit(code)
        self.running[str(pid)] = pid
        return str(pid)

    def exit_codes(self) -> dict[str, int]:
        """How those ended that did (negative: the signal)."""
        for name, pid in list(self.running.items()):
            results, status = os.waitpid(pid, os.WNOHANG)
            if results:
                self.ended[name] = os.waitstatus_to_exitcode(status)
                del self.running[name]
        return self.ended

    def signal(self, name: str, number: int) -> None:
        with suppress(ProcessLookupError):
            if name in self.running:
                os.kill(self.running[name], number)

    def close(self) -> None:
        for name, pid in list(self.running.items()):
            self.signal(name, signal.SIGKILL)
            os.waitpid(pid, 0)
            del self.running[name]
