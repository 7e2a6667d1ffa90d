"""Leases: which processes work on a store and since when, so that what they use is not removed.

A run trains, predicts for hours, and then opens artifacts that it found or created at the beginning
while it holds the lock of its current artifact only. So every process that creates or finds an
artifact holds a lock of its own, whose file tells when the process began; the system releases it
when the process ends, in whatever way.
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
    """Return the folder of the leases on a store.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.leases import lease_folder
    >>> lease_folder(Path("store")).as_posix()
    'store/locks/alive'
    """
    return root / "locks" / "alive"


def hold_lease(root: Path) -> None:
    """Hold a lease on a store until this process ends.

    Nothing is ever removed from a store that cannot be written; there it does nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     hold_lease(Path(folder))
    ...     [is_locked(path) for path in lease_folder(Path(folder)).iterdir()]
    [True]
    """
    owner = os.getpid(), str(root)
    if owner in _leases:
        return
    from filelock import FileLock

    host = re.sub(r"[^\w-]", "_", platform.node())[:64]
    with suppress(OSError):
        lease_folder(root).mkdir(parents=True, exist_ok=True)
        for name in (f"{host}-{owner[0]}", uuid4().hex):  # two containers may share host and number
            path = lease_folder(root) / f"{name}.lock"
            lock = FileLock(path)
            with suppress(TimeoutError):
                lock.acquire(timeout=0)
                os.utime(path)
                _leases[owner] = lock
                return


def earliest_lease(root: Path) -> float | None:
    """Return when the oldest other process that works on a store began, in seconds since 1970.

    None if there is no other process. 0 if its clock is ahead of ours: it may have used anything.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.leases import earliest_lease
    >>> earliest_lease(Path("/no/such/store")) is None
    True
    """
    starts = []
    own_file = getattr(_leases.get((os.getpid(), str(root))), "lock_file", None)
    for path in lease_folder(root).glob("*.lock"):
        if str(path) != own_file and is_locked(path):
            with suppress(OSError):
                start = path.stat().st_mtime
                starts.append(start if start <= time.time() + 1 else 0.0)
    return min(starts, default=None)


def is_locked(path: Path, *, if_unknown: bool = True) -> bool:
    """Return whether a process holds the lock of a file; the test itself takes it for a moment.

    if_unknown: the answer for a lock file that cannot be opened

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.leases import is_locked
    >>> is_locked(Path("/no/such/file.lock"))
    False
    """
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
