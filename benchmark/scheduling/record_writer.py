"""A record for every cell, written as it ends, or once the disk has room again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..experiments.matrix import Experiment
from ..store.artifact_store import StoreError
from ..store.atomic_files import atomic_write, is_disk_full
from .console import Watch
from .retry_policies import Room


class Recording:
    """The records of a run. counts: of its cells, by what became of them, and "to_do"."""

    def __init__(self, out: Path, cells: int, room: Room, watch: Watch) -> None:
        self._out, self._room, self._watch = out / "records", room, watch
        self._waiting: list[tuple[Experiment, dict[str, Any]]] = []
        self.counts: Counter[str] = Counter(to_do=cells)

    @property
    def waits(self) -> bool:
        """Whether some could not be written yet."""
        return bool(self._waiting)

    def keep(self, cell: Experiment, record: dict[str, Any]) -> None:
        """Write a record, or wait for room to. The file is left alone where it says the same, so
        that a second run changes nothing; what an earlier run took to get there stays told."""
        path = self._out / f"{cell.name}.json"
        before = _read(path)
        if "attempts" in before and before.get("keys") == record.get("keys", before):
            record.setdefault("attempts", before["attempts"])
        try:
            if before != json.loads(text := json.dumps(record, indent=1, sort_keys=True) + "\n"):
                atomic_write(path, text)
        except StoreError as error:
            if not is_disk_full(error) or self._room.over():
                raise
            if self._room.ran_out():
                self._watch.line(f"waiting for room on the disk, then going on: {error}")
            self._waiting.append((cell, record))
            return
        self.counts[record["status"]] += 1
        self.counts["to_do"] -= 1

    def again(self) -> None:
        """Write what waits, if there may be room."""
        if self._waiting and self._room.again():
            waiting, self._waiting = self._waiting, []
            for cell, record in waiting:
                self.keep(cell, record)
            if not self._waiting:
                self._room.found()

    def forget(self) -> None:
        """What waits is made again from the store by the next run."""
        self._waiting.clear()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
