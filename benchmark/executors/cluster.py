"""Jobs on other hosts of a cluster: handed to whatever finds hosts for them, heard of by files.

Ray and Slurm only begin a process somewhere, and say when it is gone; everything else goes through
a folder per job that all hosts see (errand.py), as maps and checkpoints go through the store.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from ..scheduling.event_lines import parse_event
from ..scheduling.executor import EventHandler, JobEvent
from ..scheduling.job import Job
from ..scheduling.job_logs import JobLogs
from ..store.atomic_files import atomic_write
from .job_folder import JOB, LAST, LOG, NEWS, STOP, TICKET

KEEP_SECONDS = 7 * 86400.0
"""Seconds that what a job told is kept for a driver that did not come for it."""

FOLDER_EVENTS = ("started", "progress", "heartbeat")
"""Kinds of events in the file that a job's host adds to."""


class Cluster(Protocol):
    """What begins jobs on hosts. A ticket is its own name of a job.

    device: of every job, as its process sees it
    settle: seconds until a file that one host wrote is surely seen by another
    """

    device: str
    settle: float

    def threads(self, job: Job) -> int:
        """CPUs that a job is given."""
        ...

    def submit(self, folders: Sequence[Path]) -> list[str]:
        """Have every folder attended to, somewhere, some time; a ticket for each."""
        ...

    def finished_jobs(self, tickets: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Those of the tickets that are not, or no longer, going to run; and how each ended: the
        facts of a `died`, should it have left no word of its own."""
        ...

    def request_stop(self, ticket: str) -> None:
        """Take it back if it has not begun; have it look for `stop` at once if it has."""
        ...

    def kill(self, ticket: str) -> None: ...

    def forget(self, ticket: str) -> None:
        """It left its last word: what the cluster wrote of it is not needed."""
        ...

    def close(self) -> None: ...


@dataclass
class _SubmittedJob:
    """A job that was handed in. read: bytes of its news that were; over: how its process ended,
    and gone: since when that is known"""

    name: str
    folder: Path
    ticket: str = ""
    read: int = 0
    over: Mapping[str, Any] | None = None
    gone: float = 0.0


class RemoteExecutor:
    """An Executor (executor.py). folder: where jobs are told of, on a disk that all hosts share.

    every: seconds between two looks at the files; ask_every: between two questions to the cluster
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        slots: int,
        *,
        every: float = 1.0,
        ask_every: float = 5.0,
    ) -> None:
        self._cluster, self._folder, self.slots = cluster, folder.absolute(), slots
        self._every, self._ask_every = every, ask_every
        self._looked = self._asked = 0.0
        self._new: list[_SubmittedJob] = []
        self._sent: dict[str, _SubmittedJob] = {}
        self._before = self._leftover_jobs()

    def start(self, job: Job) -> None:
        threads, run = self._cluster.threads(job), job["run"] | {"device": self._cluster.device}
        name = re.sub(r"[^\w.=-]+", "-", job["name"])[:80]
        sent = _SubmittedJob(job["name"], self._folder / f"{uuid4().hex[:8]}-{name}")
        atomic_write(sent.folder / JOB, json.dumps(job | {"threads": threads, "run": run}))
        self._sent[sent.name] = sent
        self._new.append(sent)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        self._submit()
        rest = self._looked + self._every - time.monotonic()
        if rest > 0:
            time.sleep(min(rest, seconds))
        if rest > seconds:
            return
        self._looked = time.monotonic()
        if self._looked - self._asked >= self._ask_every:
            self._query_cluster()
            self._asked = time.monotonic()
            self._report_waiting(on_event)
        for sent in list(self._sent.values()):
            self._poll_job(sent, on_event)

    def request_stop(self, name: str) -> None:
        sent = self._sent[name]
        with suppress(OSError):
            (sent.folder / STOP).touch()
        if sent.ticket:
            self._cluster.request_stop(sent.ticket)
        self._new = [other for other in self._new if other is not sent]

    def kill(self, name: str) -> None:
        if ticket := self._sent[name].ticket:
            self._cluster.kill(ticket)
        else:
            self.request_stop(name)

    def close(self) -> None:
        """End what still runs; what was said of it is nobody's any more."""
        for sent in self._sent.values():
            if sent.ticket:
                self._cluster.kill(sent.ticket)
            shutil.rmtree(sent.folder, ignore_errors=True)
        self._sent.clear()
        self._new.clear()
        self._cluster.close()
        with suppress(OSError):
            self._folder.rmdir()

    def _submit(self) -> None:
        """Whatever was started since the last time, at once; but not beside an earlier run's job
        for the same cell, which would wait for it, and hold what the cluster gave it meanwhile."""
        ready = [sent for sent in self._new if sent.name not in self._before]
        if not ready:
            return
        self._new = [sent for sent in self._new if sent.name in self._before]
        tickets = self._cluster.submit([sent.folder for sent in ready])
        for sent, ticket in zip(ready, tickets, strict=True):
            sent.ticket = ticket
            atomic_write(sent.folder / TICKET, ticket)

    def _query_cluster(self) -> None:
        mine = {sent.ticket: sent for sent in self._sent.values() if sent.ticket and not sent.over}
        earlier = {ticket: name for name, (ticket, _) in self._before.items()}
        for ticket, facts in self._cluster.finished_jobs([*mine, *earlier]).items():
            if ticket in earlier:
                _remove_folder(self._before.pop(earlier[ticket])[1])
            else:
                mine[ticket].over, mine[ticket].gone = facts, time.monotonic()

    def _report_waiting(self, hear: EventHandler) -> None:
        for sent in self._new:
            ticket, _ = self._before.get(sent.name, ("", None))
            if not ticket:
                continue
            text = f"{sent.name} waits for job {ticket} of an earlier run, which works on it"
            hear(JobEvent(sent.name, "progress", {"event": "note", "facts": {"text": text}}))

    def _poll_job(self, sent: _SubmittedJob, hear: EventHandler) -> None:
        last = _read_last_event(sent.folder / LAST)  # before the news, so that these are all there
        for what, facts in self._new_events(sent):
            hear(JobEvent(sent.name, what, facts))
        if last is None and not sent.ticket and (sent.folder / STOP).exists():
            last = "ended", {"end": "stopped", "said": ""}
        elif last is not None:
            self._cluster.forget(sent.ticket)
        settled = sent.over is not None and time.monotonic() - sent.gone >= self._cluster.settle
        if last is None and settled and sent.over is not None:
            last = "died", dict(sent.over)
        if last is None:
            return
        if printed := _read_output(sent.folder / LOG):
            hear(JobEvent(sent.name, "output", {"bytes": printed}))
        del self._sent[sent.name]
        shutil.rmtree(sent.folder, ignore_errors=True)
        hear(JobEvent(sent.name, last[0], last[1]))

    def _new_events(self, sent: _SubmittedJob) -> list[tuple[str, dict[str, Any]]]:
        """What has come to its file since the last time, whole lines only."""
        try:
            with (sent.folder / NEWS).open("rb") as file:
                file.seek(sent.read)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        sent.read += len(whole)
        events = (parse_event(line, FOLDER_EVENTS) for line in whole.splitlines())
        return [event for event in events if event is not None]  # a line may be cut off

    def _leftover_jobs(self) -> dict[str, tuple[str, Path]]:
        """Jobs that others handed in, and that may still run, by name: tickets and folders."""
        found = {}
        for path in self._folder.glob(f"*/{TICKET}"):
            if (path.parent / LAST).exists():
                _remove_folder(path.parent)
                continue
            with suppress(OSError, ValueError, KeyError, TypeError):
                name = json.loads((path.parent / JOB).read_bytes())["name"]
                found[name] = path.read_text(), path.parent
        return found


def _remove_folder(folder: Path) -> None:
    """Remove what is told of a job that is over, unless its driver may still want to read it."""
    with suppress(OSError):
        if time.time() - (folder / TICKET).stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _read_last_event(path: Path) -> tuple[str, dict[str, Any]] | None:
    try:
        return parse_event(path.read_bytes(), ("ended", "died"))
    except OSError:
        return None


def _read_output(folder: Path) -> bytes:
    """All that is left of what a job printed."""
    logs = JobLogs(folder)
    path = logs.path("log")
    found = b""
    for part in (path.with_suffix(".log.before"), path):
        with suppress(OSError):
            found += part.read_bytes()
    return found
