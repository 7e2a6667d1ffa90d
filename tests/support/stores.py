"""What tests of the store share: an identity, damage, and processes to be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

KEY_INPUTS = {"train": {"args": {"lr": 1e-4, "width": 64}, "seed": 0}, "data": "abc"}


def stored_files(root: Path) -> set[str]:
    """Everything below root but the locks."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("locks/")}


def flip_bit(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def start_process(root: Path, script: str) -> subprocess.Popen[str]:
    """A process that has `store`, WHO and `marks`, a folder to leave marks in."""
    head = (
        "import sys, time, os\nfrom pathlib import Path\n"
        "from adbench.benchmark.store.artifact_store import Store\n"
        f"WHO = {KEY_INPUTS!r}\nroot = Path(sys.argv[1])\n"
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
