"""Shared by tests of the store: key inputs, damage to files, and processes that are killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from adbench.benchmark.store.marker import MARKER

KEY_INPUTS = {"train": {"args": {"lr": 1e-4, "width": 64}, "seed": 0}, "data": "abc"}


def stored_files(root: Path) -> set[str]:
    """All files below root but locks and the marker of a store."""
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {path for path in paths if not path.startswith(("locks/", MARKER))}


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def start_process(root: Path, script: str) -> subprocess.Popen[str]:
    """A process that has `store`, KEY_INPUTS and `marks`, a folder to leave marks in."""
    head = (
        "import sys, time, os\nfrom pathlib import Path\n"
        "from adbench.benchmark.store.artifact_store import Store\n"
        f"KEY_INPUTS = {KEY_INPUTS!r}\nroot = Path(sys.argv[1])\n"
        "store, marks = Store(root / 'store'), root / 'marks'\n"
    )
    (root / "marks").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", head + script, str(root)], stdout=subprocess.PIPE, text=True
    )


def wait_for_mark(root: Path, name: str, process: subprocess.Popen[str]) -> None:
    while not (root / "marks" / name).exists():
        assert process.poll() is None, "ended before it got there"
        time.sleep(0.01)
