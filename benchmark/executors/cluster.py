"""Jobs on other hosts of a cluster: submitted to what finds hosts for them, followed by files.

Ray and Slurm only begin a process somewhere, and say when it is gone; everything else goes through
a folder per job that all hosts see (job_folder.py), as maps and checkpoints go through the store.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import uuid4

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
    parse_event,
)
from ..scheduling.executor import EventHandler
from ..scheduling.job import Job
from ..scheduling.job_logs import JobLogs
from ..store.atomic_files import atomic_write
from .job_folder import EVENTS, JOB, LAST, LOG, STOP, TICKET, Last

KEEP_SECONDS = 7 * 86400.0
"""Seconds for which the folder of a job is kept for a driver that did not come for it."""


class Cluster(Protocol):
    """What starts jobs on hosts. A ticket is its own name of a job.

    device: of every job, as its process sees it
    settle: seconds until a file that one host wrote is surely seen by another

    >>> from adbench.benchmark.executors.slurm_backend import SlurmCluster
    >>> cluster: Cluster = SlurmCluster(None, "cuda", threads=4)
    >>> cluster.device, cluster.settle
    ('cuda', 20.0)
    """

    device: str
    settle: float

    def threads(self, job: Job) -> int:
        """The CPUs of a job."""
        ...

    def submit(self, folders: Sequence[Path]) -> list[str]:
        """Have the job of every folder run, somewhere, some time, and return a ticket for each."""
        ...

    def finished_jobs(self, tickets: Iterable[str]) -> Mapping[str, Died]:
        """Those of the tickets that are over, or will not run; and how each ended, should its
        folder not say so."""
        ...

    def request_stop(self, ticket: str) -> None:
        """Cancel a job that has not begun; have one that has look for `stop` at once."""
        ...

    def kill(self, ticket: str) -> None:
        """End a job now."""
        ...

    def forget(self, ticket: str) -> None:
        """Note that a job said itself how it ended: what the cluster wrote of it is not needed."""
        ...

    def close(self) -> None:
        """Leave the cluster."""
        ...


@dataclass
class _SubmittedJob:
    """A job that was submitted.

    position: bytes of its file of events that were read
    death: how its process ended, as the cluster says        died_at: since when that is known
    """

    name: str
    folder: Path
    ticket: str = ""
    position: int = 0
    death: Died | None = None
    died_at: float = 0.0


class RemoteExecutor:
    """An Executor (executor.py) of jobs on a cluster.

    folder: of the jobs' folders, on a disk that all hosts share
    every: seconds between two readings of the files
    ask_every: seconds between two questions to the cluster

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.scheduling.job import JobContext
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> death = Died(reason="its host was lost", lost=True)
    >>> cluster = SimpleNamespace(
    ...     device="cpu", settle=0.0, threads=lambda job: 1, submit=lambda folders: ["17"],
    ...     finished_jobs=lambda tickets: {"17": death}, close=lambda: None,
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     executor = RemoteExecutor(cluster, Path(folder), slots=1, every=0.0, ask_every=0.0)
    ...     executor.start(Job("prepare phantom", "prepare", (), JobContext.of(TrainingContext())))
    ...     executor.poll(lambda event: print(event.job_name, "-", event.event.reason), 0.0)
    ...     executor.close()
    prepare phantom - its host was lost
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
        self._polled_at = self._asked_at = 0.0
        self._new: list[_SubmittedJob] = []
        self._jobs: dict[str, _SubmittedJob] = {}
        self._earlier = self._leftover_jobs()

    def start(self, job: Job) -> None:
        context = replace(job.context, device=self._cluster.device)
        job = replace(job, threads=self._cluster.threads(job), context=context)
        name = re.sub(r"[^\w.=-]+", "-", job.name)[:80]
        submitted = _SubmittedJob(job.name, self._folder / f"{uuid4().hex[:8]}-{name}")
        atomic_write(submitted.folder / JOB, job.to_json())
        self._jobs[job.name] = submitted
        self._new.append(submitted)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        self._submit()
        wait = self._polled_at + self._every - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, seconds))
        if wait > seconds:
            return
        self._polled_at = time.monotonic()
        if self._polled_at - self._asked_at >= self._ask_every:
            self._query_cluster()
            self._asked_at = time.monotonic()
            self._report_waiting(on_event)
        for job in list(self._jobs.values()):
            self._poll_job(job, on_event)

    def request_stop(self, name: str) -> None:
        job = self._jobs[name]
        with suppress(OSError):
            (job.folder / STOP).touch()
        if job.ticket:
            self._cluster.request_stop(job.ticket)
        self._new = [other for other in self._new if other is not job]

    def kill(self, name: str) -> None:
        if ticket := self._jobs[name].ticket:
            self._cluster.kill(ticket)
        else:
            self.request_stop(name)

    def close(self) -> None:
        """End the jobs that still run, and remove their folders."""
        for job in self._jobs.values():
            if job.ticket:
                self._cluster.kill(job.ticket)
            shutil.rmtree(job.folder, ignore_errors=True)
        self._jobs.clear()
        self._new.clear()
        self._cluster.close()
        with suppress(OSError):
            self._folder.rmdir()

    def _submit(self) -> None:
        """Submit the jobs that were started since the last time; but none beside an earlier run's
        job of the same name, for which it would wait, and hold what the cluster gives it."""
        ready = [job for job in self._new if job.name not in self._earlier]
        if not ready:
            return
        self._new = [job for job in self._new if job.name in self._earlier]
        tickets = self._cluster.submit([job.folder for job in ready])
        for job, ticket in zip(ready, tickets, strict=True):
            job.ticket = ticket
            atomic_write(job.folder / TICKET, ticket)

    def _query_cluster(self) -> None:
        mine = {job.ticket: job for job in self._jobs.values() if job.ticket and not job.death}
        earlier = {ticket: name for name, (ticket, _) in self._earlier.items()}
        for ticket, death in self._cluster.finished_jobs([*mine, *earlier]).items():
            if ticket in earlier:
                _remove_folder(self._earlier.pop(earlier[ticket])[1])
            else:
                mine[ticket].death, mine[ticket].died_at = death, time.monotonic()

    def _report_waiting(self, on_event: EventHandler) -> None:
        for job in self._new:
            ticket, _ = self._earlier.get(job.name, ("", None))
            if not ticket:
                continue
            text = f"{job.name} waits for job {ticket} of an earlier run, which works on it"
            on_event(JobEvent(job.name, Progress("note", text=text)))

    def _poll_job(self, job: _SubmittedJob, on_event: EventHandler) -> None:
        last = _read_last_event(job.folder / LAST)  # first, so that the events are all there
        for event in self._new_events(job):
            on_event(JobEvent(job.name, event))
        if last is None and not job.ticket and (job.folder / STOP).exists():
            last = Ended(Stopped())
        elif last is not None:
            self._cluster.forget(job.ticket)
        elif job.death and time.monotonic() - job.died_at >= self._cluster.settle:
            last = job.death
        if last is None:
            return
        if output := _read_output(job.folder / LOG):
            on_event(JobEvent(job.name, Output(output)))
        del self._jobs[job.name]
        shutil.rmtree(job.folder, ignore_errors=True)
        on_event(JobEvent(job.name, last))

    def _new_events(self, job: _SubmittedJob) -> list[Event]:
        """The events that have come since the last time, of whole lines."""
        try:
            with (job.folder / EVENTS).open("rb") as file:
                file.seek(job.position)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        job.position += len(whole)
        events = map(parse_event, whole.splitlines())  # None where a line is cut off
        return [event for event in events if isinstance(event, Started | Progress | Heartbeat)]

    def _leftover_jobs(self) -> dict[str, tuple[str, Path]]:
        """Tickets and folders of jobs that other runs submitted and that may still run, by name."""
        leftover = {}
        for path in self._folder.glob(f"*/{TICKET}"):
            if (path.parent / LAST).exists():
                _remove_folder(path.parent)
                continue
            with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                name = json.loads((path.parent / JOB).read_bytes())["name"]
                leftover[name] = path.read_text(), path.parent
        return leftover


def _remove_folder(folder: Path) -> None:
    """Remove the folder of a job that is over, unless its driver may still read it."""
    with suppress(OSError):
        if time.time() - (folder / TICKET).stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _read_last_event(path: Path) -> Last | None:
    try:
        event = parse_event(path.read_bytes())
    except OSError:
        return None
    return event if isinstance(event, Ended | Died) else None


def _read_output(folder: Path) -> bytes:
    """All that is left of what a job printed."""
    path = JobLogs(folder).path("log")
    output = b""
    for part in (path.with_suffix(".log.before"), path):
        with suppress(OSError):
            output += part.read_bytes()
    return output
