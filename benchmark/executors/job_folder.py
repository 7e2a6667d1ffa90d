"""A job on a host of a cluster: done there as on one machine, and told of in a folder.

The folder is shared with the driver (remote.py), and all that they say to each other is a file:

    job.json    what to do                    stop        there once the driver asks it to stop
    news.jsonl  [what, facts], one a line     last.json   [what, facts] of `ended` or `died`
    log         a folder: what was printed    ticket      what the cluster calls the job

The job runs in a process of its own below this one, which the local executor supervises: so a
crash, a hang or too little memory is told alike on one machine and on many.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..scheduling.event_lines import format_event
from ..store.atomic_files import StoreError, atomic_write
from .fork_server import ForkServer

if TYPE_CHECKING:
    from ..scheduling.executor import JobEvent

JOB, NEWS, LAST, STOP, LOG, TICKET = "job.json", "news.jsonl", "last.json", "stop", "log", "ticket"

POLL_SECONDS = 0.5
"""Seconds between two looks for `stop`, and between two writings of news."""

DISK_TIMEOUT = 600.0
"""Seconds to wait for room on a disk for the last word."""

Last = tuple[str, dict[str, Any]]


def run_job_folder(
    folder: Path, asked: Callable[[], bool] = bool, born: Callable[[], ForkServer] | None = None
) -> Last | None:
    """Do the job of a folder, and tell of it until it ended or died; how, is for `tell_last`.

    asked: whether to stop, besides the file that says so. born: the nursery to have, if no plain
    one. None where nobody waits for the job any more.
    """
    if (folder / LAST).exists() or not (folder / JOB).exists():
        return None  # the cluster began it again although it was over
    if asked() or (folder / STOP).exists():
        return "ended", {"end": "stopped", "said": ""}
    nursery = (born or ForkServer)()  # it imports while this process does
    from ..scheduling.job_logs import JobLogs
    from .local import DeviceSlot, LocalExecutor

    job = json.loads((folder / JOB).read_bytes())
    local = LocalExecutor([DeviceSlot(job["run"]["device"], job["threads"])], fork_server=nursery)
    news, logs = _EventFile(folder / NEWS), JobLogs(folder / LOG)
    last: Last | None = None

    def hear(each: JobEvent) -> None:
        nonlocal last
        if each.kind == "output":
            logs.add("log", each.facts["bytes"])
        elif each.kind in ("ended", "died"):
            last = each.kind, dict(each.facts)
        else:
            host = {"host": platform.node()} if each.kind == "started" else {}
            news.add(each.kind, {**each.facts, **host})

    try:
        local.start(job)
        stopping = False
        while last is None:
            try:
                local.poll(hear, POLL_SECONDS)
                if not stopping and (asked() or (folder / STOP).exists()):
                    local.request_stop(job["name"])
                    stopping = True
            except KeyboardInterrupt:  # how Ray asks
                local.request_stop(job["name"])
                stopping = True
            news.flush()
    finally:
        local.close()
        news.flush(now=True)
        logs.close("log")
    return last


def write_last_event(folder: Path, last: Last) -> None:
    """The last word on the job; where a disk has no room for it, wait."""
    since = time.monotonic()
    while folder.exists():
        try:
            return atomic_write(folder / LAST, format_event(*last))
        except StoreError:
            if time.monotonic() - since > DISK_TIMEOUT:
                raise
            time.sleep(POLL_SECONDS)


class _EventFile:
    """Lines that are added to a file, all that has come since the last time at once: of progress,
    and of signs of life, only the latest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[object, bytes] = {}
        self._posted = 0.0
        self._count = 0

    def add(self, what: str, facts: Mapping[str, Any]) -> None:
        inner = facts.get("facts", {})
        self._count += 1
        passing = what == "heartbeat" or ("step" in inner and facts["event"] != "oom")
        key = (what, facts.get("event"), inner.get("part")) if passing else self._count
        self._lines.pop(key, None)
        self._lines[key] = format_event(what, facts)

    def flush(self, *, now: bool = False) -> None:
        """A disk that has no room loses the view, not the job."""
        clock = time.monotonic()
        if not self._lines or (clock - self._posted < POLL_SECONDS and not now):
            return
        self._posted = clock
        try:
            with self._path.open("ab") as file:  # a line that was cut off before is ended first
                file.write(b"\n" + b"".join(self._lines.values()))
        except OSError:
            return
        self._lines.clear()
