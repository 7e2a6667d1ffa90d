"""A job on a host of a cluster: run there as on one machine, and reported in a folder.

The folder is shared with the driver (cluster.py), and all that they say to each other is a file:

    job.json      what to do                    stop        exists once the driver asks to stop
    events.jsonl  events, one a line            last.json   the last event, Ended or Died
    log           a folder: what was printed    ticket      the cluster's name of the job

The job runs in a process of its own below this one, which the local executor supervises: so a
crash, a hang or too little memory is reported alike on one machine and on many.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..scheduling.events import (
    Died,
    Ended,
    Event,
    Heartbeat,
    JobEvent,
    Output,
    Progress,
    Started,
    Stopped,
    format_event,
)
from ..store.atomic_files import StoreError, atomic_write
from .fork_server import ForkServer

JOB, EVENTS, LAST, STOP, LOG, TICKET = (
    "job.json", "events.jsonl", "last.json", "stop", "log", "ticket"
)  # fmt: skip

POLL_SECONDS = 0.5
"""Seconds between two looks for `stop`, and between two writings of events."""

DISK_TIMEOUT = 600.0
"""Seconds to wait for room on a disk for the last event."""

Last = Ended | Died


def run_job_folder(
    folder: Path,
    stop_requested: Callable[[], bool] = bool,
    create_fork_server: Callable[[], ForkServer] | None = None,
) -> Last | None:
    """Run the job of a folder, report it there, and return its last event.

    That event is yet to be written. The result is None where nobody waits for the job any more.

    stop_requested: whether to stop, besides the file that says so
    create_fork_server: what makes the fork server; None for ForkServer itself

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     before = run_job_folder(folder)  # it holds no job
    ...     (folder / JOB).touch()
    ...     (folder / STOP).touch()
    ...     before, run_job_folder(folder)
    (None, Ended(outcome=Stopped(reason='')))
    """
    if (folder / LAST).exists() or not (folder / JOB).exists():
        return None  # the cluster began it again although it was over
    if stop_requested() or (folder / STOP).exists():
        return Ended(Stopped())
    fork_server = (create_fork_server or ForkServer)()  # it imports while this process does
    from ..scheduling.job import Job
    from ..scheduling.job_logs import JobLogs
    from .local import DeviceSlot, LocalExecutor

    job = Job.from_json((folder / JOB).read_bytes())
    local = LocalExecutor([DeviceSlot(job.context.device, job.threads)], fork_server=fork_server)
    events, logs = _EventFile(folder / EVENTS), JobLogs(folder / LOG)
    last: Last | None = None

    def on_event(job_event: JobEvent) -> None:
        nonlocal last
        match job_event.event:
            case Output(data):
                logs.add("log", data)
            case Ended() | Died() as event:
                last = event
            case Started() as event:
                events.add(msgspec.structs.replace(event, host=platform.node()))
            case event:
                events.add(event)

    try:
        local.start(job)
        stopping = False
        while last is None:
            try:
                local.poll(on_event, POLL_SECONDS)
                if not stopping and (stop_requested() or (folder / STOP).exists()):
                    local.request_stop(job.name)
                    stopping = True
            except KeyboardInterrupt:  # how Ray asks
                local.request_stop(job.name)
                stopping = True
            events.flush()
    finally:
        local.close()
        events.flush(now=True)
        logs.close("log")
    return last


def write_last_event(folder: Path, last: Last) -> None:
    """Write the last event of a job; where a disk has no room for it, wait.

    Raises StoreError where that takes too long.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from adbench.benchmark.executors.job_folder import write_last_event
    >>> from adbench.benchmark.scheduling.events import Died
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_last_event(Path(folder), Died(signal=9))
    ...     print((Path(folder) / "last.json").read_text().strip())
    {"kind": "died", "signal": 9}
    """
    since = time.monotonic()
    while folder.exists():
        try:
            return atomic_write(folder / LAST, format_event(last))
        except StoreError:
            if time.monotonic() - since > DISK_TIMEOUT:
                raise
            time.sleep(POLL_SECONDS)


class _EventFile:
    """A file of events. All that have come since the last time are added at once; of progress with
    steps, and of signs of life, only the latest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[object, bytes] = {}
        self._flushed_at = 0.0
        self._count = 0

    def add(self, event: Event) -> None:
        self._count += 1
        match event:
            case Heartbeat():
                key = "heartbeat"
            case Progress(name, step, part=part) if step is not None and name != "oom":
                key = (name, part)
            case _:
                key = self._count
        self._lines.pop(key, None)
        self._lines[key] = format_event(event)

    def flush(self, *, now: bool = False) -> None:
        """Write the events, unless that was just done; a full disk loses the view, not the job."""
        clock = time.monotonic()
        if not self._lines or (clock - self._flushed_at < POLL_SECONDS and not now):
            return
        self._flushed_at = clock
        try:
            with self._path.open("ab") as file:  # a line that was cut off before is ended first
                file.write(b"\n" + b"".join(self._lines.values()))
        except OSError:
            return
        self._lines.clear()
