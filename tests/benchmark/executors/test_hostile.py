"""What a plugin says, writes and starts: it costs its own experiment, never the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import hostile_plugins
import kills
import sweeps
from adbench.benchmark.executors.fork_server import MARKER, ForkServer, _kill_marked
from adbench.benchmark.experiments.matrix import expand_matrix
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.leaderboard.records import read_records
from adbench.benchmark.registry.registry import Registry, RegistryError
from adbench.benchmark.scheduling.printable import error_reason
from adbench.benchmark.scheduling.status import read_status
from sweeps import PLUGIN, local, records, run_planned


def planned(how: str, **more: Any) -> list[sweeps.Experiment]:
    """The hostile method, and one that works."""
    files = [PLUGIN / name for name in ("registry.yaml", "trouble.yaml", "hostile.yaml")]
    settings = {"hostile": {"how": how, **more}, "walker": {"steps": 2}}
    config = RunConfig(["hostile", "walker"], ["bumps"], "tiny", settings=settings, baselines=False)
    return expand_matrix(config, Registry.read(*files))


REASONS = {
    "surrogate": "ValueError: no file a\\udcff.png",
    "escape": "ValueError: \\x1b]0;title\\x07 red \\x1b[31m",
    "second line": "RuntimeError: the cause stands in the second line",
    "colon": "RuntimeError: Error(s) in loading Grows: size mismatch for bank: 1",
    "bare": "ValueError",
    "broken": "RuntimeError: no text",
}


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("how", [*REASONS, "long"])
def test_every_reason_says_something_and_can_be_printed(
    tmp_path: Path, how: str, inline: bool
) -> None:
    code, printed = run_planned(planned(how), tmp_path, None if inline else local())
    by_name = records(tmp_path)
    assert code == 3 and by_name["walker 0"]["status"] == "ok"
    reason = by_name["hostile 0"]["reason"]
    if how == "long":
        log = next(tmp_path.glob("out/logs/*"))
        assert reason.startswith("ValueError: xxx") and len(reason) == 300
        assert reason.endswith(f"… (log: logs/{log.name})") and "x" * 5000 in log.read_text()
    else:
        assert reason == REASONS[how]
    assert "\x1b" not in printed and f"failed: {reason}" in printed
    printed.encode()
    assert {record["status"] for record in read_records(tmp_path / "out/records")} == {
        "failed",
        "ok",
    }
    assert "\x1b" not in "".join(read_status(tmp_path / "out", tmp_path / "store").lines())


def test_every_way_to_fail_while_it_is_imported_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, (code, reason) in hostile_plugins.IMPORTS.items():
        (tmp_path / f"{name}.py").write_text(code, errors="surrogatepass")
        path = tmp_path / f"{name}.yaml"
        path.write_text(f'methods: {{bad: {{class: "{name}.py:Bad", about: "x"}}}}')
        with pytest.raises(RegistryError, match=reason) as caught:
            Registry.read(path).method("bad").load()
        assert len(str(caught.value).splitlines()) == 1


QUICK = ["fake-record", "global-rng", "write-into-x"]
"""Behaviours of hostile_plugins that could change the numbers of others and end by themselves, few
since each costs seconds; its main() runs all of them."""


def test_sound_methods_beside_hostile_ones_have_their_own_numbers(tmp_path: Path) -> None:
    _, printed, wrong = hostile_plugins.run_all(tmp_path, QUICK, local(2))
    assert wrong == [], printed


@pytest.mark.parametrize("inline", [False, True])
def test_an_event_of_a_plugins_own_is_no_end(tmp_path: Path, inline: bool) -> None:
    code, printed = run_planned(planned("event"), tmp_path, None if inline else local())
    assert code == 0, printed


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"end": "ok", "record": {}}, "the record does not fit its schema"),
        ({"end": "ok", "record": {"schema": 2, "status": "ok"}}, "the record does not fit"),
        ({"end": "prepared", "headers": {}, "incompatible": {}}, "another kind of job"),
        ({"end": "helped", "samples": 3}, "another kind of job"),
        ({"end": "no-data", "reason": "x"}, "another kind of job"),
        ({"end": "failed", "phase": "\x1b", "exception": "\x1b[2J"}, "\\x1b[2J"),
        ({"end": "ok"}, "exit code 0 before it was done"),
        (["ok"], "exit code 0 before it was done"),
    ],
)
def test_an_outcome_that_a_plugin_wrote_is_a_row(
    tmp_path: Path, outcome: object, reason: str
) -> None:
    line = json.dumps({"kind": "ended", "outcome": outcome})
    code, printed = run_planned(planned(line), tmp_path, local())
    by_name = records(tmp_path)
    assert code == 3 and by_name["walker 0"]["status"] == "ok", printed
    assert reason in by_name["hostile 0"]["reason"]
    assert {record["status"] for record in read_records(tmp_path / "out/records")} == {
        "failed",
        "ok",
    }


@pytest.mark.parametrize("how", ["sessions", "crash with sessions"])
def test_processes_in_their_own_sessions_end_with_their_job(tmp_path: Path, how: str) -> None:
    code, printed = run_planned(planned(how, mark=str(tmp_path / "mark")), tmp_path, local())
    assert code == 0, printed
    pids = list(map(int, (tmp_path / "mark").read_text().split()))
    assert len(pids) == 4 and kills.gone(pids, 10)


def test_they_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    experiments = planned("sleep with sessions", mark=str(tmp_path / "mark"))
    driver = kills.forked(experiments, tmp_path / "cut")
    wait_for(tmp_path / "mark")
    pids = list(map(int, (tmp_path / "mark").read_text().split()))
    below = kills.below(driver)
    os.kill(driver, signal.SIGKILL)
    assert kills.ended(driver, 60) == -signal.SIGKILL
    assert len(pids) == 4 and kills.gone([*pids, *below], 60)


def test_they_end_with_a_fork_server_that_is_killed() -> None:
    """What is left has its environment."""
    bystander = subprocess.Popen(["sleep", "600"], env=os.environ | {MARKER: "another"})
    orphan = subprocess.Popen(["sleep", "600"], env=os.environ | {MARKER: "mine"})
    try:
        _kill_marked("mine")
        assert orphan.wait(10) == -signal.SIGKILL and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        orphan.kill()
    server = ForkServer()
    try:
        path, environment = Path(f"/proc/{server._process.pid}/environ"), b""
        while not environment and server._process.poll() is None:  # for a moment it has none
            environment = path.read_bytes()
        assert f"{MARKER}={server._mark}".encode() in environment.split(b"\0")
    finally:
        server.close()


def test_one_that_kills_the_fork_server_fails_alone(tmp_path: Path) -> None:
    """Its neighbour, which would die with it each time, has its last attempt without others."""
    experiments = planned("kill the parent")
    slow = sweeps.small_experiments(["walker"], walker={"steps": 200, "pause": 0.02})
    code, printed = run_planned([experiments[0], *slow], tmp_path, local(2))
    by_name = records(tmp_path)
    assert code == 3 and by_name["walker 0"]["status"] == "ok", printed
    reason = "lost its parent process, in the last of 3 attempts"
    assert by_name["hostile 0"]["reason"] == reason
    assert len(by_name["walker 0"]["attempts"]) <= 2


def test_sigterm_keeps_everything_as_ctrl_c_does(tmp_path: Path) -> None:
    experiments = sweeps.small_experiments(["walker"], [0], walker={"steps": 60, "pause": 0.02})
    driver = kills.forked(experiments, tmp_path / "cut")
    until = time.monotonic() + 120
    while not any((tmp_path / "cut/store/resume").glob("checkpoint-*/*.safetensors")):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(driver, signal.SIGTERM)
    assert kills.ended(driver, 120) == 130
    printed = (tmp_path / "cut.log").read_text()
    assert "stopping after this step" in printed and "interrupted: stopped at" in printed


def test_sigterm_while_a_run_starts_is_an_interrupt() -> None:
    script = (
        "import os, signal\n"
        "from adbench.benchmark.scheduling.signals import interrupt_on_sigterm\n"
        "try:\n"
        "    with interrupt_on_sigterm():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "except KeyboardInterrupt:\n"
        "    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\n"
        "    raise SystemExit(130)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 130


def test_a_run_needs_no_main_thread(tmp_path: Path) -> None:
    codes: list[int] = []
    experiments = sweeps.small_experiments(["walker"], walker={"steps": 2})
    for executor in (None, local()):
        folder = tmp_path / str(executor is None)
        thread = threading.Thread(
            target=lambda where=executor, to=folder: codes.append(
                run_planned(experiments, to, where)[0]
            )
        )
        thread.start()
        thread.join(300)
    assert codes == [0, 0]


def test_a_reason_is_one_line_whatever_the_message() -> None:
    assert error_reason(KeyError("a")) == "KeyError: 'a'"
    assert error_reason(ValueError("a:\n\n b:\n c\n d")) == "ValueError: a: b: c"
    assert error_reason(ValueError("only:")) == "ValueError: only:"
    assert error_reason(ValueError(" \n\t"), name_type=False) == "ValueError"


def wait_for(path: Path, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
