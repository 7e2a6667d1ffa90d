"""What is running, what is done and what was left half-way, as far as the files tell.

A lock that is held is work of a living process; a folder under `resume` whose lock nobody holds was
left by one that was stopped, and the same command goes on from it. A run also says itself what it
is at, every second; when it died, that is what it said last.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..leaderboard.records import Record, ReportError, metric_value, number_text, read_records
from ..store.leases import is_locked
from .run_state import read_run_states

SILENT_SECONDS = 60.0
"""Seconds without a sign of life that are worth telling."""

STATUS_NAMES = {
    "stage": "training a stage",
    "checkpoint": "training",
    "maps": "predicting",
    "record": "evaluating",
}


@dataclass(frozen=True)
class PartialWork:
    """Something unfinished in a store.

    what: training (a stage) | predicting | evaluating     key: of the artefact it makes
    running: whether a process holds its lock
    kept: shards of predictions, or states of training, that are kept     size: of them, in bytes
    age: seconds since something was last kept; None where nothing was
    """

    what: str
    key: str
    running: bool
    kept: int
    size: int
    age: float | None


@dataclass(frozen=True)
class Status:
    """runs: what they said of themselves (state.py)"""

    records: list[Record]
    work: list[PartialWork]
    runs: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
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
        counts = Counter(str(record["status"]) for record in self.records)
        said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        running = sum(work.running for work in self.work)
        lines = [f"{said or 'no'} records; {running} running, {len(self.work) - running} left"]
        for run in self.runs:
            lines += _run_lines(run)
        lines += [_record_line(record) for record in self.records]
        lines += [_partial_work_line(work) for work in self.work]
        return lines


def read_status(out: Path, store: Path) -> Status:
    """Of a folder of results and a store; neither need be there."""
    try:
        records: list[Record] = list(read_records(out / "records"))
    except ReportError:
        records = []
    return Status(records, _partial_work(store), [told for _, told in read_run_states(out)])


def _partial_work(store: Path) -> list[PartialWork]:
    """Running first, then what was left, the latest first."""
    found = []
    names = {
        path.stem for path in (store / "locks").glob("*.lock") if is_locked(path, if_unknown=False)
    }
    names |= {path.name for path in (store / "resume").glob("*") if path.is_dir()}
    now = time.time()
    for name in sorted(names):
        kind, _, key = name.partition("-")
        times, size, kept = [], 0, 0
        for path in (store / "resume" / name).glob("*"):
            try:
                facts = path.stat()
            except OSError:  # replaced meanwhile
                continue
            times.append(facts.st_mtime)
            size += facts.st_size
            kept += path.suffix == ".json"
        running = is_locked(store / "locks" / f"{name}.lock", if_unknown=False)
        if running or kept:
            age = max(0.0, now - max(times)) if times else None
            found.append(PartialWork(STATUS_NAMES.get(kind, kind), key, running, kept, size, age))
    return sorted(found, key=lambda work: (not work.running, work.age or 0.0, work.key))


def _run_lines(run: dict[str, Any]) -> list[str]:
    """Of one run, then of each cell it is at."""
    counts = ", ".join(
        f"{count} {what.replace('_', ' ')}" for what, count in run["counts"].items() if count
    )
    who = f"{run['host']} process {run['pid']}"
    if run["running"]:
        waits = f", {run['said']}" if run["said"] else ""
        lines = [f"  run      {who}: {counts}{waits}; heard {_age_text(run['age'])} ago"]
    else:
        lines = [
            f"  stopped  {who}, {_age_text(run['age'])} ago: {counts}; the same command goes on"
        ]
    return lines + [_job_line(cell) for cell in run["doing"]]


def _job_line(cell: dict[str, Any]) -> str:
    said = " ".join(filter(None, (cell["phase"], cell["part"])))
    if cell["of"]:
        said += f" {cell['step']:.0f}/{cell['of']:.0f}"
    if cell["seconds_each"] is not None:
        said += f", {cell['seconds_each']:.2g} s each"
    if cell["seconds_left"]:
        said += f", {_age_text(cell['seconds_left'])} left"
    if (amount := cell["gpu_mb"] or cell["memory_mb"]) is not None:
        said += f", {amount / 1e3:.1f} GB"
    if cell["attempt"] > 1:
        said += f", attempt {cell['attempt']}"
    if cell["silent_seconds"] >= SILENT_SECONDS:
        said += f", silent for {_age_text(cell['silent_seconds'])}"
    return f"    {cell['experiment']}  {said}"


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
    said = f"{work.kept} kept, {work.size / 1e6:.1f} MB" if work.kept else "nothing kept yet"
    if work.age is not None:
        said += f", last {_age_text(work.age)} ago"
    state = "running" if work.running else "left"
    after = "" if work.running else "; the same command goes on"
    return f"  {state:<8} {work.what} {work.key[:8]}  {said}{after}"


def _age_text(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
