"""A method whose messages, events and processes are such as nobody expects."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from adbench.datasets.base import Spec, Split
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method


class Empty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


ERRORS = {
    "surrogate": ValueError(f"no file {os.fsdecode(b'a' + bytes([255]))}.png"),
    "escape": ValueError("\x1b]0;title\x07 red \x1b[31m"),
    "second line": RuntimeError("\n  the cause stands in the second line"),
    "colon": RuntimeError("Error(s) in loading Grows:\n\tsize mismatch for bank: 1\n"),
    "bare": ValueError(),
    "broken": Empty(),
    "long": ValueError("x" * 5000),
}


class Hostile(Method):
    """how: a name of ERRORS, or a line of JSON for the driver, or a kind of process."""

    def __init__(self, spec: Spec, *, how: str = "", mark: str = "") -> None:
        super().__init__(spec)
        self.how, self.mark = how, mark

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if self.how in ERRORS:
            raise ERRORS[self.how]
        if self.how == "event":
            facts: Any = {"step": "many", "of": float("nan"), "text": "\ud800"}
            context.on_event("train\udcff", facts)
        if self.how.startswith("{"):
            sys.path.insert(0, str(Path(__file__).parent))
            from trouble import _write_to_pipes

            _write_to_pipes(self.how.encode() + b"\n")
            os._exit(0)
        if self.how == "kill the parent":
            time.sleep(0.5)
            os.kill(os.getppid(), 9)
            time.sleep(60)
        if self.how == "sessions":
            self._leave_processes()
        if self.how == "crash with sessions" and not Path(self.mark).exists():
            self._leave_processes()
            os.kill(os.getpid(), 11)
        if self.how == "sleep with sessions":
            self._leave_processes()
            subprocess.run(["sleep", "600"])

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection.from_map(x.mean(1).abs().expand(len(levels), len(x), *x.shape[2:]))

    def _leave_processes(self) -> None:
        """Four: executed and forked, each in a session of its own, half of them orphans."""
        pids = [subprocess.Popen(["sleep", "600"], start_new_session=True).pid]
        shell = "setsid sleep 600 >/dev/null 2>&1 & echo $!"
        pids.append(int(subprocess.run(shell, shell=True, capture_output=True).stdout))
        for orphan in (False, True):
            read, write = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if not orphan or os.fork() == 0:
                    os.write(write, str(os.getpid()).encode())
                    os.execvp("sleep", ["sleep", "600"]) if orphan else _sleep()
                os._exit(0)
            pids.append(int(os.read(read, 20)))
        part = Path(f"{self.mark}.part")
        part.write_text(" ".join(map(str, pids)))
        part.rename(self.mark)


def _sleep() -> None:
    while True:
        time.sleep(600)
