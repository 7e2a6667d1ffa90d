"""What follows from how experiments end: tried again, set aside, waited for; on any executor."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adbench.benchmark.scheduling import record_writer as recording
from adbench.benchmark.scheduling.events import (
    Died,
    DiskFull,
    Ended,
    Failed,
    JobEvent,
    JobOutcome,
    Started,
    Stopped,
)
from adbench.benchmark.scheduling.executor import EventHandler
from adbench.benchmark.scheduling.job import Job, JobContext, experiment_job
from adbench.benchmark.scheduling.retry_policies import (
    CircuitBreaker,
    DiskSpaceGuard,
    RetryHistory,
    with_half_batch,
)
from adbench.benchmark.scheduling.worker import run_job
from adbench.benchmark.store.artifact_store import Store, StoreError
from adbench.engine.runtime.context import TrainingContext
from sweeps import records, results, run_planned, small_experiments

KILLED = Died(signal=9)
STARVED = Died(signal=9, out_of_memory=True)
FULL = DiskFull("predict", "No space left on device")


class Scripted:
    """Ends jobs as it is told, by the name of their method, one fate after another; then works."""

    slots = 1

    def __init__(self, **fates: Sequence[Died | JobOutcome]) -> None:
        self.fates = {name: list(inputs) for name, inputs in fates.items()}
        self.jobs, self.started = list[Job](), list[Job]()
        self.asked: list[str] = []

    def start(self, job: Job) -> None:
        self.jobs.append(job)
        self.started.append(job)

    def poll(self, on_event: EventHandler, seconds: float) -> None:
        for job in self.jobs[:]:
            self.jobs.remove(job)
            fates = self.fates.get(job.method or "prepare", [])
            on_event(JobEvent(job.name, Started()))
            fate = fates.pop(0) if fates else run_job(job, lambda event, facts: None)
            on_event(JobEvent(job.name, fate if isinstance(fate, Died) else Ended(fate)))

    def request_stop(self, name: str) -> None:
        self.asked.append(name)

    def kill(self, name: str) -> None: ...

    def close(self) -> None: ...

    def runs(self, name: str) -> list[JobContext]:
        """The contexts in which experiments of a method were started."""
        return [job.context for job in self.started if job.method == name]


def failed(exception: str) -> Failed:
    return Failed("train", exception, f"Trace of {exception}")


def test_a_lost_process_is_tried_twice_more(tmp_path: Path) -> None:
    code, output = run_planned(
        small_experiments(["trouble"]), tmp_path, Scripted(trouble=[KILLED, KILLED])
    )
    assert code == 0 and output.count("killed by SIGKILL") == 2
    attempts = records(tmp_path)["trouble 0"]["attempts"]
    assert [attempt["ended"] for attempt in attempts] == ["killed by SIGKILL"] * 2
    executor = Scripted(trouble=[KILLED] * 9)
    assert run_planned(small_experiments(["trouble"]), tmp_path / "b", executor)[0] == 3
    assert len(executor.runs("trouble")) == 3


def test_an_exit_code_and_an_exception_are_not_tried_again(tmp_path: Path) -> None:
    for fate in (Died(code=1), failed("ValueError: no")):
        executor = Scripted(trouble=[fate])
        assert run_planned(small_experiments(["trouble"]), tmp_path, executor)[0] == 3
        assert len(executor.runs("trouble")) == 1
    record = records(tmp_path)["trouble 0"]
    assert record["failure"] == {
        "phase": "train",
        "exception": "ValueError: no",
        "attempts": [],
        "log": "Trace of ValueError: no",
    }
    assert record["dataset"]["synthetic"] and record["method"]["supervision"] == "normal"


def test_what_the_kernel_kills_for_memory_gets_half_the_batch_once(tmp_path: Path) -> None:
    executor = Scripted(trouble=[STARVED])
    code, output = run_planned(small_experiments(["trouble"]), tmp_path, executor)
    assert code == 0 and "trying again, with half the batch" in output
    assert [(run.batch, run.micro) for run in executor.runs("trouble")] == [
        (32, None),
        (16, 16),
    ]
    (attempt,) = records(tmp_path)["trouble 0"]["attempts"]
    assert attempt["batch"] == 32 and "not enough memory" in attempt["ended"]
    assert (
        run_planned(
            small_experiments(["trouble"]), tmp_path / "b", Scripted(trouble=[STARVED] * 2)
        )[0]
        == 3
    )


def test_half_of_a_training_batch_is_half_of_what_was_tried(tmp_path: Path) -> None:
    (experiment,) = small_experiments(["walker"])
    experiment = replace(experiment, method_args={"batch": 16})
    job = experiment_job(experiment, TrainingContext(batch=64), Store(tmp_path), tmp_path)
    once = with_half_batch(job)
    assert (once.context.batch, once.context.micro) == (32, 8)
    assert with_half_batch(once).context.micro == 4
    smallest = replace(job, context=replace(job.context, batch=1, micro=1))
    assert with_half_batch(smallest) == smallest


def test_a_method_that_fails_alike_twice_is_set_aside(tmp_path: Path) -> None:
    fates = [failed("ValueError: a"), failed("ValueError: b"), failed("ValueError: a")]
    executor = Scripted(trouble=fates)
    planned = small_experiments(["trouble"], range(5)) + small_experiments(["walker"])
    code, output = run_planned(planned, tmp_path, executor)
    outcome = records(tmp_path)
    assert code == 3 and len(executor.runs("trouble")) == 3
    assert output.count("set aside after 2 experiments") == 3, (
        "said once, and of the two experiments left"
    )
    reason = "set aside after 2 experiments of it failed alike: ValueError: a"
    assert [outcome[f"trouble {seed}"]["reason"] for seed in (3, 4)] == [reason] * 2
    assert outcome["walker 0"]["status"] == "ok"


def test_one_cell_that_fails_twice_sets_nothing_aside() -> None:
    breaker = CircuitBreaker()
    assert not breaker.record_failure("m", "experiment", "no") and not breaker.record_failure(
        "m", "experiment", "no"
    )
    assert not breaker.record_failure("other", "experiment 2", "no") and not breaker.open_reason(
        "m"
    )
    assert (
        breaker.record_failure("m", "experiment 2", "no")
        and breaker.open_reason("m")
        and not breaker.open_reason("n")
    )


def test_a_full_disk_is_waited_for_and_said_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(DiskSpaceGuard, "STEP", 0.0)
    executor = Scripted(trouble=[FULL] * 3)
    code, output = run_planned(small_experiments(["trouble"]), tmp_path, executor)
    assert code == 0 and output.count("waiting for room on the disk") == 1
    assert "attempts" not in records(tmp_path)["trouble 0"]


def test_a_disk_that_stays_full_is_a_row(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(DiskSpaceGuard, "STEP", 0.0)
    executor = Scripted(trouble=[FULL] * 10**6)
    code, _ = run_planned(small_experiments(["trouble"]), tmp_path, executor, disk_timeout=0.05)
    assert code == 3 and "No space left" in records(tmp_path)["trouble 0"]["reason"]


def test_room_is_tried_when_there_is_more_of_it_or_after_a_while(
    tmp_path: Path, monkeypatch
) -> None:
    now, free = [0.0], [10]
    monkeypatch.setattr(DiskSpaceGuard, "_free_bytes", lambda self: free[0])
    room = DiskSpaceGuard(tmp_path, 100.0, lambda: now[0])
    assert not room.is_full and room.mark_full() and room.is_full and not room.may_retry()
    free[0] += DiskSpaceGuard.MORE
    assert room.may_retry() and not room.mark_full() and not room.may_retry()
    now[0] = DiskSpaceGuard.STEP
    assert room.may_retry() and not room.timed_out()
    now[0] = 100.0
    assert room.timed_out()
    room.mark_free()
    assert not room.is_full and not room.timed_out() and room.mark_full()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), None])
def test_a_record_that_finds_no_room_is_written_later(
    tmp_path: Path, monkeypatch, error: OSError | None
) -> None:
    monkeypatch.setattr(DiskSpaceGuard, "STEP", 0.0)
    real: Callable[..., None] = recording.atomic_write
    left = [3]

    def short(path: Path, data: Any) -> None:
        if path.suffix == ".json" and path.parent.name == "records" and left[0]:
            left[0] -= 1
            raise StoreError(f"cannot write {path}: no") from error
        real(path, data)

    monkeypatch.setattr(recording, "atomic_write", short)
    if error is None:  # a folder that cannot be written gets no better by waiting
        with pytest.raises(StoreError):
            run_planned(small_experiments(["trouble"]), tmp_path, Scripted())
        return
    code, output = run_planned(small_experiments(["trouble"]), tmp_path, Scripted())
    assert code == 0 and left == [0] and output.count("waiting for room on the disk") == 1
    assert records(tmp_path)["trouble 0"]["status"] == "ok"


def test_a_dataset_whose_making_ready_crashes_is_tried_again_or_fails_its_cells(
    tmp_path: Path,
) -> None:
    planned = small_experiments(["trouble", "walker"])
    assert run_planned(planned, tmp_path / "a", Scripted(prepare=[KILLED]))[0] == 0
    assert (
        run_planned(planned, tmp_path / "b", Scripted(prepare=[failed("ValueError: bug")]))[0] == 3
    )
    outcome = records(tmp_path / "b")
    assert {r["failure"]["phase"] for r in outcome.values()} == {"train"} and len(outcome) == 2
    assert {r["reason"] for r in outcome.values()} == {"ValueError: bug"}


def test_bad_data_is_no_row_and_exit_5(tmp_path: Path) -> None:
    code, output = run_planned(small_experiments(["walker"], bumps={"broken": True}), tmp_path)
    assert code == 5 and "2 of 3 files are unusable" in output and records(tmp_path) == {}


def test_a_signal_from_elsewhere_is_a_death_and_tried_again(tmp_path: Path) -> None:
    fate = Stopped("stopped at training step 3 of 9")
    code, _ = run_planned(small_experiments(["walker"]), tmp_path, Scripted(walker=[fate]))
    assert code == 0
    assert records(tmp_path)["walker 0"]["attempts"][0]["ended"] == "killed by SIGINT"


def test_a_second_run_leaves_every_file_alone(tmp_path: Path) -> None:
    planned = small_experiments(["trouble", "walker"])
    run_planned(planned, tmp_path, Scripted(walker=[KILLED]))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    whole = results(tmp_path)
    assert run_planned(planned, tmp_path, Scripted())[0] == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p in before} == before
    assert results(tmp_path) == whole
    assert not (tmp_path / "out/running").exists()


def test_attempts_are_json_and_tell_where(tmp_path: Path) -> None:
    tries = RetryHistory()
    lost = Died(reason="the host went away", lost=True)
    assert tries.record_death(Died(signal=11), "train 12/180", 32) == ""
    assert tries.record_death(lost, "predict test 32/70", 32) == ""
    reason = tries.record_death(Died(signal=64), "evaluate", 32)
    assert reason == "killed by SIGRTMAX, in the last of 3 attempts"
    assert json.loads(json.dumps(tries.attempts))[1] == {
        "ended": "the host went away",
        "at": "predict test 32/70",
    }
