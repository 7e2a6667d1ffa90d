"""The state of a run for other processes: one small file, written anew every second.

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
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ..store.artifact_store import StoreError, atomic_write
from .job_progress import JobProgress

WRITE_INTERVAL = 1.0
"""Seconds between two writings."""

FOLDER = "running"

Pid = Annotated[int, Meta(ge=1, lt=2**31)]


class _JobState(Struct):
    """The fields of a running job that `adbench status` shows (JobProgress.as_dict)."""

    experiment: str
    phase: str
    part: str | None
    step: float
    of: float
    seconds_each: float | None
    seconds_left: float | None
    silent_seconds: float
    memory_mb: float | None
    gpu_mb: float | None
    attempt: int


class _StateFile(Struct):
    """The fields of a state file."""

    host: str
    pid: Pid
    written: float
    counts: dict[str, int]
    message: str
    experiments: list[_JobState]


class RunState:
    """Writes the state file of a run. Where the disk cannot be written, the run goes on without it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     RunState(Path(folder)).write([], {"ok": 2}, now=True)
    ...     [(_, state)] = read_run_states(Path(folder))
    ...     state["counts"], state["running"]
    ({'ok': 2}, True)
    """

    def __init__(self, out: Path) -> None:
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._path = out / FOLDER / f"{self._host}-{self._pid}.json"
        self._wrote, self._begun = 0.0, time.time()
        ended = [path for path, state in read_run_states(out) if not state["running"]]
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
        """Write the state, once a second at most; at once if `now`.

        counts: of experiments by status        message: what the run waits for; empty for nothing
        """
        clock = time.monotonic()
        if not now and clock - self._wrote < WRITE_INTERVAL:
            return
        self._wrote = clock
        state = {
            "host": self._host,
            "pid": self._pid,
            "began": self._begun,
            "written": time.time(),
            "counts": dict(counts),
            "message": message,
            "experiments": [job.as_dict(clock) for job in running],
        }
        with suppress(StoreError, OSError):  # also if another run took it for left over
            atomic_write(self._path, json.dumps(state, indent=1))

    def close(self) -> None:
        """Remove the file of a run that came to its end: its records say everything."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._path.parent.rmdir()


def read_run_states(out: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the state files in a folder of results, by path.

    Each has two more keys: `running`, whether the process lives (on another host: whether it wrote
    within a minute), and `age`, seconds since it wrote.

    >>> from pathlib import Path
    >>> from adbench.benchmark.scheduling.run_state import read_run_states
    >>> read_run_states(Path("/no/such/folder"))
    []
    """
    states = []
    for path in sorted((out / FOLDER).glob("[!.]*.json")):
        if path.name.startswith("."):  # being written
            continue
        try:
            state = json.loads(path.read_bytes())
            fields = msgspec.convert(state, _StateFile)
        except (OSError, ValueError, RecursionError):  # replaced meanwhile, or not ours
            continue
        age = max(0.0, time.time() - fields.written)
        is_here = fields.host == socket.gethostname()
        running = _process_is_alive(fields.pid) if is_here else age < 60
        states.append((path, state | {"age": age, "running": running}))
    return states


def _process_is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
