"""What runs, what is done and what was left unfinished, read from the files of runs and a store.

A lock that is held is work of a living process; a folder under `resume` whose lock nobody holds was
left by one that was stopped, and the same command goes on from it. A run also writes its state
every second; when it died, the state is its last.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..leaderboard.records import (
    Record,
    ReportError,
    metric_value,
    number_text,
    plain_text,
    read_records,
)
from ..store.leases import is_locked
from .run_state import read_run_states

SILENT_SECONDS = 60.0
"""Seconds without a sign of life after which a job is shown as silent."""

STATUS_NAMES = {
    "stage": "training a stage",
    "checkpoint": "training",
    "maps": "predicting",
    "record": "evaluating",
}


@dataclass(frozen=True)
class PartialWork:
    """Something unfinished in a store.

    what: training (a stage) | predicting | evaluating
    key: of the artifact that it creates
    running: whether a process holds its lock
    parts: number of shards of predictions, or states of training, that are stored
    size: of them, in bytes
    age: seconds since something was last stored; None where nothing was

    >>> work = PartialWork("predicting", "0123456789ab", False, parts=3, size=2_000_000, age=90.0)
    >>> Status([], [work]).lines()[-1]
    '  left     predicting 01234567  3 kept, 2.0 MB, last 2 min ago; the same command goes on'
    """

    what: str
    key: str
    running: bool
    parts: int
    size: int
    age: float | None


@dataclass(frozen=True)
class Status:
    """The records, the unfinished work and the runs of a folder of results and a store.

    runs: their states (run_state.py)

    >>> record = {"file": "phantom.dae.s0.json", "status": "failed", "reason": "ValueError: no"}
    >>> for line in Status([record], []).lines():
    ...     print(line)
    1 failed records; 0 running, 0 left
      failed   phantom.dae.s0  ValueError: no
    """

    records: list[Record]
    work: list[PartialWork]
    runs: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "records": [
                {
                    "file": record.get("file"),
                    "status": record["status"],
                    "reason": record["reason"],
                    "image_auroc": metric_value(record, "image_auroc"),
                    "pixel_ap": metric_value(record, "pixel_ap"),
                }
                for record in self.records
            ],
            "work": [asdict(work) for work in self.work],
            "runs": self.runs,
        }

    def lines(self) -> list[str]:
        """All of it as lines for a terminal."""
        counts = Counter(str(record["status"]) for record in self.records)
        records = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        running = sum(work.running for work in self.work)
        lines = [f"{records or 'no'} records; {running} running, {len(self.work) - running} left"]
        for run in self.runs:
            lines += _run_lines(run)
        lines += [_record_line(record) for record in self.records]
        lines += [_partial_work_line(work) for work in self.work]
        return [plain_text(line) for line in lines]


def read_status(out: Path, store: Path) -> Status:
    """Return the status of a folder of results and a store; neither need be there.

    >>> from pathlib import Path
    >>> from adbench.benchmark.scheduling.status import read_status
    >>> read_status(Path("/no/such/folder"), Path("/no/such/store")).lines()
    ['no records; 0 running, 0 left']
    """
    try:
        records: list[Record] = list(read_records(out / "records"))
    except ReportError:
        records = []
    return Status(records, _partial_work(store), [state for _, state in read_run_states(out)])


def _partial_work(store: Path) -> list[PartialWork]:
    """The unfinished work of a store: running first, then what was left, the latest first."""
    unfinished = []
    names = {
        path.stem
        for path in (store / "locks").glob("*.lock")
        if not _is_complete(store, path.stem) and is_locked(path, if_unknown=False)
    }
    names |= {path.name for path in (store / "resume").glob("*") if path.is_dir()}
    now = time.time()
    for name in sorted(names):
        kind, _, key = name.partition("-")
        times, size, states = [], 0, 0
        for path in (store / "resume" / name).glob("*"):
            try:
                facts = path.stat()
            except OSError:  # replaced meanwhile
                continue
            times.append(facts.st_mtime)
            size += facts.st_size
            states += path.suffix == ".json"
        running = is_locked(store / "locks" / f"{name}.lock", if_unknown=False)
        if running or states:
            age = max(0.0, now - max(times)) if times else None
            what = STATUS_NAMES.get(kind, kind)
            unfinished.append(PartialWork(what, key, running, states, size, age))
    return sorted(unfinished, key=lambda work: (not work.running, work.age or 0.0, work.key))


def _is_complete(store: Path, name: str) -> bool:
    """Whether the artifact of a lock is there: its lock file stays, and is not asked for."""
    kind, _, key = name.partition("-")
    return os.path.isdir(f"{store}/{kind}/{key[:2]}/{key}")


def _run_lines(run: dict[str, Any]) -> list[str]:
    """The line of a run, then one of each of its jobs."""
    counts = ", ".join(
        f"{count} {what.replace('_', ' ')}" for what, count in run["counts"].items() if count
    )
    who = f"{run['host']} process {run['pid']}"
    if run["running"]:
        waits = f", {run['message']}" if run["message"] else ""
        lines = [f"  run      {who}: {counts}{waits}; heard {_age_text(run['age'])} ago"]
    else:
        lines = [
            f"  stopped  {who}, {_age_text(run['age'])} ago: {counts}; the same command goes on"
        ]
    return lines + [_job_line(job) for job in run["experiments"]]


def _job_line(job: dict[str, Any]) -> str:
    line = " ".join(filter(None, (job["phase"], job["part"])))
    if job["of"]:
        line += f" {job['step']:.0f}/{job['of']:.0f}"
    if job["seconds_each"] is not None:
        line += f", {job['seconds_each']:.2g} s each"
    if job["seconds_left"]:
        line += f", {_age_text(job['seconds_left'])} left"
    if (amount := job["gpu_mb"] or job["memory_mb"]) is not None:
        line += f", {amount / 1e3:.1f} GB"
    if job["attempt"] > 1:
        line += f", attempt {job['attempt']}"
    if job["silent_seconds"] >= SILENT_SECONDS:
        line += f", silent for {_age_text(job['silent_seconds'])}"
    return f"    {job['experiment']}  {line}"


def _record_line(record: Record) -> str:
    name = str(record.get("file", "?")).removesuffix(".json")
    if record["status"] != "ok":
        reason = " ".join(str(record["reason"]).split())
        return f"  {record['status']:<8} {name}  {reason}"
    figures = "  ".join(
        f"{word} {number_text(value)}"
        for word, metric in (("image AUROC", "image_auroc"), ("pixel AP", "pixel_ap"))
        if (value := metric_value(record, metric)) is not None
    )
    return f"  {'ok':<8} {name}  {figures}"


def _partial_work_line(work: PartialWork) -> str:
    states = f"{work.parts} kept, {work.size / 1e6:.1f} MB" if work.parts else "nothing kept yet"
    if work.age is not None:
        states += f", last {_age_text(work.age)} ago"
    state = "running" if work.running else "left"
    after = "" if work.running else "; the same command goes on"
    return f"  {state:<8} {work.what} {work.key[:8]}  {states}{after}"


def _age_text(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
