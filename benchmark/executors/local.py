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

from ..scheduling.event_lines import parse_event
from ..scheduling.executor import EventHandler, JobEvent
from ..scheduling.job import Job
from .fork_server import ForkServer

PIPE_BYTES = 2**20
"""Bytes that are read at once, and that a pipe holds if the system lets it."""


MAX_LINE_BYTES = 2**26
"""Bytes of a line of events at most; more without an end is output."""

CHILD_EVENTS = ("progress", "heartbeat", "ended")
"""Kinds of events that the process of a job writes."""


class DeviceSlot(NamedTuple):
    """A slot: the device of its cells and torch's threads, 0 for as many as there are."""

    device: str
    threads: int = 0


def device_slots(device: str, slots: int | None = None) -> list[DeviceSlot]:
    """One per GPU, or one on the CPU; or as many as asked for, which share them evenly.

    device: "cuda" means every GPU, "cuda:1" that one
    """
    kind = torch.device(device)
    devices = [device]
    if kind.type == "cuda" and kind.index is None:
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or [device]
    count = slots or len(devices)
    threads = 0 if count == 1 else max(1, torch.get_num_threads() // count)
    return [DeviceSlot(devices[i % len(devices)], threads) for i in range(count)]


@dataclass
class _ChildProcess:
    """A job and the process that works on it. events, output: pipes from it; partial_line: of a
    line of
    events, what has come; outcome: once it has, though the process may not yet be gone"""

    name: str
    slot: int
    events: IO[bytes]
    output: IO[bytes]
    partial_line: bytes = b""
    outcome: dict[str, Any] | None = None


class LocalExecutor:
    """An Executor (executor.py). preload: what to import once, before the processes fork
    (Nursery.imports). nursery: one that was started before"""

    def __init__(
        self,
        slots: Iterable[DeviceSlot],
        preload: Iterable[str] = (),
        fork_server: ForkServer | None = None,
    ) -> None:
        self._device_slots = list(slots)
        self.slots = len(self._device_slots)
        self._free = list(range(self.slots))
        # Only what is ours: what somebody else's module does when imported may not bear a fork.
        ours = [name for name in dict.fromkeys(preload) if name.startswith("adbench.")]
        self._preload = ours
        self._children: dict[str, _ChildProcess] = {}
        self._events: list[JobEvent] = []
        self._selector = selectors.DefaultSelector()
        self._oom_kills = oom_kill_count()
        self._fork_server = self._with_fork_server(fork_server or ForkServer())

    def start(self, job: Job) -> None:
        slot = self._free.pop(0)
        place = self._device_slots[slot]
        job = job | {"threads": place.threads, "run": job["run"] | {"device": place.device}}
        with tempfile.TemporaryFile() as given:
            given.write(json.dumps(job).encode())
            given.seek(0)
            events, told = os.pipe()
            output, printed = os.pipe()
            child = _ChildProcess(job["name"], slot, _open_pipe(events), _open_pipe(output))
            self._children[child.name] = child
            for file in (child.events, child.output):
                self._selector.register(file, selectors.EVENT_READ, child)
            self._fork_server.send({"start": child.name}, [given.fileno(), told, printed])
            os.close(told)
            os.close(printed)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        if not self._children:
            time.sleep(seconds)
        for key, _ in self._selector.select(0 if self._events else seconds):
            if key.data is None:
                self._on_fork_server_message()
            elif key.data.name in self._children:
                self._read(key.data, key.fileobj is key.data.output)
        news, self._events = self._events, []
        for each in news:
            on_event(each)

    def request_stop(self, name: str) -> None:
        self._fork_server.send({"signal": int(signal.SIGINT), "name": name, "group": False})

    def kill(self, name: str) -> None:
        self._fork_server.send({"signal": int(signal.SIGKILL), "name": name, "group": True})

    def close(self) -> None:
        """Its children die with the nursery, which ends when it is left alone."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._fork_server.control)
        self._fork_server.close()
        for child in list(self._children.values()):
            self._remove_child(child)

    def _with_fork_server(self, nursery: ForkServer) -> ForkServer:
        nursery.preload(self._preload)
        self._selector.register(nursery.control, selectors.EVENT_READ, None)
        return nursery

    def _on_fork_server_message(self) -> None:
        told = self._fork_server.receive()
        if told is None:
            self._on_fork_server_death()
            return
        child = self._children.get(str(told.get("born") or told.get("dead")))
        if child is None:
            return
        if "born" in told:
            facts = {"pid": told["pid"], "slot": child.slot}
            self._events.append(JobEvent(child.name, "started", facts))
        else:
            status = told["status"]
            if status is None:
                facts = {"code": None, "said": told["said"], "lost": True}
            elif status >= 0:
                facts = {"code": status}
            else:
                before, self._oom_kills = self._oom_kills, oom_kill_count()
                hungry = -status == signal.SIGKILL and self._oom_kills > before
                facts = {"signal": -status, "memory": hungry}
            self._on_child_exit(child, facts)

    def _on_fork_server_death(self) -> None:
        """The nursery died, and its children with it: they are told of, and there is another."""
        for child in list(self._children.values()):
            self._on_child_exit(
                child, {"signal": int(signal.SIGKILL), "said": "lost its parent process"}
            )
        self.close()
        self._fork_server = self._with_fork_server(type(self._fork_server)())

    def _on_child_exit(self, child: _ChildProcess, facts: Mapping[str, Any]) -> None:
        for output in (True, False):
            while self._read(child, output):
                pass
        if child.outcome is not None:
            self._events.append(JobEvent(child.name, "ended", child.outcome))
        else:
            self._events.append(JobEvent(child.name, "died", facts))
        self._remove_child(child)

    def _remove_child(self, child: _ChildProcess) -> None:
        for file in (child.events, child.output):
            with suppress(KeyError):
                self._selector.unregister(file)
            file.close()
        del self._children[child.name]
        self._free.append(child.slot)
        self._free.sort()

    def _read(self, child: _ChildProcess, output: bool) -> bool:
        """Something of what has come, if anything has."""
        file = child.output if output else child.events
        try:
            data = os.read(file.fileno(), PIPE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            with suppress(KeyError):
                self._selector.unregister(file)
        elif output:
            self._events.append(JobEvent(child.name, "output", {"bytes": data}))
        else:
            *lines, child.partial_line = (child.partial_line + data).split(b"\n")
            if len(child.partial_line) > MAX_LINE_BYTES:
                lines.append(child.partial_line)
                child.partial_line = b""
            for line in lines:
                self._parse_event(child, line)
        return bool(data)

    def _parse_event(self, child: _ChildProcess, line: bytes) -> None:
        """Report a line that is no event, as a plugin may write to the pipe, as output."""
        event = parse_event(line, CHILD_EVENTS)
        if event is None:
            self._events.append(JobEvent(child.name, "output", {"bytes": line + b"\n"}))
        elif event[0] == "ended":
            child.outcome = event[1]
        else:
            self._events.append(JobEvent(child.name, *event))


def _open_pipe(end: int) -> IO[bytes]:
    os.set_blocking(end, False)
    with suppress(OSError):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return os.fdopen(end, "rb", buffering=0)


def oom_kill_count() -> int:
    """How many processes the kernel has killed here for want of memory."""
    count = 0
    for place in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError, ValueError):
            for line in Path(place).read_text().splitlines():
                if line.startswith("oom_kill "):
                    count += int(line.split()[1])
    return count
