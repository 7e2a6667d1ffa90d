"""List what a store holds: artifacts, unfinished work, damaged files; their size, age and use."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .artifact import NON_ARTIFACT_KINDS, UNREADABLE
from .artifact_store import Store
from .atomic_files import StoreError, folder_size
from .index_database import Folder, IndexEntry, collector_paused, read_entries
from .key_text import format_summary
from .leases import is_locked

OTHER_ITEM = re.compile(r"(?P<kind>[a-z][a-z-]{0,30})-(?P<key>[0-9a-f]{32})(\.[0-9a-f]{8})?")
"""The names of folders in resume/ and corrupt/."""


class InventoryItem(NamedTuple):
    """An artifact or something else in a store.

    kind: of an artifact; or resume (the state of unfinished work), corrupt (a damaged artifact),
        half-made (an artifact that is being created)
    key: of the artifact; of other items, of the artifact that they were or become
    location: its folder or file
    bytes: of all its files
    created, last_used: seconds since 1970, by the clock of the file system
    artifact_kind: the kind of that artifact, for other items
    summary: from `summarize_inputs`, for artifacts
    records: the names of the experiments that were made from it

    >>> from adbench.benchmark.store.inventory import InventoryItem
    >>> InventoryItem("resume", "ab12", "x", 10, 0.0, 0.0, "checkpoint").description
    'unfinished checkpoint, to continue from'
    """

    kind: str
    key: str
    location: str
    bytes: int
    created: float
    last_used: float
    artifact_kind: str = ""
    summary: Mapping[str, Any] = MappingProxyType({})
    records: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def path(self) -> Path:
        """Its location."""
        return Path(self.location)

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        if self.damaged:
            return "damaged (adbench cache verify)"
        if self.kind in NON_ARTIFACT_KINDS:
            kind = self.artifact_kind
            return {
                "resume": f"unfinished {kind}, to continue from",
                "corrupt": f"damaged {kind}, moved away",
                "half-made": f"{kind}, being created, or left by a process that was killed",
            }[self.kind]
        if self.kind == "weights":
            return "imported weights"
        return format_summary(self.summary)

    def as_dict(self, now: float) -> dict[str, Any]:
        """All that is known of it, for JSON; ages in seconds before `now`."""
        fields = self._asdict()
        names = ("summary", "created", "last_used", "location")
        summary, created, last_used, location = map(fields.pop, names)
        fields |= {"age": max(0.0, now - created), "unused": max(0.0, now - last_used)}
        fields |= {"path": location, "what": self.description}
        return fields | summary


def list_items(
    store: Store, records: Mapping[tuple[str, str], list[str]] | None = None
) -> list[InventoryItem]:
    """Everything in a store but locks: artifacts by kind and key, then the rest.

    What vanishes meanwhile is left out.

    records: from `records_by_artifact`

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.inventory import list_items
    >>> list_items(Store(Path("/no/such/store")))
    []
    """
    with collector_paused():
        items = _artifact_items(read_entries(store.root), records or {})
    for path in store.staging_folders():
        key = path.name[1:].partition(".")[0]
        items += _other_items("half-made", path, path.parents[1].name, key)
    for kind in ("resume", "corrupt"):
        for path in sorted((store.root / kind).glob("*")):
            match = OTHER_ITEM.fullmatch(path.name)
            if match and path.is_dir() and not path.is_symlink():
                items += _other_items(kind, path, match["kind"], match["key"])
    return items


def records_by_artifact(
    outs: Iterable[Path], *, strict: bool = False
) -> dict[tuple[str, str], list[str]]:
    """The names of the experiments that were made from each artifact, by its (kind, key).

    outs: folders where runs wrote their results
    strict: raise StoreError on a record that cannot be read, instead of leaving it out

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.inventory import records_by_artifact
    >>> records_by_artifact([Path("/no/such/results")])
    {}
    """
    names: dict[tuple[str, str], list[str]] = {}
    for out in outs:
        for path in sorted((out / "records").glob("[!.]*.json")):
            try:
                keys = json.loads(path.read_bytes()).get("keys") or {}
                for kind, key in keys.items():
                    names.setdefault((kind.partition("/")[0], str(key)), []).append(path.stem)
            except UNREADABLE as error:
                if strict:
                    raise StoreError(
                        f"{path} cannot be read ({type(error).__name__}), so what it uses is not "
                        "known: repeat its run, or remove it"
                    ) from error
    return names


def is_idle(store: Store, item: InventoryItem) -> bool:
    """Whether no process is creating the item, or the artifact that it becomes.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.inventory import InventoryItem, is_idle
    >>> is_idle(Store(Path("/no/such/store")), InventoryItem("maps", "ab", "x", 1, 0.0, 0.0))
    True
    """
    return not is_locked(store.lock_file(item.artifact_kind or item.kind, item.key))


def format_table(items: Iterable[InventoryItem], now: float | None = None) -> list[str]:
    """A heading, a line for each item, and a line with their number and size.

    now: seconds since 1970, to tell ages from

    >>> from adbench.benchmark.store.inventory import format_table
    >>> format_table([])
    ['0 in all, 0 B']
    """
    now = time.time() if now is None else now
    items = list(items)
    lines = (
        [f"{'kind':<11} {'key':<12} {'size':>9}  {'age':>7}  {'unused':>7}  what"] if items else []
    )
    for item in items:
        count = len(item.records)
        records = f"  [{count} record{'s' * (count != 1)}]" if count else ""
        lines.append(
            f"{item.kind:<11} {item.key[:12]:<12} {format_size(item.bytes):>9}  "
            f"{format_age(now - item.created):>7}  {format_age(now - item.last_used):>7}  "
            f"{item.description}{records}"
        )
    return [*lines, f"{len(items)} in all, {format_size(sum(item.bytes for item in items))}"]


def format_size(number: float) -> str:
    """A number of bytes with its unit.

    >>> from adbench.benchmark.store.inventory import format_size
    >>> format_size(512), format_size(4.2e6), format_size(16e9)
    ('512 B', '4.2 MB', '16 GB')
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number, units = number / 1000, units[1:]
    digits = 0 if units[0] == "B" or number >= 9.95 else 1
    return f"{number:.{digits}f} {units[0]}"


