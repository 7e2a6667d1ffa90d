"""Which processes work on a store, and since when: what they have used since then must stay.

A run trains, looks for hours, and then opens what it found or made in the beginning, holding the
lock of what it makes now and no other. So every process that makes or recalls something in a store
holds a lock of its own, whose file tells when it began; it lets go when it ends, however it ends.
"""

from __future__ import annotations

import os
import platform
import re
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_leases: dict[tuple[int, str], object] = {}


def lease_folder(root: Path) -> Path:
    return root / "locks" / "alive"


def hold_lease(root: Path) -> None:
    """Say that this process works on the store, until it ends. A store that cannot be written is
    one that nothing is removed from: there it says nothing."""
    me = os.getpid(), str(root)
    if me in _leases:
        return
    from filelock import FileLock

    host = re.sub(r"[^\w-]", "_", platform.node())[:64]
    with suppress(OSError):
        lease_folder(root).mkdir(parents=True, exist_ok=True)
        for name in (f"{host}-{me[0]}", uuid4().hex):  # two containers may share host and number
            path = lease_folder(root) / f"{name}.lock"
            lock = FileLock(path)
            with suppress(TimeoutError):
                lock.acquire(timeout=0)
                os.utime(path)
                _leases[me] = lock
                return


def earliest_lease(root: Path) -> float | None:
    """When the oldest process that works on the store began, but for this one; None if none does.

    0 where its clock and ours disagree: then it may have used anything.
    """
    began = []
    mine = getattr(_leases.get((os.getpid(), str(root))), "lock_file", None)
    for path in lease_folder(root).glob("*.lock"):
        if str(path) != mine and is_locked(path):
            with suppress(OSError):
                since = path.stat().st_mtime
                began.append(since if since <= time.time() + 1 else 0.0)
    return min(began, default=None)


def is_locked(path: Path, *, if_unknown: bool = True) -> bool:
    """Whether some process holds this lock; it is taken for a moment to find out. if_unknown: what
    to
    say of one that cannot be taken hold of."""
    from filelock import FileLock

    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    except OSError:
        return if_unknown
    lock.release()
    return False
