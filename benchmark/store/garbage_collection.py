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
from .inventory import WORK, Item, age, idle, inventory, size
from .leases import earliest, folder, taken

DAY = 86400.0
OF_ITSELF = {"resume": 30 * DAY, "corrupt": 7 * DAY, "half-made": DAY}
"""Seconds after which what is no artefact goes, whatever is asked for."""


@dataclass(frozen=True)
class Wanted:
    """What shall go: one of the three.

    most: bytes that may stay     older: not used for so many seconds
    used: the (kind, key) that records stand on; what is not among them goes
    """

    most: int | None = None
    older: float | None = None
    used: frozenset[tuple[str, str]] | None = None


@dataclass(frozen=True)
class Gone:
    item: Item
    why: str


@dataclass(frozen=True)
class Swept:
    """gone: removed, or what would be. spared: should have gone, and why it stays
    left: bytes that stay. locks: lock files removed"""

    gone: list[Gone]
    spared: list[Gone]
    left: int
    locks: int = 0

    def lines(self, *, dry: bool = False) -> list[str]:
        verb = "would remove" if dry else "removed"
        lines = [f"{verb} {_named(g)}: {g.why}" for g in self.gone]
        lines += [f"kept {_named(g)}: {g.why}" for g in self.spared]
        freed = sum(g.item.bytes for g in self.gone)
        return [*lines, f"{verb} {len(self.gone)}, {size(freed)}; {size(self.left)} stay"]


def gc(store: Store, wanted: Wanted, *, dry: bool = False, now: float | None = None) -> Swept:
    """Remove what `wanted` asks for. Raises StoreError if the store cannot be written."""
    now = time.time() if now is None else now
    items = [replace(item, used=min(item.used, now)) for item in inventory(store)]  # clocks jump
    items.sort(key=lambda item: (item.used, item.kind, item.key))
    total, since = sum(item.bytes for item in items), earliest(store.root)
    gone, spared = list[Gone](), list[Gone]()

    def drop(item: Item, why: str) -> None:
        nonlocal total
        if keep := _needed(store, item, since):
            spared.append(Gone(item, keep))
        elif dry or _remove(store, item):
            gone.append(Gone(item, why))
            total -= item.bytes
        else:
            spared.append(Gone(item, "was used while this looked"))

    asked = [(item, _over(store, item, wanted, now)) for item in items]
    for item, why in asked:
        if why:
            drop(item, why)
    if wanted.most is not None:
        rest = [item for item, why in asked if not why and item.kind not in ("resume", "half-made")]
        for item in sorted(rest, key=lambda item: item.kind != "corrupt"):  # the rest by use
            if total > wanted.most:
                drop(item, f"room is short, and it was last used {age(now - item.used)} ago")
    return Swept(gone, spared, total, 0 if dry or since is not None else _locks(store))


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


def _over(store: Store, item: Item, wanted: Wanted, now: float) -> str:
    """Why it shall go, however much room there is; empty if it need not."""
    idle_for = now - item.used
    if item.kind == "resume" and store.peek(item.goal, item.key):
        return f"the {item.goal} is finished"
    if item.kind in WORK:
        limit = max(OF_ITSELF[item.kind], wanted.older or 0)
        return f"untouched for {age(idle_for)}" if idle_for > limit else ""
    if wanted.older is not None and idle_for > wanted.older:
        return f"not used for {age(idle_for)}"
    if wanted.used is not None and (item.kind, item.key) not in wanted.used:
        return "no record uses it"
    return ""


def _needed(store: Store, item: Item, since: float | None) -> str:
    """Why it must stay; empty if it need not."""
    if not idle(store, item):
        return "a process is making it" if item.kind in WORK else "a process holds its lock"
    if item.kind not in WORK and since is not None and item.used >= since - 2:
        return "a process that still runs may need it"
    return ""


def _remove(store: Store, item: Item) -> bool:
    """Take it away at once, then delete it; false if somebody used it meanwhile."""
    aside = item.path.with_name(f".{item.key}.{uuid4().hex[:8]}")
    try:
        with store.locked(item.goal or item.kind, item.key, patience=0):
            if item.kind in WORK:
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


def _locks(store: Store) -> int:
    """Remove lock files that nobody holds; how many. One that is waited for is made again: who
    gets a lock whose file is gone tries once more (filelock looks)."""
    from filelock import FileLock

    count = 0
    for path in [*(store.root / "locks").glob("*.lock"), *folder(store.root).glob("*.lock")]:
        if taken(path):
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


def _named(gone: Gone) -> str:
    item = gone.item
    return f"{item.kind} {item.key[:12]} ({item.words}, {size(item.bytes)})"