def format_age(seconds: float) -> str:
    """A time span with its unit; negative ones, of clocks that differ, count as 0.

    >>> from adbench.benchmark.store.inventory import format_age
    >>> format_age(5), format_age(180), format_age(9000), format_age(12 * 86400)
    ('5 s', '3.0 min', '2.5 h', '12 d')
    """
    seconds = max(seconds, 0.0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            number = seconds / length
            return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 0.5 or not seconds else "<1 s"


def _artifact_items(
    entries: Iterable[tuple[Folder, IndexEntry | None]],
    records: Mapping[tuple[str, str], list[str]],
) -> list[InventoryItem]:
    items = list[InventoryItem]()
    for (kind, key, path, used), entry in entries:
        if entry is not None:
            size, created = entry.bytes, entry.created
            names = tuple(records.get((kind, key), ()))
            items.append(
                InventoryItem(kind, key, path, size, created, used, "", entry.facts, records=names)
            )
            continue
        with suppress(OSError):  # it may have vanished meanwhile
            os.stat(path)
            size = folder_size(Path(path))
            items.append(InventoryItem(kind, key, path, size, used, used, damaged=True))
    return items


def _other_items(kind: str, path: Path, artifact_kind: str, key: str) -> list[InventoryItem]:
    """The item at a path, last used when a file in it was last written; none if it vanished."""
    times = []
    for part in (path, *path.glob("*")):
        with suppress(OSError):
            times.append(part.stat().st_mtime)
    if not times:
        return []
    size = folder_size(path)
    return [InventoryItem(kind, key, str(path), size, min(times), max(times), artifact_kind)]
