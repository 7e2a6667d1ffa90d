"""What every test runs under: one thread, nothing from the network, caches of its own, no wait for
a disk."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

os.environ["HF_HUB_OFFLINE"] = "1"
# before torch is imported. Tiny tensors: more threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"  # its pool would set OpenMP's threads, too

from hypothesis import settings

from killed_workers import PIPES
from killed_workers import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler

settings.register_profile("adbench", deadline=None)  # no test is about seconds
settings.load_profile("adbench")
os.environ["PIPES_OF_THE_TESTS"] = ",".join(PIPES.values())  # for no plugin to write into


def pytest_collection_finish() -> None:
    """Leave what was imported out of every collection of garbage, here and in forked processes."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_folders() -> Iterator[Path]:
    """ADBENCH_CACHE and ADBENCH_STORE in a folder of this session; data is nowhere.

    Nothing is flushed to the disk: that keeps files through a loss of power, not a kill, and
    takes longer than all else that a small experiment does.
    """
    root = Path(tempfile.mkdtemp(prefix="adbench-tests-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADBENCH_CACHE", str(root / "cache"))
        patch.setenv("ADBENCH_STORE", str(root / "store"))
        patch.delenv("ADBENCH_DATA", raising=False)
        patch.setenv("ADBENCH_EXECUTOR", "inline")  # a new Python costs seconds; tests say "local"
        patch.setattr(os, "fsync", lambda file: None)
        # every call of a command would build all of them again, which takes 31 ms
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield root
    shutil.rmtree(root, ignore_errors=True)
