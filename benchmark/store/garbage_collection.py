"""Making room in a store: what is not needed goes, least recently used first.

Never what is locked, and nothing that a living process has made or used since it began (alive.py).
What is no artefact has a rule of its own:

    resume      when its artefact is whole by now; else after 30 days without a step
    corrupt     after a week; first of all where room is short
    half-made   after a day, when no process holds its lock
    locks       when they can be taken, and no process works on the store
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from .artifact_store import Store
from .atomic_files import StoreError
from .inventory import (
    NON_ARTIFACT_KINDS,
    InventoryItem,
    format_age,
    format_size,
    is_idle,
    list_items,
)
from .leases import earliest_lease, is_locked, lease_folder

DAY = 86400.0
MAX_IDLE_SECONDS = {"resume": 30 * DAY, "corrupt": 7 * DAY, "half-made": DAY}
"""Seconds after which what is no artefact goes, whatever is asked for."""


@dataclass(frozen=True)
class RemovalCriteria:
    """What shall go: one of the three.

    max_bytes: bytes that may stay     max_idle_seconds: not used for so many seconds
    used_artifacts: the (kind, key) that records stand on; what is not among them goes
    """

    max_bytes: int | None = None
    max_idle_seconds: float | None = None
    used_artifacts: frozenset[tuple[str, str]] | None = None


@dataclass(frozen=True)
class Removal:
    item: InventoryItem
    reason: str


@dataclass(frozen=True)
class GarbageReport:
    """removed: removed, or what would be. retained: should have gone, and why it stays
    bytes_left: bytes that stay. locks_removed: lock files removed"""

    removed: list[Removal]
    retained: list[Removal]
    bytes_left: int
    locks_removed: int = 0

    def lines(self, *, dry_run: bool = False) -> list[str]:
        verb = "would remove" if dry_run else "removed"
        lines = [f"{verb} {_describe(g)}: {g.reason}" for g in self.removed]
        lines += [f"kept {_describe(g)}: {g.reason}" for g in self.retained]
        freed = sum(g.item.bytes for g in self.removed)
        return [
            *lines,
            f"{verb} {len(self.removed)}, {format_size(freed)}; "
            f"{format_size(self.bytes_left)} stay",
        ]


def collect_garbage(
    store: Store, criteria: RemovalCriteria, *, dry_run: bool = False, now: float | None = None
) -> GarbageReport:
    """Remove what `criteria` asks for. Raises StoreError if the store cannot be written."""
    now = time.time() if now is None else now
    items = [replace(item, used=min(item.used, now)) for item in list_items(store)]  # clocks jump
    items.sort(key=lambda item: (item.used, item.kind, item.key))
    total, since = sum(item.bytes for item in items), earliest_lease(store.root)
    gone, spared = list[Removal](), list[Removal]()

    def drop(item: InventoryItem, why: str) -> None:
        nonlocal total
        if keep := _retention_reason(store, item, since):
            spared.append(Removal(item, keep))
        elif dry_run or _remove(store, item):
            gone.append(Removal(item, why))
            total -= item.bytes
        else:
            spared.append(Removal(item, "was used while this looked"))

    asked = [(item, _removal_reason(store, item, criteria, now)) for item in items]
    for item, why in asked:
        if why:
            drop(item, why)
    if criteria.max_bytes is not None:
        rest = [item for item, why in asked if not why and item.kind not in ("resume", "half-made")]
        for item in sorted(rest, key=lambda item: item.kind != "corrupt"):  # the rest by use
            if total > criteria.max_bytes:
                drop(item, f"room is short, and it was last used {format_age(now - item.used)} ago")
    return GarbageReport(
        gone, spared, total, 0 if dry_run or since is not None else _remove_locks(store)
    )


def parse_size(text: str) -> int:
    """Bytes from "20GB", "1.5 TiB", "300M". Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"--max-size takes a size such as 20GB or 500MB, not {text!r}")
    power = " kmgt".index(found[2].lower() or " ")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def parse_age(text: str) -> float:
    """Seconds from "30d", "12h", "2w", "90min". Raises ValueError."""
    units = {"s": 1, "min": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"--older takes an age such as 30d, 12h or 2w, not {text!r}")
    return float(found[1]) * units[found[2].lower()]


def _removal_reason(store: Store, item: InventoryItem, wanted: RemovalCriteria, now: float) -> str:
    """Why it shall go, however much room there is; empty if it need not."""
    idle_for = now - item.used
    if item.kind == "resume" and store.read_metadata(item.goal, item.key):
        return f"the {item.goal} is finished"
    if item.kind in NON_ARTIFACT_KINDS:
        limit = max(MAX_IDLE_SECONDS[item.kind], wanted.max_idle_seconds or 0)
        return f"untouched for {format_age(idle_for)}" if idle_for > limit else ""
    if wanted.max_idle_seconds is not None and idle_for > wanted.max_idle_seconds:
        return f"not used for {format_age(idle_for)}"
    if wanted.used_artifacts is not None and (item.kind, item.key) not in wanted.used_artifacts:
        return "no record uses it"
    return ""


def _retention_reason(store: Store, item: InventoryItem, since: float | None) -> str:
    """Why it must stay; empty if it need not."""
    if not is_idle(store, item):
        return (
            "a process is making it"
            if item.kind in NON_ARTIFACT_KINDS
            else "a process holds its lock"
        )
    if item.kind not in NON_ARTIFACT_KINDS and since is not None and item.used >= since - 2:
        return "a process that still runs may need it"
    return ""


def _remove(store: Store, item: InventoryItem) -> bool:
    """Take it away at once, then delete it; false if somebody used it meanwhile."""
    aside = item.path.with_name(f".{item.key}.{uuid4().hex[:8]}")
    try:
        with store.lock(item.goal or item.kind, item.key, timeout=0):
            if item.kind in NON_ARTIFACT_KINDS:
                shutil.rmtree(item.path)
                return True
            item.path.replace(aside)
            if aside.stat().st_mtime > item.used + 1e-6 and aside.stat().st_mtime <= time.time():
                aside.replace(item.path)
                return False
            shutil.rmtree(aside)
    except TimeoutError:
        return False
    except FileNotFoundError:
        return True
    except OSError as error:
        raise StoreError(f"cannot remove {item.path}: {error.strerror}") from error
    return True


def _remove_locks(store: Store) -> int:
    """Remove lock files that nobody holds; how many. One that is waited for is made again: who
    gets a lock whose file is gone tries once more (filelock looks)."""
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


def _describe(gone: Removal) -> str:
    item = gone.item
    return f"{item.kind} {item.key[:12]} ({item.description}, {format_size(item.bytes)})"
