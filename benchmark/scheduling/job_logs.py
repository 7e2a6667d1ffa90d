"""Log files: what jobs print and how they failed, in one file each that cannot fill a disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

MAX_BYTES = 2**20
"""Bytes of a job's output that are kept: the last ones."""

TAIL_BYTES = 4000
"""Bytes of a log that go into a record: the last ones."""


class JobLogs:
    """A folder of logs, each begun anew by a run that adds to it. While a job runs, at most twice
    `max_bytes` lie there, in two files. A full disk costs the log, not the job.

    >>> from pathlib import Path
    >>> from adbench.benchmark.scheduling.job_logs import JobLogs
    >>> JobLogs(Path("logs")).path("mvtec/hazelnut").name
    'mvtec-hazelnut.log'
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._sizes: dict[str, int] = {}

    def path(self, name: str) -> Path:
        """The file of a job."""
        return self._folder / f"{name.replace('/', '-')}.log"

    def add(self, name: str, data: bytes | str) -> None:
        """Append output of a job to its file."""
        data = data.encode(errors="backslashreplace") if isinstance(data, str) else data
        path = self.path(name)
        with suppress(OSError):
            if name not in self._sizes:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._previous_file(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                self._sizes[name] = 0
            elif self._sizes[name] + len(data) > self._max_bytes:
                path.replace(self._previous_file(path))
                self._sizes[name] = 0
            data = data[-self._max_bytes :]
            with path.open("ab") as file:
                file.write(data)
            self._sizes[name] += len(data)

    def close(self, name: str) -> None:
        """Put the last `max_bytes` into one file; more may still be added."""
        path = self.path(name)
        before = self._previous_file(path)
        with suppress(OSError):
            if name in self._sizes and before.exists():
                data = before.read_bytes() + path.read_bytes()
                path.write_bytes(b"[earlier output is left out]\n" + data[-self._max_bytes :])
                before.unlink()
                self._sizes[name] = self._max_bytes

    def tail(self, name: str) -> str:
        """The end of what a job printed in this run."""
        if name not in self._sizes:
            return ""
        try:
            data = self.path(name).read_bytes()
        except OSError:
            return ""
        text = data[-TAIL_BYTES:].decode(errors="replace")
        return text if len(data) <= TAIL_BYTES else text[text.find("\n") + 1 :] or text

    def _previous_file(self, path: Path) -> Path:
        return path.with_suffix(".log.before")
