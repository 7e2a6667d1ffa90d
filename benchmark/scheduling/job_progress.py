"""The progress of a running job: for the table of a run and for `adbench status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .events import Heartbeat, Progress


@dataclass
class JobProgress:
    """How far a running job is. Times are in seconds of one clock that never goes back.

    phase: starting, prepare, train, predict, evaluate     part: of the data, where a phase has any
    step, total: how far a phase is     started: when its process ran, None before
    last_heartbeat: when it last gave a sign of life     stop_requested: when it was asked to stop,
    None if not
    timed_out: whether it was asked because its time is over

    >>> from adbench.benchmark.scheduling.events import Progress
    >>> from adbench.benchmark.scheduling.job_progress import JobProgress
    >>> job = JobProgress("phantom.dae", attempt=1)
    >>> job.on_progress(Progress("train", step=10, of=100), 0.0)
    >>> job.on_progress(Progress("train", step=30, of=100), 10.0)
    >>> job.location, job.seconds_per_step(), job.seconds_left()
    ('train 30/100', 0.5, 35.0)
    """

    name: str
    attempt: int
    started: float | None = None
    last_heartbeat: float = 0.0
    stop_requested: float | None = None
    timed_out: bool = False
    phase: str = "starting"
    part: str = ""
    step: float = 0
    total: float = 0
    loss: float | None = None
    memory_mb: float | None = None
    gpu_mb: float | None = None
    _first: tuple[float, float] | None = None  # a step of this phase, and when
    _last: float = 0.0

    def on_progress(self, progress: Progress, now: float) -> None:
        """Take over an event of the engine."""
        self.last_heartbeat = now
        event = progress.event
        if event == "phase":
            self._enter(progress.phase, "")
        elif progress.step is not None and progress.of is not None and event != "oom":
            phase = event if event in ("train", "predict") else "prepare"
            self._enter(phase, progress.part or ("" if phase != "prepare" else event))
            self.step, self.total = progress.step, progress.of
            self.loss, self._last = progress.loss, now
            self._first = self._first or (self.step, now)

    def on_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        """Take over the memory that a sign of life reports."""
        self.last_heartbeat = now
        self.memory_mb = self.memory_mb if heartbeat.memory_mb is None else heartbeat.memory_mb
        self.gpu_mb = self.gpu_mb if heartbeat.gpu_mb is None else heartbeat.gpu_mb

    @property
    def location(self) -> str:
        """Such as "train 12/180", for a sentence."""
        phase = " ".join(part for part in (self.phase, self.part) if part)
        return f"{phase} {self.step:.0f}/{self.total:.0f}" if self.total else phase

    def seconds_per_step(self) -> float | None:
        """Seconds that a step, or a predicted sample, takes; None before a second one."""
        if self._first is None or self.step <= self._first[0] or self._last <= self._first[1]:
            return None
        return (self._last - self._first[1]) / (self.step - self._first[0])

    def seconds_left(self) -> float | None:
        """Seconds until this phase ends, at this pace."""
        each = self.seconds_per_step()
        return None if each is None else max(0.0, (self.total - self.step) * each)

    def as_dict(self, now: float) -> dict[str, Any]:
        """The progress as JSON values. now: the time of the clock"""
        return {
            "experiment": self.name,
            "phase": self.phase,
            "part": self.part or None,
            "step": self.step,
            "of": self.total,
            "loss": self.loss,
            "seconds_each": self.seconds_per_step(),
            "seconds_left": self.seconds_left(),
            "seconds": now - self.started if self.started is not None else 0.0,
            "silent_seconds": max(0.0, now - self.last_heartbeat),
            "memory_mb": self.memory_mb,
            "gpu_mb": self.gpu_mb,
            "attempt": self.attempt,
        }

    def _enter(self, phase: str, part: str) -> None:
        if (phase, part) != (self.phase, self.part):
            self.phase, self.part, self.loss, self._first = phase, part, None, None
            self.step = self.total = 0
