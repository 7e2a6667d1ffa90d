"""A sweep that is killed again and again, at random moments, and must not notice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

import sweeps
from adbench.benchmark.store.artifact_store import Store


def kills(count: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Kill drivers, workers and fork servers until there were `count` kills and the run is done.

    Whenever a run comes to its end, everything it left is compared with what an undisturbed one
    left, the store is verified, and it starts anew from nothing. Returns what was killed, and how
    often a run ended well. Raises AssertionError on the first difference or process left over.
    """
    torch.set_num_threads(1)
    draw = random.Random(seed)
    planned = sweeps.small_experiments(
        ["walker"], [0, 1], bumps={"size": 70}, walker={"pause": 0.01}
    )
    code, output = sweeps.run_planned(planned, folder / "whole")
    assert code == 0, output
    whole, cut = sweeps.results(folder / "whole"), folder / "cut"
    done: Counter[str] = Counter()
    while sum(done[what] for what in ("driver", "worker", "fork server")) < count or cut.exists():
        driver = forked(planned, cut)
        end = None
        while end is None:
            end = ended(driver, draw.expovariate(1 / 1.5))
            if end is None and sum(done.values()) - done["runs"] < count:
                before = below(driver)
                what = _kill(driver, draw)
                if what:
                    done[what] += 1
                if what == "driver":
                    end = ended(driver, 60)
                    assert gone(before, 60), "a process outlived its driver"
        assert end in (0, 3, -signal.SIGKILL), f"a driver ended with {end}"
        if end == 0:
            assert sweeps.results(cut) == whole
            every = list(Store(cut / "store").folders())
            assert len(every) == len(list(Store(cut / "store").artifacts(verify=True))) > 0
            shutil.rmtree(cut)
            done["runs"] += 1
    return done


def forked(planned: list[sweeps.Experiment], folder: Path) -> int:
    driver = os.fork()
    if driver == 0:
        code = 1
        try:
            with open(folder.with_suffix(".log"), "a") as log:
                os.dup2(log.fileno(), 2)
                code, output = sweeps.run_planned(planned, folder, sweeps.local(2))
                log.write(output)
        finally:
            os._exit(code)
    return driver


def ended(pid: int, seconds: float) -> int | None:
    """How it ended, if it does within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        results, status = os.waitpid(pid, os.WNOHANG)
        if results:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _kill(driver: int, draw: random.Random) -> str:
    fork_servers = children(driver)
    workers = [pid for parent in fork_servers for pid in children(parent)]
    what = draw.choices(["driver", "worker", "fork server"], [4, 5, 1])[0]
    among = {"driver": [driver], "worker": workers, "fork server": fork_servers}[what]
    if not among:
        return ""
    with suppress(ProcessLookupError):
        os.kill(draw.choice(among), signal.SIGKILL)
        return what
    return ""


def children(pid: int) -> list[int]:
    results = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            results += [int(child) for child in (task / "children").read_text().split()]
    return results


def below(pid: int) -> list[int]:
    results = children(pid)
    return results + [other for child in results for other in below(child)]


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all of these processes end within that time."""
    until = time.monotonic() + seconds
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
