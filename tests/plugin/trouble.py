"""Somebody else's methods, for tests of what a run survives."""

import fcntl
import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from adbench.datasets.base import Spec, Split
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.methods.base import Detection, Method


class Walker(Method):
    """Learns to undo noise with one convolution. pause: seconds that each step and look takes."""

    ndims = frozenset({2})
    levels, published = (100, 200), 100

    def __init__(self, spec: Spec, *, steps: int = 20, pause: float = 0.0) -> None:
        super().__init__(spec)
        self.net = nn.Conv2d(spec.channels, spec.channels, 3, padding=1)
        self.steps, self.pause = steps, pause

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        plan = Training(self.steps, 4, 1e-2, ema=0.9)
        train_module(self._error, self.net, train, context, plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        time.sleep(self.pause)
        noise = rng.fork("noise").normal(x.shape[1:]).to(x.device)
        maps = [(self.net(x + level / 1000 * noise) - x).abs().mean(1) for level in levels]
        return Detection.from_map(torch.stack(maps))

    def _error(self, x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        time.sleep(self.pause)
        noise = rng.fork("noise").normal(x.shape[1:]).to(x.device)
        return (self.net(x + 0.1 * noise) - x).square().flatten(1).mean(1)


class Trouble(Method):
    """how: what to do, where: fit or detect, mark: a file whose being there means: not again."""

    def __init__(self, spec: Spec, *, how: str = "", where: str = "fit", mark: str = "") -> None:
        super().__init__(spec)
        self.how, self.where, self.mark = how, where, mark

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if self.where == "fit":
            self._misbehave()

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        if self.where == "detect" and len(x) > 1:  # one alone is shown while training, for its cost
            self._misbehave()
        results = x.mean(1).abs()
        return Detection.from_map(results.expand(len(levels), *results.shape))

    def _misbehave(self) -> None:
        if self.mark and Path(self.mark).exists():
            return
        if self.mark:
            Path(self.mark).write_text(str(os.getpid()))
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.how == "exit":
            os._exit(7)
        elif self.how == "quit":
            sys.exit(3)
        elif self.how == "raise":
            raise ValueError("no good")
        elif self.how == "hang":
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(1000)
        elif self.how == "print":
            for i in range(3000):
                os.write(1, b"%06d" % i + b"x" * 9993 + b"\n")
        elif self.how == "garbage":
            for line in GARBAGE:
                _write_to_pipes(line + b"\n")
        elif self.how == "fork" and os.fork() == 0:
            Path(self.mark).write_text(str(os.getpid()))
            time.sleep(1000)


GARBAGE = (
    b"what a plugin wrote",
    b"3",
    b'{"kind": "ended"}',
    b'{"kind": "ended", "outcome": {"end": "ok", "record": []}}',
    b'{"kind": "progress", "event": "note", "text": "\\ud800"}',
    b"[" * 100_000,
)
"""Lines that are no events."""


def _write_to_pipes(data: bytes) -> None:
    """Write to every pipe but those of the standard streams and those of the tests' own processes
    (conftest.py); one of them takes the events."""
    own = os.environ.get("PIPES_OF_THE_TESTS", "").split(",")
    for name in os.listdir("/proc/self/fd"):
        file = int(name)
        with suppress(OSError):
            status = os.fstat(file)
            is_pipe = stat.S_ISFIFO(status.st_mode) and str(status.st_ino) not in own
            if file > 2 and is_pipe and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_WRONLY:
                os.write(file, data)
