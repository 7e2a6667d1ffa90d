"""The record of every experiment, written as it ends, or once the disk has room again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..experiments.matrix import Experiment
from ..leaderboard.records import read_intact_record, record_seal, record_text
from ..store.artifact_store import StoreError
from ..store.atomic_files import atomic_write, is_disk_full
from .console import ConsoleReporter
from .retry_policies import DiskSpaceGuard


class RecordWriter:
    """Writes the records of a run, and counts its experiments.

    counts: of experiments by status, and "to_do"

    >>> import io, tempfile
    >>> from types import SimpleNamespace
    >>> from rich.console import Console
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     guard = DiskSpaceGuard(Path(folder), timeout=600.0)
    ...     reporter = ConsoleReporter(Console(file=io.StringIO()))
    ...     writer = RecordWriter(Path(folder), 2, guard, reporter)
    ...     writer.write(SimpleNamespace(name="phantom.dae.s0"), {"schema": 2, "status": "ok"})
    ...     dict(writer.counts), [path.name for path in Path(folder, "records").iterdir()]
    ({'to_do': 1, 'ok': 1}, ['phantom.dae.s0.json'])
    """

    def __init__(
        self, out: Path, count: int, disk_guard: DiskSpaceGuard, reporter: ConsoleReporter
    ) -> None:
        self._out, self._disk_guard, self._reporter = out / "records", disk_guard, reporter
        self._waiting: list[tuple[Experiment, dict[str, Any]]] = []
        self.counts: Counter[str] = Counter(to_do=count)

    @property
    def has_waiting(self) -> bool:
        """Whether some records could not be written yet."""
        return bool(self._waiting)

    def write(self, experiment: Experiment, record: dict[str, Any]) -> None:
        """Write a record with its seal; on a full disk, keep it until `retry`.

        A file that holds the same record is left alone, so a second run changes nothing. The
        attempts of an earlier run with the same artifacts stay in the record, and how it was tuned.
        A damaged file is reported and replaced.
        """
        path = self._out / f"{experiment.name}.json"
        before = read_intact_record(path)
        if "attempts" in before and before.get("keys") == record.get("keys", before):
            record.setdefault("attempts", before["attempts"])
        if "tuning" in before and before.get("keys") == record.get("keys"):
            record.setdefault("tuning", before["tuning"])
        content = json.loads(json.dumps(record))
        content["seal"] = record_seal(content)
        try:
            if before != content:
                if path.exists() and not before:
                    self._reporter.print_line(f"{path} was damaged or edited: it is written again")
                atomic_write(path, record_text(content))
        except StoreError as error:
            if not is_disk_full(error) or self._disk_guard.timed_out():
                raise
            if self._disk_guard.mark_full():
                self._reporter.print_line(f"waiting for room on the disk, then going on: {error}")
            self._waiting.append((experiment, record))
            return
        self.counts[record["status"]] += 1
        self.counts["to_do"] -= 1

    def retry(self) -> None:
        """Write the records that wait, if the disk may have room."""
        if self._waiting and self._disk_guard.may_retry():
            waiting, self._waiting = self._waiting, []
            for experiment, record in waiting:
                self.write(experiment, record)
            if not self._waiting:
                self._disk_guard.mark_free()

    def discard_waiting(self) -> None:
        """Drop the records that wait; the next run makes them again from the store."""
        self._waiting.clear()
