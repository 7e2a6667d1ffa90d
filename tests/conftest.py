"""What every test runs under: one thread, nothing from the network, caches of its own."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"  # its pool would set OpenMP's threads, too

import torch
from hypothesis import settings

settings.register_profile("adbench", deadline=None)  # no test is about seconds
settings.load_profile("adbench")
torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


def pipes() -> list[str]:
    """The inodes of all pipes that are open: those of xdist, into which no plugin may write."""
    inodes = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            status = os.fstat(int(name))
            inodes += [str(status.st_ino)] * stat.S_ISFIFO(status.st_mode)
    return inodes


os.environ["PIPES_OF_THE_TESTS"] = ",".join(pipes())


@pytest.fixture(scope="session", autouse=True)
def own_folders() -> Iterator[Path]:
    """ADBENCH_CACHE and ADBENCH_STORE in a folder of this session; data is nowhere."""
    root = Path(tempfile.mkdtemp(prefix="adbench-tests-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADBENCH_CACHE", str(root / "cache"))
        patch.setenv("ADBENCH_STORE", str(root / "store"))
        patch.delenv("ADBENCH_DATA", raising=False)
        patch.setenv("ADBENCH_EXECUTOR", "inline")  # a new Python costs seconds; tests say "local"
        yield root
    shutil.rmtree(root, ignore_errors=True)
