"""Jobs on this machine: a supervised process each, one at a time per GPU or share of the CPU.

A process that crashes, hangs, prints without end or forks takes nothing with it but its own job.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import torch

from ..scheduling.events import (
    Died,
    Ended,
    Heartbeat,
    JobEvent,
    Output,
    Progress,
    Started,
    parse_event,
)
from ..scheduling.executor import EventHandler
from ..scheduling.job import Job
from .fork_server import ForkServer

PIPE_BYTES = 2**20
"""Bytes that are read at once, and that a pipe holds if the system lets it."""

MAX_LINE_BYTES = 2**26
"""Bytes of a line of events at most; more without an end is output."""


class DeviceSlot(NamedTuple):
    """A slot: the device of its jobs and torch's threads, 0 for as many as there are.

    >>> DeviceSlot("cuda:1", threads=4).device
    'cuda:1'
    """

    device: str
    threads: int = 0


def device_slots(device: str, slots: int | None = None) -> list[DeviceSlot]:
    """Return one slot per GPU, or one on the CPU; or as many as `slots` says, which share evenly.

    device: "cuda" means every GPU, "cuda:1" that one

    >>> from adbench.benchmark.executors.local import device_slots
    >>> device_slots("cpu")
    [DeviceSlot(device='cpu', threads=0)]
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
    """A job and the process that works on it.

    events, output: pipes from the process
    partial_line: the part of a line of events that has come
    ended: the outcome, once it has come; the process may not yet be gone
    """

    name: str
    slot: int
    events: IO[bytes]
    output: IO[bytes]
    partial_line: bytes = b""
    ended: Ended | None = None


class LocalExecutor:
    """An Executor (executor.py) of child processes.

    preload: what to import once, before the processes fork (ForkServer.preload)
    fork_server: one that was started before

    >>> import socket
    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.scheduling.job import JobContext
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> control, _ = socket.socketpair()
    >>> fork_server = SimpleNamespace(
    ...     control=control, preload=list, close=control.close,
    ...     send=lambda message, files=(): print(message),
    ... )
    >>> executor = LocalExecutor([DeviceSlot("cpu", 1)], fork_server=fork_server)
    >>> executor.start(Job("prepare phantom", "prepare", (), JobContext.of(TrainingContext())))
    {'start': 'prepare phantom'}
    >>> executor.kill("prepare phantom")
    {'signal': 9, 'name': 'prepare phantom', 'group': True}
    >>> executor.close()
    """

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
        context = replace(job.context, device=place.device)
        with tempfile.TemporaryFile() as file:
            file.write(replace(job, threads=place.threads, context=context).to_json())
            file.seek(0)
            events, events_end = os.pipe()
            output, output_end = os.pipe()
            child = _ChildProcess(job.name, slot, _open_pipe(events), _open_pipe(output))
            self._children[child.name] = child
            for pipe in (child.events, child.output):
                self._selector.register(pipe, selectors.EVENT_READ, child)
            self._fork_server.send({"start": child.name}, [file.fileno(), events_end, output_end])
            os.close(events_end)
            os.close(output_end)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        if not self._children:
            time.sleep(seconds)
        for key, _ in self._selector.select(0 if self._events else seconds):
            if key.data is None:
                self._on_fork_server_message()
            elif key.data.name in self._children:
                self._read(key.data, key.fileobj is key.data.output)
        events, self._events = self._events, []
        for event in events:
            on_event(event)

    def request_stop(self, name: str) -> None:
        self._fork_server.send({"signal": int(signal.SIGINT), "name": name, "group": False})

    def kill(self, name: str) -> None:
        self._fork_server.send({"signal": int(signal.SIGKILL), "name": name, "group": True})

    def close(self) -> None:
        """End the fork server, and its children with it."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._fork_server.control)
        self._fork_server.close()
        for child in list(self._children.values()):
            self._remove_child(child)

    def _with_fork_server(self, fork_server: ForkServer) -> ForkServer:
        fork_server.preload(self._preload)
        self._selector.register(fork_server.control, selectors.EVENT_READ, None)
        return fork_server

    def _on_fork_server_message(self) -> None:
        message = self._fork_server.receive()
        if message is None:
            self._on_fork_server_death()
            return
        child = self._children.get(str(message.get("born") or message.get("dead")))
        if child is None:
            return
        if "born" in message:
            self._events.append(JobEvent(child.name, Started(message["pid"], child.slot)))
            return
        status = message["status"]
        if status is None:
            death = Died(reason=message["reason"], lost=True)
        elif status >= 0:
            death = Died(code=status)
        else:
            before, self._oom_kills = self._oom_kills, oom_kill_count()
            out_of_memory = -status == signal.SIGKILL and self._oom_kills > before
            death = Died(signal=-status, out_of_memory=out_of_memory)
        self._on_child_exit(child, death)

    def _on_fork_server_death(self) -> None:
        """Report that all children died with the fork server, and start another one."""
        reason = "lost its parent process"
        death = Died(signal=int(signal.SIGKILL), reason=reason, with_others=True)
        for child in list(self._children.values()):
            self._on_child_exit(child, death)
        self.close()
        self._fork_server = self._with_fork_server(type(self._fork_server)())

    def _on_child_exit(self, child: _ChildProcess, death: Died) -> None:
        for output in (True, False):
            while self._read(child, output):
                pass
        self._events.append(JobEvent(child.name, child.ended or death))
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
        """Read some of what has come, and return whether there was anything."""
        file = child.output if output else child.events
        try:
            data = os.read(file.fileno(), PIPE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            with suppress(KeyError):
                self._selector.unregister(file)
        elif output:
            self._events.append(JobEvent(child.name, Output(data)))
        else:
            *lines, child.partial_line = (child.partial_line + data).split(b"\n")
            if len(child.partial_line) > MAX_LINE_BYTES:
                lines.append(child.partial_line)
                child.partial_line = b""
            for line in lines:
                self._parse_event(child, line)
        return bool(data)

    def _parse_event(self, child: _ChildProcess, line: bytes) -> None:
        """Report an event; a line that is none, as a plugin may write to the pipe, is output."""
        event = parse_event(line)
        if isinstance(event, Ended):
            child.ended = event
        elif isinstance(event, Progress | Heartbeat):
            self._events.append(JobEvent(child.name, event))
        else:
            self._events.append(JobEvent(child.name, Output(line + b"\n")))


def _open_pipe(end: int) -> IO[bytes]:
    os.set_blocking(end, False)
    with suppress(OSError):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return os.fdopen(end, "rb", buffering=0)


def oom_kill_count() -> int:
    """Return how many processes the kernel has killed on this machine for want of memory.

    >>> from adbench.benchmark.executors.local import oom_kill_count
    >>> oom_kill_count() >= 0
    True
    """
    count = 0
    for place in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError, ValueError):
            for line in Path(place).read_text().splitlines():
                if line.startswith("oom_kill "):
                    count += int(line.split()[1])
    return count
