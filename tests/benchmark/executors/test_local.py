"""One process per experiment: the same results as in this one, whatever happens to some of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

import kills
from adbench.benchmark.executors import fork_server
from adbench.benchmark.executors.fork_server_main import _handle_request
from adbench.benchmark.executors.local import DeviceSlot, LocalExecutor, device_slots
from adbench.benchmark.experiments import cache_keys
from adbench.benchmark.experiments.cache_keys import evaluation_code
from adbench.benchmark.registry import code_fingerprint as fingerprint
from adbench.benchmark.registry.code_fingerprint import loaded_code_digest
from adbench.benchmark.scheduling.events import (
    Died,
    Ended,
    Heartbeat,
    JobEvent,
    Started,
    Succeeded,
)
from adbench.benchmark.scheduling.job import experiment_job
from adbench.benchmark.scheduling.status import read_status
from adbench.benchmark.store.artifact_store import Store
from adbench.engine.runtime.context import TrainingContext
from adbench.methods.healthy_mean import HealthyMean
from sweeps import local, records, results, run_planned, small_experiments


def trouble(how: str, seeds=(0,), **more: object):
    return small_experiments(
        ["trouble", "walker"], seeds, trouble={"how": how, **more}, walker={"steps": 2}
    )


def test_results_are_those_of_one_process_bit_for_bit(tmp_path: Path) -> None:
    planned = small_experiments(["walker"], [0, 1], bumps={"size": 40})
    assert run_planned(planned, tmp_path / "here")[0] == 0
    assert run_planned(planned, tmp_path / "there", local(2))[0] == 0
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert not list((tmp_path / "there/out").glob("logs/*")), "nothing was printed"


def test_a_crash_is_tried_again_and_told(tmp_path: Path) -> None:
    code, output = run_planned(trouble("crash", mark=str(tmp_path / "mark")), tmp_path, local())
    assert code == 0 and "killed by SIGSEGV (train); trying again" in output
    attempts = records(tmp_path)["trouble 0"]["attempts"]
    assert attempts == [{"ended": "killed by SIGSEGV", "at": "train"}]
    before = next(tmp_path.glob("out/records/*trouble*")).read_text()
    assert run_planned(trouble("crash", mark=str(tmp_path / "mark")), tmp_path, local())[0] == 0
    assert next(tmp_path.glob("out/records/*trouble*")).read_text() == before


@pytest.mark.parametrize(
    ("how", "phase", "reason", "attempts"),
    [
        ("crash", "fit", "killed by SIGSEGV, in the last of 3 attempts", 3),
        ("exit", "detect", "its process ended with exit code 7 before it was done", 1),
        ("quit", "fit", "SystemExit: 3", 0),
        ("raise", "detect", "ValueError: no good", 0),
    ],
)
def test_what_fails_is_a_row_and_the_rest_goes_on(
    tmp_path: Path, how: str, phase: str, reason: str, attempts: int
) -> None:
    code, _ = run_planned(trouble(how, where=phase), tmp_path, local(2))
    outcome = records(tmp_path)
    assert code == 3 and outcome["walker 0"]["status"] == "ok"
    record = outcome["trouble 0"]
    assert record["status"] == "failed" and record["reason"] == reason
    failure = record["failure"]
    assert failure["phase"] == {"fit": "train", "detect": "predict"}[phase]
    assert len(failure["attempts"]) == attempts
    assert ("Traceback" in failure["log"]) == (attempts == 0)


def test_what_hangs_and_does_not_hear_is_ended(tmp_path: Path) -> None:
    planned = small_experiments(
        ["trouble"], trouble={"how": "hang", "mark": str(tmp_path / "mark")}
    )
    code, output = run_planned(planned, tmp_path, local(), timeout=20.0, grace=0.2)
    assert code == 3 and "failed: timed out after 20 s" in output
    assert kills.gone([int((tmp_path / "mark").read_text())], 60)
    assert run_planned(planned, tmp_path, local(), timeout=600.0)[0] == 0, (
        "and is tried by the next run"
    )


def test_what_prints_without_end_fills_no_disk(tmp_path: Path) -> None:
    assert run_planned(trouble("print"), tmp_path, local())[0] == 0  # 30 MB
    (log,) = tmp_path.glob("out/logs/*")
    data = log.read_bytes()
    assert len(data) < 1.1 * 2**20 and data.endswith(b"x\n") and b"\n002999x" in data
    assert b"earlier output is left out" in data[:100] and b"\n000001x" not in data


def test_what_a_plugin_writes_to_the_pipe_of_events_is_output(tmp_path: Path) -> None:
    assert run_planned(trouble("garbage"), tmp_path, local())[0] == 0
    (log,) = tmp_path.glob("out/logs/*")
    data = log.read_bytes()
    assert data.startswith(b'what a plugin wrote\n3\n{"kind": "ended"}\n')
    assert b"\\ud800" in data and data.endswith(b"[" * 1000 + b"\n")


def test_what_is_left_behind_is_ended_with_its_cell(tmp_path: Path) -> None:
    assert run_planned(trouble("fork", mark=str(tmp_path / "mark")), tmp_path, local())[0] == 0
    assert kills.gone([int((tmp_path / "mark").read_text())], 60)


def test_ctrl_c_keeps_everything_and_the_same_command_goes_on(tmp_path: Path) -> None:
    planned = small_experiments(["walker"], [0, 1], walker={"steps": 60, "pause": 0.02})
    assert run_planned(planned, tmp_path / "whole")[0] == 0
    cut = tmp_path / "cut"
    driver = kills.forked(planned, cut)
    kept_by(cut)
    os.kill(driver, signal.SIGINT)
    assert kills.ended(driver, 120) == 130
    output = (tmp_path / "cut.log").read_text()
    assert "stopping after this step" in output and output.count("interrupted: stopped at") == 2
    assert not list(cut.glob("out/records/*"))
    (run,) = read_status(cut / "out", cut / "store").runs
    assert not run["running"] and run["counts"]["to_do"] == 2
    assert run_planned(planned, cut, local(2))[0] == 0
    assert results(cut) == results(tmp_path / "whole")
    assert read_status(cut / "out", cut / "store").runs == []


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    driver = kills.forked(trouble("hang", mark=str(tmp_path / "mark")), tmp_path / "cut")
    until(lambda: (tmp_path / "mark").exists())
    below = kills.below(driver)
    os.kill(driver, signal.SIGINT)
    assert kills.ended(driver, 1.0) is None, "it waits for the step to end"
    os.kill(driver, signal.SIGINT)
    assert kills.ended(driver, 60) == 130 and kills.gone(below, 60)


def test_nothing_outlives_a_killed_driver_and_status_tells_what_it_did(tmp_path: Path) -> None:
    planned = small_experiments(["walker"], [0], walker={"steps": 2000, "pause": 0.02})
    cut = tmp_path / "cut"
    driver = kills.forked(planned, cut)
    kept_by(cut)
    until(lambda: planned[0].name in str(read_status(cut / "out", cut / "store").runs))
    (run,) = read_status(cut / "out", cut / "store").runs
    assert run["running"] and run["pid"] == driver
    below = kills.below(driver)
    assert len(below) >= 2, "the fork server and a job"
    os.kill(driver, signal.SIGKILL)
    assert kills.ended(driver, 60) == -signal.SIGKILL and kills.gone(below, 60)
    outcome = read_status(cut / "out", cut / "store")
    lines = "\n".join(outcome.lines())
    assert "stopped" in lines and planned[0].name in lines and "the same command goes on" in lines
    (experiment,) = json.loads(json.dumps(outcome.as_dict()))["runs"][0]["experiments"]
    assert experiment["experiment"] == planned[0].name and experiment["attempt"] == 1


def test_a_few_kills_at_random_change_nothing(tmp_path: Path) -> None:
    done = kills.kills(3, tmp_path)
    assert done["runs"] >= 1


def test_slots_share_what_there_is() -> None:
    assert device_slots("cpu") == [DeviceSlot("cpu", 0)]
    assert [place.device for place in device_slots("cpu", 3)] == ["cpu"] * 3
    assert all(place.threads >= 1 for place in device_slots("cpu", 3))
    assert (
        device_slots("cuda:1", 2) == [DeviceSlot("cuda:1", device_slots("cpu", 2)[0].threads)] * 2
    )


def test_a_fork_server_finds_what_its_driver_finds(tmp_path: Path) -> None:
    """The real one, in a new Python; the other tests fork theirs."""
    (experiment,) = small_experiments(["trouble"])
    executor = LocalExecutor([DeviceSlot("cpu", 1)])
    heard: list[JobEvent] = []
    try:
        executor.start(
            experiment_job(
                experiment, TrainingContext(), Store(tmp_path / "store"), tmp_path / "out"
            )
        )
        until(lambda: executor.poll(heard.append, 0.1) or (heard and is_over(heard[-1])))
    finally:
        executor.close()
    last = heard[-1].event
    assert isinstance(heard[0].event, Started) and isinstance(last, Ended)
    assert isinstance(last.outcome, Succeeded)
    assert any(isinstance(news.event, Heartbeat) for news in heard)


def test_a_file_of_the_working_folder_stands_for_no_module_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    for name in ("json", "signal", "socket"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fork_server, "PRELOAD", ())
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    server = fork_server.ForkServer()
    server.close()
    assert server._process.returncode == 0 and not mark.exists()


def test_code_is_told_by_what_was_loaded_before_forking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is edited during a sweep changes nothing: its children run what was loaded."""
    loaded_code_digest.cache_clear()
    evaluation_code.cache_clear()
    names = [
        "adbench.methods.healthy_mean:HealthyMean",
        "adbench.benchmark.experiments.cache_keys:evaluation_code",
    ]
    here, there = socket.socketpair()
    with here, there:
        _handle_request({"import": ["no.such.module", *names]}, [], here, {})

    def edited(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(fingerprint, "code_fingerprint", edited)
    monkeypatch.setattr(cache_keys, "folder_digest", edited)
    assert len(loaded_code_digest(HealthyMean)) == len(evaluation_code()) > 0


def is_over(news: JobEvent) -> bool:
    return isinstance(news.event, Ended | Died)


def kept_by(folder: Path) -> None:
    """Wait until a training has kept a state."""
    until(lambda: any((folder / "store/resume").glob("checkpoint-*/*.safetensors")))


def until(what, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
