"""Cells on this machine: a supervised process for each, one at a time per GPU or share of the CPU.

A process that crashes, hangs, prints without end or forks takes nothing with it but its own job.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from ..scheduling.job import Job
from .fork_server import Nursery
from .launch import Hear, News

CHUNK = 2**20
"""Bytes that are read at once, and that a pipe holds if the system lets it."""


class Place(NamedTuple):
    """A slot: the device of its cells and torch's threads, 0 for as many as there are."""

    device: str
    threads: int = 0


def places(device: str, slots: int | None = None) -> list[Place]:
    """One per GPU, or one on the CPU; or as many as asked for, which share them evenly.

    device: "cuda" means every GPU, "cuda:1" that one
    """
    kind = torch.device(device)
    devices = [device]
    if kind.type == "cuda" and kind.index is None:
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or [device]
    count = slots or len(devices)
    threads = 0 if count == 1 else max(1, torch.get_num_threads() // count)
    return [Place(devices[i % len(devices)], threads) for i in range(count)]


@dataclass
class _Child:
    """A job and the process that works on it. events, output: pipes from it; held: of a line of
    events, what has come; outcome: once it has, though the process may not yet be gone"""

    name: str
    slot: int
    events: IO[bytes]
    output: IO[bytes]
    held: bytes = b""
    outcome: dict[str, Any] | None = None


class Local:
    """An Executor (executor.py). preload: what to import once, before the processes fork
    (Nursery.imports). nursery: one that was started before"""

    def __init__(
        self, places: Iterable[Place], preload: Iterable[str] = (), nursery: Nursery | None = None
    ) -> None:
        self._places = list(places)
        self.slots = len(self._places)
        self._free = list(range(self.slots))
        # Only what is ours: what somebody else's module does when imported may not bear a fork.
        ours = [name for name in dict.fromkeys(preload) if name.startswith("adbench.")]
        self._preload = ours
        self._children: dict[str, _Child] = {}
        self._news: list[News] = []
        self._selector = selectors.DefaultSelector()
        self._starved = starved()
        self._nursery = self._opened(nursery or Nursery())

    def start(self, job: Job) -> None:
        slot = self._free.pop(0)
        place = self._places[slot]
        job = job | {"threads": place.threads, "run": job["run"] | {"device": place.device}}
        with tempfile.TemporaryFile() as given:
            given.write(json.dumps(job).encode())
            given.seek(0)
            events, told = os.pipe()
            output, printed = os.pipe()
            child = _Child(job["name"], slot, _reading(events), _reading(output))
            self._children[child.name] = child
            for file in (child.events, child.output):
                self._selector.register(file, selectors.EVENT_READ, child)
            self._nursery.send({"start": child.name}, [given.fileno(), told, printed])
            os.close(told)
            os.close(printed)

    def listen(self, hear: Hear, seconds: float) -> None:
        if not self._children:
            time.sleep(seconds)
        for key, _ in self._selector.select(0 if self._news else seconds):
            if key.data is None:
                self._control_says()
            elif key.data.name in self._children:
                self._read(key.data, key.fileobj is key.data.output)
        news, self._news = self._news, []
        for each in news:
            hear(each)

    def ask(self, name: str) -> None:
        self._nursery.send({"signal": int(signal.SIGINT), "name": name, "group": False})

    def kill(self, name: str) -> None:
        self._nursery.send({"signal": int(signal.SIGKILL), "name": name, "group": True})

    def close(self) -> None:
        """Its children die with the nursery, which ends when it is left alone."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._nursery.control)
        self._nursery.close()
        for child in list(self._children.values()):
            self._forget(child)

    def _opened(self, nursery: Nursery) -> Nursery:
        nursery.imports(self._preload)
        self._selector.register(nursery.control, selectors.EVENT_READ, None)
        return nursery

    def _control_says(self) -> None:
        told = self._nursery.hear()
        if told is None:
            self._lost()
            return
        child = self._children.get(str(told.get("born") or told.get("dead")))
        if child is None:
            return
        if "born" in told:
            facts = {"pid": told["pid"], "slot": child.slot}
            self._news.append(News(child.name, "begun", facts))
        else:
            status = told["status"]
            if status is None:
                facts = {"code": None, "said": told["said"], "lost": True}
            elif status >= 0:
                facts = {"code": status}
            else:
                before, self._starved = self._starved, starved()
                hungry = -status == signal.SIGKILL and self._starved > before
                facts = {"signal": -status, "memory": hungry}
            self._bury(child, facts)

    def _lost(self) -> None:
        """The nursery died, and its children with it: they are told of, and there is another."""
        for child in list(self._children.values()):
            self._bury(child, {"signal": int(signal.SIGKILL), "said": "lost its parent process"})
        self.close()
        self._nursery = self._opened(type(self._nursery)())

    def _bury(self, child: _Child, facts: Mapping[str, Any]) -> None:
        for output in (True, False):
            while self._read(child, output):
                pass
        if child.outcome is not None:
            self._news.append(News(child.name, "ended", child.outcome))
        else:
            self._news.append(News(child.name, "died", facts))
        self._forget(child)

    def _forget(self, child: _Child) -> None:
        for file in (child.events, child.output):
            with suppress(KeyError):
                self._selector.unregister(file)
            file.close()
        del self._children[child.name]
        self._free.append(child.slot)
        self._free.sort()

    def _read(self, child: _Child, output: bool) -> bool:
        """Something of what has come, if anything has."""
        file = child.output if output else child.events
        try:
            data = os.read(file.fileno(), CHUNK)
        except BlockingIOError:
            return False
        if not data:
            with suppress(KeyError):
                self._selector.unregister(file)
        elif output:
            self._news.append(News(child.name, "output", {"bytes": data}))
        else:
            *lines, child.held = (child.held + data).split(b"\n")
            for line in lines:
                self._hear_line(child, line)
        return bool(data)

    def _hear_line(self, child: _Child, line: bytes) -> None:
        try:
            what, facts = json.loads(line)
        except ValueError:  # a plugin found the pipe; its words are no events
            return
        if what == "ended":
            child.outcome = facts
        else:
            self._news.append(News(child.name, what, facts))


def _reading(end: int) -> IO[bytes]:
    os.set_blocking(end, False)
    with suppress(OSError):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, CHUNK)
    return os.fdopen(end, "rb", buffering=0)


def starved() -> int:
    """How many processes the kernel has killed here for want of memory."""
    count = 0
    for place in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError, ValueError):
            for line in Path(place).read_text().splitlines():
                if line.startswith("oom_kill "):
                    count += int(line.split()[1])
    return count
