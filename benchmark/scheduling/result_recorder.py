"""What becomes of an experiment: its record, the end of its log, and a line for the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..experiments.matrix import Experiment
from ..leaderboard.records import plain_text
from .console import ConsoleReporter
from .events import Failed
from .job_logs import JobLogs
from .printable import shorten
from .record_writer import RecordWriter
from .retry_policies import DiskSpaceGuard

REASON_LENGTH = 300
"""Letters of a reason in a record at most; its log has the rest."""


class ResultRecorder:
    """Writes how experiments ended into records and logs, and reports it.

    writer: of the records, which counts them
    logs: what the jobs print

    >>> import io, tempfile
    >>> from types import SimpleNamespace
    >>> from rich.console import Console
    >>> experiment = SimpleNamespace(name="phantom.dae.s0")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reporter = ConsoleReporter(Console(file=io.StringIO()))
    ...     guard = DiskSpaceGuard(Path(folder), timeout=600.0)
    ...     recorder = ResultRecorder(Path(folder), 2, guard, reporter)
    ...     recorder.skipped(experiment, {"schema": 2}, "takes samples of 2 axes")
    ...     dict(recorder.writer.counts)
    {'to_do': 1, 'skipped': 1}
    """

    def __init__(
        self, out: Path, count: int, disk_guard: DiskSpaceGuard, reporter: ConsoleReporter
    ) -> None:
        self._out, self._reporter = out, reporter
        self.writer = RecordWriter(out, count, disk_guard, reporter)
        self.logs = JobLogs(out / "logs")

    def succeeded(
        self, experiment: Experiment, record: dict[str, Any], attempts: Sequence[dict[str, Any]]
    ) -> None:
        """Write the record of an experiment that ended well, with how earlier attempts ended."""
        if attempts:
            record["attempts"] = attempts
        self.writer.write(experiment, record)
        self._reporter.print_result(experiment.name, record)

    def skipped(self, experiment: Experiment, header: dict[str, Any], reason: str) -> None:
        """Write the record of an experiment that cannot be run on its dataset."""
        reason = shorten(plain_text(reason), REASON_LENGTH)
        self._reporter.print_line(f"{experiment.name}  skipped: {reason}")
        self.writer.write(experiment, header | {"status": "skipped", "reason": reason})

    def failed(
        self,
        experiment: Experiment,
        header: dict[str, Any],
        failure: Failed,
        attempts: Sequence[dict[str, Any]],
        job: str,
    ) -> str:
        """Write the record of an experiment that failed, and return the reason that it has.

        job: that failed: the experiment's own, or that of its dataset
        """
        tail, log = self.logs.tail(job), self.logs.path(job)
        log_hint = f"… (log: {log.relative_to(self._out)})" if tail else "…"
        reason = shorten(plain_text(failure.exception), REASON_LENGTH, log_hint)
        fields = {
            "status": "failed",
            "reason": reason,
            "failure": {
                "phase": plain_text(failure.phase),
                "exception": reason,
                "attempts": attempts,
                "log": tail,
            },
        }
        self.writer.write(experiment, header | fields)
        names_log = not tail or reason.endswith(log_hint)
        self._reporter.print_failure(
            experiment.name, reason if names_log else f"{reason} (log: {log})"
        )
        return reason
