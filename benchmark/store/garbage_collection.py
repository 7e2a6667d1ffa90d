"""Garbage collection: remove from a store what is not needed, the least recently used first.

Nothing is removed that is locked, or that a living process has created or used since it began
(leases.py). Items that are no artifacts have rules of their own:

    resume      when its artifact is complete; else after 30 days without a step
    corrupt     after a week; before everything else if the store is to become smaller
    half-made   after a day, if no process holds its lock
    locks       when nobody holds them and no process works on the store
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from .artifact import NON_ARTIFACT_KINDS
from .artifact_store import Store
from .atomic_files import StoreError
from .inventory import (
    InventoryItem,
    format_age,
    format_size,
    is_idle,
    list_items,
)
from .leases import earliest_lease, is_locked, lease_folder
from .marker import require_marker

DAY = 86400.0
MAX_IDLE_SECONDS = {"resume": 30 * DAY, "corrupt": 7 * DAY, "half-made": DAY}
"""Seconds after which items that are no artifacts are removed, whatever the criteria."""


@dataclass(frozen=True)
class RemovalCriteria:
    """Which artifacts to remove; one of the three.

    max_bytes: the least recently used, until the store is not larger
    max_idle_seconds: those that were not used for longer
    used_artifacts: all but these, by (kind, key)

    >>> from adbench.benchmark.store.garbage_collection import RemovalCriteria
    >>> RemovalCriteria(max_bytes=10**9).used_artifacts is None
    True
    """

    max_bytes: int | None = None
    max_idle_seconds: float | None = None
    used_artifacts: frozenset[tuple[str, str]] | None = None


@dataclass(frozen=True)
class Removal:
    """An item, and why it is removed or retained.

    >>> from adbench.benchmark.store.garbage_collection import Removal
    >>> from adbench.benchmark.store.inventory import InventoryItem
    >>> item = InventoryItem("maps", "ab12", "x", 10, 0.0, 0.0)
    >>> Removal(item, "no record uses it").reason
    'no record uses it'
    """

    item: InventoryItem
    reason: str


@dataclass(frozen=True)
class GarbageReport:
    """The result of a garbage collection.

    removed: items that were removed, or would be
    retained: items that meet the criteria and stay, and why
    bytes_left: size of everything that stays
    locks_removed: number of lock files
    """

    removed: list[Removal]
    retained: list[Removal]
    bytes_left: int
    locks_removed: int = 0

    def lines(self, *, dry_run: bool = False) -> list[str]:
        """A line for each item, and a line with their number and size.

        >>> from adbench.benchmark.store.garbage_collection import GarbageReport
        >>> GarbageReport([], [], 2000).lines()
        ['removed 0, 0 B; 2.0 kB stay']
        """
        verb = "would remove" if dry_run else "removed"
        lines = [f"{verb} {_describe(removal)}" for removal in self.removed]
        lines += [f"retained {_describe(removal)}" for removal in self.retained]
        freed = format_size(sum(removal.item.bytes for removal in self.removed))
        return [*lines, f"{verb} {len(self.removed)}, {freed}; {format_size(self.bytes_left)} stay"]


def collect_garbage(
    store: Store, criteria: RemovalCriteria, *, dry_run: bool = False, now: float | None = None
) -> GarbageReport:
    """Remove the items that meet the criteria, and report what was removed and retained.

    dry_run: remove nothing, report only
    now: seconds since 1970, to count idle times from
    Raises StoreError if the folder is no store, or cannot be written.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.garbage_collection import RemovalCriteria, collect_garbage
    >>> collect_garbage(Store(Path("/no/such/store")), RemovalCriteria(max_bytes=0)).removed
    []
    """
    require_marker(store.root)
    now = time.time() if now is None else now
    items = [i._replace(last_used=min(i.last_used, now)) for i in list_items(store)]  # clocks jump
    items.sort(key=lambda item: (item.last_used, item.kind, item.key))
    total, lease = sum(item.bytes for item in items), earliest_lease(store.root)
    removed, retained = list[Removal](), list[Removal]()

    def remove(item: InventoryItem, reason: str) -> None:
        nonlocal total
        if why_not := _retention_reason(store, item, lease):
            retained.append(Removal(item, why_not))
        elif dry_run or _remove(store, item):
            removed.append(Removal(item, reason))
            total -= item.bytes
        else:
            retained.append(Removal(item, "was used during the garbage collection"))

    reasons = [(item, _removal_reason(store, item, criteria, now)) for item in items]
    for item, reason in reasons:
        if reason:
            remove(item, reason)
    if criteria.max_bytes is not None:
        rest = [i for i, reason in reasons if not reason and i.kind not in ("resume", "half-made")]
        for item in sorted(rest, key=lambda item: item.kind != "corrupt"):  # stable: others by use
            if total > criteria.max_bytes:
                remove(item, f"last used {format_age(now - item.last_used)} ago")
    locks = 0 if dry_run or lease is not None else _remove_locks(store)
    return GarbageReport(removed, retained, total, locks)


def parse_size(text: str) -> int:
    """Bytes from a text such as 20GB, 1.5 TiB or 300M.

    Raises ValueError on any other text.

    >>> from adbench.benchmark.store.garbage_collection import parse_size
    >>> parse_size("20GB"), parse_size("2 KiB")
    (20000000000, 2048)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"--max-size takes a size such as 20GB or 500MB, not {text!r}")
    power = " kmgt".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def parse_age(text: str) -> float:
    """Seconds from a text such as 30d, 12h, 2w or 90min.

    Raises ValueError on any other text.

    >>> from adbench.benchmark.store.garbage_collection import parse_age
    >>> parse_age("2h")
    7200.0
    """
    units = {"s": 1, "min": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"--older takes an age such as 30d, 12h or 2w, not {text!r}")
    return float(match[1]) * units[match[2].lower()]


