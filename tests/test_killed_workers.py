"""A worker that is killed costs the suite the test that it was running, and no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

SUITE = """
import os, signal, time
import pytest

@pytest.mark.parametrize("i", range(12))
def test_killed(i):
    if i in (3, 11):
        if os.fork() == 0:
            time.sleep(600)  # holds what it has of the worker's files
        os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.xdist_group("group")
@pytest.mark.parametrize("i", range(4))
def test_killed_in_a_group(i):
    if i == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_suite_goes_on_after_workers_were_killed(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    words = ["-m", "pytest", "-q", "-p", "killed_workers", "-p", "no:cacheprovider"]
    words += ["-n", "2", "--dist", "loadgroup"]
    support = str(Path(__file__).with_name("support"))
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with (tmp_path / "output").open("w") as output:
        suite = subprocess.Popen(
            [sys.executable, *words], cwd=tmp_path, env=own | {"PYTHONPATH": support},
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        suite.wait(timeout=300)
    finally:
        os.killpg(suite.pid, signal.SIGKILL)  # with what the tests forked
    printed = (tmp_path / "output").read_text()
    assert printed.splitlines()[-1].startswith("3 failed, 13 passed"), printed
    for test in ("test_killed[3]", "test_killed[11]", "test_killed_in_a_group[1]"):
        assert f"crashed while running 'test_suite.py::{test}" in printed
