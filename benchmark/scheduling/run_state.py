"""What a run that goes on tells other processes: one small file, written anew every second.

It lies in the folder of results while the run goes on, and stays there when the run is interrupted
or dies; the next run there takes it away, as does a run that comes to its end.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..store.artifact_store import StoreError, atomic_write
from .job_progress import JobProgress

WRITE_INTERVAL = 1.0
"""Seconds between two writings."""

FOLDER = "running"


class RunState:
    """The file of one run. A disk that cannot be written loses the view, not the run."""

    def __init__(self, out: Path) -> None:
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._path = out / FOLDER / f"{self._host}-{self._pid}.json"
        self._wrote, self._begun = 0.0, time.time()
        ended = [path for path, told in read_run_states(out) if not told["running"]]
        for path in [*ended, *(out / FOLDER).glob(".*")]:  # the latter were being written
            with suppress(OSError):
                path.unlink()

    def write(
        self,
        running: Iterable[JobProgress],
        counts: Mapping[str, int],
        message: str = "",
        *,
        now: bool = False,
    ) -> None:
        """counts: of cells, by what became of them. message: what the run waits for, if it does."""
        clock = time.monotonic()
        if not now and clock - self._wrote < WRITE_INTERVAL:
            return
        self._wrote = clock
        told = {
            "host": self._host,
            "pid": self._pid,
            "began": self._begun,
            "written": time.time(),
            "counts": dict(counts),
            "said": message,
            "doing": [job.as_dict(clock) for job in running],
        }
        with suppress(StoreError, OSError):  # also if another run took it for left over
            atomic_write(self._path, json.dumps(told, indent=1))

    def close(self) -> None:
        """The run came to its end: its records say everything."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._path.parent.rmdir()


def read_run_states(out: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every run there is a file of, with what the file does not say: `running`, whether its
    process lives (on another host: whether it wrote within a minute), and `age`, seconds since it
    was written."""
    found = []
    for path in sorted((out / FOLDER).glob("[!.]*.json")):
        if path.name.startswith("."):  # being written
            continue
        try:
            told = json.loads(path.read_bytes())
            age = max(0.0, time.time() - float(told["written"]))
            here = told["host"] == socket.gethostname()
            told["running"] = _process_is_alive(int(told["pid"])) if here else age < 60
            found.append((path, told | {"age": age}))
        except (OSError, ValueError, KeyError, TypeError):  # replaced meanwhile, or not ours
            continue
    return found


def _process_is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