def _removal_reason(
    store: Store, item: InventoryItem, criteria: RemovalCriteria, now: float
) -> str:
    """Why an item is to be removed whatever the size of the store; empty if it is not."""
    seconds, used = now - item.last_used, criteria.used_artifacts
    if item.kind == "resume" and store.read_metadata(item.artifact_kind, item.key):
        return f"the {item.artifact_kind} is complete"
    if item.kind in NON_ARTIFACT_KINDS:
        limit = max(MAX_IDLE_SECONDS[item.kind], criteria.max_idle_seconds or 0)
        return f"not used for {format_age(seconds)}" if seconds > limit else ""
    if criteria.max_idle_seconds is not None and seconds > criteria.max_idle_seconds:
        return f"not used for {format_age(seconds)}"
    if used is not None and (item.kind, item.key) not in used:
        return "no record uses it"
    return ""


def _retention_reason(store: Store, item: InventoryItem, lease: float | None) -> str:
    """Why an item must stay; empty if it need not."""
    is_artifact = item.kind not in NON_ARTIFACT_KINDS
    if not is_idle(store, item):
        return "a process holds its lock" if is_artifact else "a process is creating it"
    if is_artifact and lease is not None and item.last_used >= lease - 2:
        return "a running process may need it"
    return ""


def _remove(store: Store, item: InventoryItem) -> bool:
    """Rename an item, then delete it; false if another process used it meanwhile."""
    renamed = item.path.with_name(f".{item.key}.{uuid4().hex[:8]}")
    try:
        with store.lock(item.artifact_kind or item.kind, item.key, timeout=0):
            if item.kind in NON_ARTIFACT_KINDS:
                shutil.rmtree(item.path)
                return True
            item.path.replace(renamed)
            if item.last_used + 1e-6 < renamed.stat().st_mtime <= time.time():
                renamed.replace(item.path)
                return False
            shutil.rmtree(renamed)
    except TimeoutError:
        return False
    except FileNotFoundError:
        return True
    except OSError as error:
        raise StoreError(f"cannot remove {item.path}: {error.strerror}") from error
    return True


def _remove_locks(store: Store) -> int:
    """Remove lock files that nobody holds; how many.

    A process that waits for one whose file is gone creates it again (filelock checks this).
    """
    from filelock import FileLock

    count = 0
    for path in [*(store.root / "locks").glob("*.lock"), *lease_folder(store.root).glob("*.lock")]:
        if is_locked(path):
            continue
        lock = FileLock(path)
        with suppress(OSError, TimeoutError):
            lock.acquire(timeout=0)
            try:
                os.unlink(path)
                count += 1
            finally:
                lock.release()
    return count


def _describe(removal: Removal) -> str:
    item = removal.item
    what = f"{item.description}, {format_size(item.bytes)}"
    return f"{item.kind} {item.key[:12]} ({what}): {removal.reason}"
