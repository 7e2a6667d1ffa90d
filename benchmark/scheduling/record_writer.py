"""A record for every cell, written as it ends, or once the disk has room again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..experiments.matrix import Experiment
from ..store.artifact_store import StoreError
from ..store.atomic_files import atomic_write, is_disk_full
from .console import ConsoleReporter
from .retry_policies import DiskSpaceGuard


class RecordWriter:
    """The records of a run. counts: of its cells, by what became of them, and "to_do"."""

    def __init__(
        self, out: Path, count: int, disk_guard: DiskSpaceGuard, reporter: ConsoleReporter
    ) -> None:
        self._out, self._disk_guard, self._reporter = out / "records", disk_guard, reporter
        self._waiting: list[tuple[Experiment, dict[str, Any]]] = []
        self.counts: Counter[str] = Counter(to_do=count)

    @property
    def has_waiting(self) -> bool:
        """Whether some could not be written yet."""
        return bool(self._waiting)

    def write(self, experiment: Experiment, record: dict[str, Any]) -> None:
        """Write a record, or wait for room to. The file is left alone where it says the same, so
        that a second run changes nothing; what an earlier run took to get there stays told."""
        path = self._out / f"{experiment.name}.json"
        before = _read_record(path)
        if "attempts" in before and before.get("keys") == record.get("keys", before):
            record.setdefault("attempts", before["attempts"])
        try:
            if before != json.loads(text := json.dumps(record, indent=1, sort_keys=True) + "\n"):
                atomic_write(path, text)
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
        """Write what waits, if there may be room."""
        if self._waiting and self._disk_guard.may_retry():
            waiting, self._waiting = self._waiting, []
            for cell, record in waiting:
                self.write(cell, record)
            if not self._waiting:
                self._disk_guard.mark_free()

    def discard_waiting(self) -> None:
        """What waits is made again from the store by the next run."""
        self._waiting.clear()


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
