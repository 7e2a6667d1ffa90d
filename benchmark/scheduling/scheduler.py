"""A run of many cells that cannot be lost: what is started when, and what follows from how it ends.

A cell that fails is a row; one whose process dies is tried again; a method whose cells fail alike
is set aside; a full disk is waited for; Ctrl-C once finishes the step, twice ends at once. Whatever
happens, what was done is in the store, and the same command goes on.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...engine.runtime.context import TrainingContext
from ..executors.launch import Executor, News, by_dataset
from ..experiments.matrix import Experiment
from ..experiments.record import record_header
from ..experiments.tensorboard import TensorBoardError
from ..store.artifact_store import Store
from .console import Watch
from .exit_codes import FAILED, NO_DATA, STOPPED
from .job import Job, Outcome, described, preparing
from .job_logs import Logs
from .job_progress import Doing
from .record_writer import Recording
from .retry_policies import Breaker, Room, Tries, halved
from .run_state import State
from .work_sharing import Helpers

TICK = 0.2
"""Seconds that are waited for news at most."""


@dataclass
class _Group:
    """Cells on one dataset, which is made ready once before them. heads: what their records say
    anyway; cells: yet to be done."""

    cells: deque[Experiment]
    state: str = "new"  # new, preparing, ready
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)


class Sweep:
    """timeout: seconds a cell may take, None for any. grace: between asking one to stop that is
    late, and ending it. patience: how long a full disk is waited for."""

    def __init__(
        self,
        cells: Sequence[Experiment],
        run: TrainingContext,
        store: Store,
        out: Path,
        watch: Watch,
        executor: Executor,
        curves: Path | None = None,
        *,
        timeout: float | None = None,
        grace: float = 10.0,
        patience: float = 600.0,
    ) -> None:
        self._run, self._store, self._out, self._curves = run, store, out, curves
        self._watch, self._executor = watch, executor
        self._timeout, self._grace = timeout, grace
        self._alone = run.team.size == 1  # a team goes through every cell once, in one order
        self._groups = [_Group(deque(group)) for _, group in by_dataset(cells)]
        self._of = {cell.name: (cell, group) for group in self._groups for cell in group.cells}
        self._doing: dict[str, Doing] = {}
        self._jobs: dict[str, Job] = {}
        self._tries: dict[str, Tries] = {}
        self._breaker, self._helpers = Breaker(), Helpers()
        self._room = Room(store.root, patience)
        self._records = Recording(out, len(self._of), self._room, watch)
        self._logs, self._state = Logs(out / "logs"), State(out)
        self._code = 0
        self._stopped = False
        self._stop: Callable[[], bool] = bool

    def run(self, stop: Callable[[], bool]) -> int:
        """Until all is done, or `stop` says so; the exit code."""
        self._stop = lambda: self._stopped or stop()
        ended = False
        try:
            while self._doing or self._records.waits or (self._more() and not self._stop()):
                if self._stop():
                    self._ask_all()
                    self._records.forget()
                else:
                    self._fill()
                self._executor.listen(self._hear, TICK)
                self._late()
                self._records.again()
                self._show()
            ended = not self._more()
            return self._code if ended else STOPPED
        except KeyboardInterrupt:
            for name in list(self._doing):
                self._executor.kill(name)
            self._watch.line(
                "ended at once: what was kept before is there, the same command goes on"
            )
            return STOPPED
        finally:
            self._executor.close()
            self._watch.close()
            self._show(now=True)
            if ended:
                self._state.close()

    def _more(self) -> bool:
        return any(group.cells for group in self._groups)

    # what is started

    def _fill(self) -> None:
        if len(self._doing) == self._executor.slots and self._waits():
            for name in self._helpers:  # a cell of its own comes before help
                self._ask(self._doing[name])
        while len(self._doing) < self._executor.slots:
            if self._room.short and (self._doing or not self._room.again()):
                return
            job = self._next() or self._helpers.next(self._doing, self._jobs)
            if job is None:
                return
            name = job["name"]
            self._jobs[name] = job
            tries = self._tries.setdefault(name, Tries())
            self._doing[name] = Doing(name, len(tries.attempts) + 1, heard=time.monotonic())
            self._executor.start(job)

    def _waits(self) -> bool:
        """Whether there is something to start, were there a slot."""
        return any(group.state != "preparing" and group.cells for group in self._groups)

    def _next(self) -> Job | None:
        """The first cell whose dataset is ready, or a dataset that is not."""
        for group in self._groups:
            if group.state == "new" and group.cells:
                group.state = "preparing"
                return self._fitted(preparing(list(group.cells), self._run))
            while group.state == "ready" and group.cells:
                cell = group.cells.popleft()
                if self._alone and (reason := self._breaker.aside(cell.method.name)):
                    self._fail(cell, {"phase": "none", "exception": reason})
                    continue
                job = described(cell, self._run, self._store, self._out, self._curves)
                return self._fitted(job)
        return None

    def _fitted(self, job: Job) -> Job:
        tries = self._tries.get(job["name"])
        return halved(job) if tries and tries.starved else job

    def _again(self, name: str) -> None:
        if name in self._of:
            cell, group = self._of[name]
            group.cells.appendleft(cell)
        else:
            self._group(name).state = "new"

    # what is heard

    def _hear(self, news: News) -> None:
        job, now = self._doing.get(news.job), time.monotonic()
        if job is None:
            return
        if news.what == "begun":
            job.begun = job.heard = now
        elif news.what == "told":
            event, facts = news.facts["event"], news.facts["facts"]
            job.tell(event, facts, now)
            self._watch.tell(news.job, event, facts)
        elif news.what == "alive":
            job.alive(news.facts, now)
        elif news.what == "output":
            self._logs.add(news.job, news.facts["bytes"])
        else:
            del self._doing[news.job]
            self._watch.end(news.job)
            for helper in self._helpers.of(news.job):
                self._executor.kill(helper)
            ended = self._died if news.what == "died" else self._ended
            ended = self._helped if self._helpers.ended(news.job) else ended
            ended(news.job, dict(news.facts), job)
            self._logs.close(news.job)
        self._show()

    def _ended(self, name: str, outcome: Outcome, job: Doing) -> None:
        end = outcome["end"]
        if end == "full" and self._alone and not self._room.over():
            if self._room.ran_out():
                self._watch.line(f"waiting for room on the disk, then going on: {outcome['said']}")
            self._again(name)
            return
        self._room.found()
        if end == "prepared":
            self._is_ready(self._group(name), outcome)
        elif end == "no-data":
            group = self._group(name)
            self._watch.failed(group.cells[0].dataset.name, outcome["said"])
            self._records.counts["to_do"] -= len(group.cells)
            group.cells.clear()
            self._code = NO_DATA
        elif end == "ok":
            self._done(self._of[name][0], outcome["record"])
        elif end == "refused":
            raise TensorBoardError(outcome["said"])
        elif end != "stopped":
            said = outcome.get("exception") or outcome["said"]
            self._logs.add(name, outcome.get("trace", said).encode())
            self._over(name, {"phase": outcome["phase"], "exception": said})
        elif job.late:
            self._over(name, self._too_late(job))
        elif self._stop() or not self._alone:
            self._interrupted(name, outcome["said"])
        else:  # somebody else sent it a signal
            self._died(name, {"signal": int(signal.SIGINT)}, job)

    def _helped(self, name: str, outcome: Outcome, job: Doing) -> None:
        """However it ended: the cell goes on alone, and its own job finds what is wrong."""
        if trace := outcome.get("trace"):
            self._logs.add(name, trace.encode())

    def _died(self, name: str, facts: dict[str, Any], job: Doing) -> None:
        tries = self._tries[name]
        rows = self._jobs[name]["run"]["batch"]
        reason = tries.died(facts | {"batch": rows if facts.get("memory") else None}, job.where)
        if job.late:
            self._over(name, self._too_late(job))
        elif self._stop():
            self._interrupted(name, "")
        elif reason:
            self._over(name, {"phase": job.phase, "exception": reason})
        else:
            rest = ", with half the batch" if facts.get("memory") else ""
            said = tries.attempts[-1]["ended"]
            self._watch.line(f"{name}  {said} ({job.where}); trying again{rest}")
            self._again(name)

    def _ask_all(self) -> None:
        for job in self._doing.values():
            self._ask(job)

    def _ask(self, job: Doing) -> None:
        """Once."""
        if job.asked is None:
            job.asked = time.monotonic()
            self._executor.ask(job.name)

    def _late(self) -> None:
        """Ask whatever is over its time to stop; end what was asked and does not."""
        now = time.monotonic()
        for job in list(self._doing.values()):
            if self._timeout is None or job.begun is None or job.name not in self._of:
                continue
            if job.late and job.asked is not None and now - job.asked >= self._grace:
                self._executor.kill(job.name)
            elif job.asked is None and now - job.begun >= self._timeout:
                job.late = True
                self._ask(job)

    def _too_late(self, job: Doing) -> dict[str, Any]:
        said = f"timed out after {self._timeout:g} s"
        self._tries[job.name].attempts.append({"ended": said, "at": job.where})
        return {"phase": job.phase, "exception": said}

    def _interrupted(self, name: str, said: str) -> None:
        said = said or ("what is prepared is kept" if name not in self._of else name)
        self._watch.line(f"interrupted: {said}; the same command goes on")
        self._stopped = True
        self._again(name)

    # what comes of it

    def _group(self, name: str) -> _Group:
        """The one whose dataset this job makes ready."""
        return self._of[self._jobs[name]["names"][0]][1]

    def _is_ready(self, group: _Group, outcome: Outcome) -> None:
        group.state, group.heads = "ready", outcome["heads"]
        cells, group.cells = list(group.cells), deque()
        for cell in cells:
            reason = outcome["unfit"].get(cell.name)
            if not reason:
                group.cells.append(cell)
            elif cell.implicit_baseline:
                self._records.counts["to_do"] -= 1
            else:
                self._watch.line(f"{cell.name}  skipped: {reason}")
                head = group.heads[cell.name]
                self._records.keep(cell, head | {"status": "skipped", "reason": reason})

    def _done(self, cell: Experiment, record: dict[str, Any]) -> None:
        if attempts := self._tries[cell.name].attempts:
            record["attempts"] = attempts
        self._records.keep(cell, record)
        self._watch.done(cell.name, record)

    def _over(self, name: str, failure: Mapping[str, Any]) -> None:
        """A job failed for good: a cell, or every cell of a dataset that cannot be made ready."""
        if name in self._of:
            self._fail(self._of[name][0], failure)
            return
        group = self._group(name)
        for cell in group.cells:
            self._fail(cell, failure, name)
        group.cells.clear()

    def _fail(self, cell: Experiment, failure: Mapping[str, Any], job: str = "") -> None:
        job = job or cell.name
        reason, tail = failure["exception"], self._logs.tail(job)
        tries = self._tries.get(job, Tries())
        head = self._of[cell.name][1].heads.get(cell.name)
        head = head or record_header(cell, None, cell.method.load(), "failed")
        told = {**failure, "attempts": tries.attempts, "log": tail}
        self._records.keep(cell, head | {"status": "failed", "reason": reason, "failure": told})
        self._code = self._code or FAILED
        self._watch.failed(cell.name, f"{reason} (log: {self._logs.path(job)})" if tail else reason)
        if job == cell.name and failure["phase"] != "none" and self._alone:
            aside = self._breaker.failed(cell.method.name, cell.name, reason)
            if aside:
                self._watch.line(f"{cell.method.name}  {aside}")

    def _show(self, *, now: bool = False) -> None:
        doing = list(self._doing.values())
        counts = dict(self._records.counts) | {"doing": sum(job.name in self._of for job in doing)}
        counts["to_do"] -= counts["doing"]
        self._watch.show(doing, counts)
        said = "waiting for room on the disk" if self._room.short else ""
        self._state.write(doing, counts, said, now=now)
