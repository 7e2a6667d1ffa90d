"""What a user sees of a run: lines in a pipe, a table on a terminal; pace and time left."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from adbench.benchmark.scheduling import console as live
from adbench.benchmark.scheduling.console import ConsoleReporter, duration_text, progress_table
from adbench.benchmark.scheduling.events import Heartbeat, progress_event
from adbench.benchmark.scheduling.job_logs import MAX_BYTES, TAIL_BYTES, JobLogs
from adbench.benchmark.scheduling.job_progress import JobProgress


def reporter_and_output(terminal: bool = False) -> tuple[ConsoleReporter, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, color_system=None)
    return ConsoleReporter(console), output


def train(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "of": 100, **more}


def test_pace_and_time_left_are_those_of_the_phase() -> None:
    job = JobProgress("experiment", 1)
    job.on_progress(progress_event("train", train(10)), 100.0)
    assert job.seconds_per_step() is None and job.seconds_left() is None, "one step tells no pace"
    job.on_progress(progress_event("train", train(30, loss=0.5)), 110.0)
    job.on_heartbeat(Heartbeat(1500.0), 150.0)
    assert job.seconds_per_step() == pytest.approx(0.5) and job.seconds_left() == pytest.approx(
        35.0
    )
    assert job.location == "train 30/100" and job.loss == 0.5
    job.on_progress(progress_event("predict", {"part": "test", "step": 32, "of": 64}), 160.0)
    assert (
        job.location == "predict test 32/64" and job.seconds_per_step() is None and job.loss is None
    )
    output = job.as_dict(170.0)
    assert output["silent_seconds"] == 10.0 and output["memory_mb"] == 1500.0


def test_a_phase_without_steps_is_told_by_its_name() -> None:
    job = JobProgress("experiment", 1)
    job.on_progress(progress_event("train", train(10)), 1.0)
    job.on_progress(progress_event("oom", {"at": 3, "micro": 2}), 2.0)
    assert job.location == "train 10/100"
    job.on_progress(progress_event("phase", {"phase": "evaluate"}), 3.0)
    assert job.location == "evaluate" and job.seconds_left() is None


def test_a_pipe_gets_a_line_per_stage_and_every_fifteen_seconds(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    reporter, output = reporter_and_output()
    for step in range(100):
        now[0] += 0.5
        reporter.on_progress("a", progress_event("train", train(step, loss=0.25)))
    reporter.on_progress("a", progress_event("train", train(100)))
    reporter.on_progress("a", progress_event("checkpoint", {"fresh": False, "key": "x"}))
    reporter.on_progress("a", progress_event("phase", {"phase": "predict"}))
    reporter.draw([JobProgress("a", 1)], {"to_do": 1})
    lines = output.getvalue().splitlines()
    assert lines[0] == "a  train  0/100  loss 0.2500" and len(lines) == 4 + 1 + 1
    assert lines[-2:] == ["a  train  100/100", "a  checkpoint  cached"]


def test_memory_and_notes_are_always_told_and_notes_once() -> None:
    for terminal in (False, True):
        reporter, output = reporter_and_output(terminal)
        for _ in range(2):
            reporter.on_progress("a", progress_event("note", {"text": "set aside as [x]"}))
        reporter.on_progress("a", progress_event("oom", {"micro": 8}))
        assert output.getvalue().count("note: set aside as [x]") == 1
        assert "a  out of memory: going on with 8 rows at a time" in output.getvalue()


def test_a_terminal_shows_a_table_that_goes_away() -> None:
    job = JobProgress("bumps.walker.tiny.s0", 2, started=0.0)
    job.on_progress(progress_event("predict", {"part": "test", "step": 32, "of": 128}), 10.0)
    job.on_progress(progress_event("predict", {"part": "test", "step": 64, "of": 128}), 26.0)
    job.on_heartbeat(Heartbeat(800.0, 9200.0), 26.0)
    drawn = io.StringIO()
    console = Console(file=drawn, width=140, force_terminal=True, color_system=None)
    console.print(progress_table([job], {"to_do": 3, "ok": 2, "failed": 0}, 30.0))
    shown = drawn.getvalue()
    for part in (
        "(attempt 2)",
        "predict test",
        "64/128",
        "0.50",
        "9.2 GB",
        "0:32",
        "3 to do, 2 ok",
    ):
        assert part in shown
    assert "3 to do, 2 ok" in shown
    assert "failed" not in shown
    console.print(progress_table([job], {}, 100.0))
    assert "silent 1:14" in drawn.getvalue()
    reporter, output = reporter_and_output(terminal=True)
    reporter.draw([job], {"ok": 1})
    reporter.print_line("a [b] line")
    reporter.close()
    reporter.print_line("after")
    assert "predict test" in output.getvalue() and "a [b] line" in output.getvalue()


def test_progress_outside_a_run_is_shown_both_ways() -> None:
    for terminal in (False, True):
        reporter, output = reporter_and_output(terminal)
        with reporter.progress_of("prepare x") as progress:
            progress("read", 1, 2)
            progress("read", 2, 2)
        assert terminal or "prepare x  read  2/2" in output.getvalue()


def test_spans_are_read_as_clocks() -> None:
    assert [duration_text(s) for s in (None, 5, 130, 3900)] == ["", "0:05", "2:10", "1:05:00"]


def test_a_log_keeps_its_end_and_is_begun_anew_by_a_new_run(tmp_path) -> None:
    logs = JobLogs(tmp_path)
    assert logs.tail("a") == "" and not list(tmp_path.iterdir()), "nothing is made for nothing"
    for i in range(400):
        logs.add("a", b"%05d" % i + b"." * 9994 + b"\n")
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * MAX_BYTES
    logs.close("a")
    data = logs.path("a").read_bytes()
    assert MAX_BYTES <= len(data) < MAX_BYTES + 100 and data.count(b"\n") in (105, 106, 107)
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
    logs.add("a", "déjà vu\n".encode())
    assert logs.tail("a").endswith("déjà vu\n") and len(logs.tail("a")) <= TAIL_BYTES
    JobLogs(tmp_path).add("a", b"new\n")
    assert logs.path("a").read_bytes() == b"new\n"


def test_a_log_that_cannot_be_written_is_no_error(tmp_path) -> None:
    (tmp_path / "logs").touch()
    logs = JobLogs(tmp_path / "logs")
    logs.add("a", b"x")
    logs.close("a")
    assert logs.tail("a") == ""
