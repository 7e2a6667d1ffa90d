"""What the files of a run tell while it goes on and after it was stopped."""

from __future__ import annotations

import json
import os
import time

from filelock import FileLock

from adbench.benchmark.scheduling.events import progress_event
from adbench.benchmark.scheduling.job_progress import JobProgress
from adbench.benchmark.scheduling.run_state import RunState
from adbench.benchmark.scheduling.status import read_status
from records import missing, record


def write_partial_state(store, name, count=1, age=0.0):
    folder = store / "resume" / name
    folder.mkdir(parents=True)
    for k in range(count):
        for suffix, text in (("json", "{}"), ("abc.safetensors", "x" * 500)):
            path = folder / f"shard-{k}.{suffix}"
            path.write_text(text)
            os.utime(path, (time.time() - age, time.time() - age))


def test_records_are_told_with_their_figures_or_reasons(tmp_path):
    (tmp_path / "records").mkdir()
    for name, built in (("a", record("A")), ("b", missing("B", reason="no\nmemory"))):
        (tmp_path / "records" / f"{name}.json").write_text(json.dumps(built))
    (tmp_path / "records" / "c.json").write_text("{")
    results = read_status(tmp_path, tmp_path / "store")
    lines = results.lines()
    assert lines[0] == "1 broken, 1 failed, 1 ok records; 0 running, 0 left"
    assert "image AUROC 0.432  pixel AP 0.500" in lines[1] and "failed" in lines[2]
    assert "no memory" in lines[2]
    output = json.loads(json.dumps(results.as_dict()))
    assert [each["status"] for each in output["records"]] == ["ok", "failed", "broken"]


def test_what_holds_its_lock_runs_and_what_does_not_was_left(tmp_path):
    write_partial_state(tmp_path, "maps-aaaa", count=3, age=7200)
    write_partial_state(tmp_path, "checkpoint-bbbb")
    (tmp_path / "locks").mkdir()
    for name in ("maps-aaaa", "record-cccc", "maps-dddd"):
        (tmp_path / "locks" / f"{name}.lock").touch()
    with (
        FileLock(tmp_path / "locks" / "checkpoint-bbbb.lock"),
        FileLock(tmp_path / "locks" / "record-cccc.lock"),
    ):
        results = read_status(tmp_path, tmp_path)
        work = {(w.what, w.key): w for w in results.work}
        assert set(work) == {("predicting", "aaaa"), ("training", "bbbb"), ("evaluating", "cccc")}
        assert [w.running for w in results.work] == [True, True, False]
        left = work["predicting", "aaaa"]
        assert (left.parts, left.size) == (3, 3 * 502) and 7100 < (left.age or 0) < 7300
        assert "3 kept, 0.0 MB, last 2 h ago; the same command goes on" in "\n".join(
            results.lines()
        )
    assert not any(w.running for w in read_status(tmp_path, tmp_path).work)
    FileLock(tmp_path / "locks" / "maps-dddd.lock").acquire(timeout=0)  # asking held nothing


def test_nothing_at_all_is_told_too(tmp_path):
    results = read_status(tmp_path / "none", tmp_path / "nowhere")
    assert results.lines() == ["no records; 0 running, 0 left"] and not list(tmp_path.iterdir())


def test_a_run_says_what_it_is_at_and_what_it_was_at_when_it_died(tmp_path, monkeypatch):
    job = JobProgress("bumps.walker.s0", 2, started=time.monotonic() - 60)
    job.on_progress(
        progress_event("predict", {"part": "test", "step": 0, "of": 64}), time.monotonic() - 40
    )
    job.on_progress(
        progress_event("predict", {"part": "test", "step": 32, "of": 64}), time.monotonic() - 8
    )
    RunState(tmp_path).write(
        [job], {"to_do": 3, "ok": 2, "failed": 0}, "waiting for room", now=True
    )
    run, experiment = read_status(tmp_path, tmp_path / "store").lines()[1:]
    assert run.startswith("  run ") and f"process {os.getpid()}: 3 to do, 2 ok, waiting" in run
    assert experiment.endswith("predict test 32/64, 1 s each, 32 s left, attempt 2")
    monkeypatch.setattr(
        "adbench.benchmark.scheduling.run_state._process_is_alive", lambda pid: False
    )
    output = read_status(tmp_path, tmp_path / "store").lines()[1]
    assert output.startswith("  stopped ") and "the same command goes on" in output
    RunState(tmp_path)  # the next run takes it away
    assert read_status(tmp_path, tmp_path / "store").runs == []


def test_a_run_elsewhere_lives_as_long_as_it_writes(tmp_path, monkeypatch):
    state = RunState(tmp_path)
    state.write([], {"to_do": 1}, now=True)
    (path,) = (tmp_path / "running").glob("*.json")
    output = json.loads(path.read_text()) | {"host": "another", "pid": 1}
    path.write_text(json.dumps(output))
    assert read_status(tmp_path, tmp_path / "store").runs[0]["running"]
    path.write_text(json.dumps(output | {"written": time.time() - 90}))
    assert not read_status(tmp_path, tmp_path / "store").runs[0]["running"]
    path.write_text("{")
    assert read_status(tmp_path, tmp_path / "store").runs == []
    path.write_text(json.dumps(output))
    path.rename(path.with_name(".1234abcd.another-1.json"))  # half-way through being written
    assert read_status(tmp_path, tmp_path / "store").runs == []
    RunState(tmp_path)
    assert not list((tmp_path / "running").iterdir())


def test_a_run_writes_once_a_second_and_clears_up(tmp_path):
    state = RunState(tmp_path)
    for count in range(50):
        state.write([], {"to_do": count})
    (run,) = read_status(tmp_path, tmp_path / "store").runs
    assert run["counts"] == {"to_do": 0}
    state.close()
    assert not (tmp_path / "running").exists()
    (tmp_path / "running").touch()  # where nothing can be written, the run goes on
    state.write([], {"to_do": 1}, now=True)
