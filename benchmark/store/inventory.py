"""All that lies in a store: artefacts, half-finished work, what was set aside; size, age, use."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .artifact_store import Store
from .atomic_files import folder_size
from .key_text import format_summary, summarize_inputs
from .leases import is_locked

NON_ARTIFACT_KINDS = {"resume", "corrupt", "half-made"}
"""Kinds of what is no artefact."""


@dataclass(frozen=True)
class InventoryItem:
    """Something in a store.

    kind: of an artefact; or resume (kept of half-finished work), corrupt (set aside), half-made
    key: of the artefact; of what is none, of the one it is, was or becomes
    goal: the kind of that artefact
    bytes: of all its files      made, used: seconds since 1970, by the store's clock
    records: the records of results that were made from it
    """

    kind: str
    key: str
    path: Path
    bytes: int
    made: float
    used: float
    goal: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def description(self) -> str:
        if self.damaged:
            return "damaged (adbench cache verify)"
        if self.kind in NON_ARTIFACT_KINDS:
            return {
                "resume": f"unfinished {self.goal}, to go on from",
                "corrupt": f"damaged {self.goal}, set aside",
                "half-made": f"{self.goal}, being made, or left by a process that was killed",
            }[self.kind]
        return format_summary(self.told)

    def as_dict(self, now: float) -> dict[str, Any]:
        told = {k: v for k, v in asdict(self).items() if k not in ("path", "made", "used", "told")}
        ages = {"age": max(0.0, now - self.made), "unused": max(0.0, now - self.used)}
        return told | ages | {"path": str(self.path), "what": self.description} | dict(self.told)


def list_items(
    store: Store, used_by: Mapping[tuple[str, str], list[str]] | None = None
) -> list[InventoryItem]:
    """Everything but locks; artefacts by kind and key, then the rest. What vanishes meanwhile is
    left out.

    used_by: from `uses`
    """
    found: list[InventoryItem] = []
    for folder in store.folders():
        with suppress(OSError):
            found.append(_artifact_item(store, folder, used_by or {}))
    for path in sorted(store.root.glob("*/??/.*")):
        key = path.name[1:].partition(".")[0]
        found += _other_items("half-made", path, path.parents[1].name, key)
    for kind in ("resume", "corrupt"):
        for path in sorted((store.root / kind).glob("*")):
            goal, _, key = path.name.partition("-")
            found += _other_items(kind, path, goal, key.partition(".")[0])
    return found


def records_by_artifact(outs: Iterable[Path]) -> dict[tuple[str, str], list[str]]:
    """The cells of results folders that stand on each artefact, by (kind, key)."""
    found: dict[tuple[str, str], list[str]] = {}
    for out in outs:
        for path in sorted((out / "records").glob("[!.]*.json")):
            with suppress(OSError, ValueError, AttributeError):
                for kind, key in (json.loads(path.read_bytes()).get("keys") or {}).items():
                    found.setdefault((kind.partition("/")[0], str(key)), []).append(path.stem)
    return found


def is_idle(store: Store, item: InventoryItem) -> bool:
    """Whether no process makes it, or what comes of it, at this moment."""
    return not is_locked(store.lock_file(item.goal or item.kind, item.key))


def format_table(items: Iterable[InventoryItem], now: float | None = None) -> list[str]:
    """A line for each, and a line for all."""
    now = time.time() if now is None else now
    lines, total, count = [], 0, 0
    for item in items:
        held = f"  [{len(item.records)} record{'s' * (len(item.records) != 1)}]"
        lines.append(
            f"{item.kind:<11} {item.key[:12]:<12} {format_size(item.bytes):>9}  "
            f"{format_age(now - item.made):>7}  {format_age(now - item.used):>7}  "
            f"{item.description}"
            f"{held if item.records else ''}"
        )
        total, count = total + item.bytes, count + 1
    head = [f"{'kind':<11} {'key':<12} {'size':>9}  {'made':>7}  {'used':>7}  what"] * bool(lines)
    return [*head, *lines, f"{count} in all, {format_size(total)}"]


def format_size(number: float) -> str:
    """Bytes as people say them: "512 B", "4.2 MB", "16 GB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return (
        f"{number:.0f} {units[0]}"
        if units[0] == "B" or number >= 9.95
        else f"{number:.1f} {units[0]}"
    )


def format_age(seconds: float) -> str:
    """ "5 s", "3 min", "2.5 h", "12 d"; what lies in the future has just been made."""
    seconds = max(seconds, 0.0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            number = seconds / length
            return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 0.5 or not seconds else "<1 s"


def _artifact_item(
    store: Store, folder: Path, used_by: Mapping[tuple[str, str], list[str]]
) -> InventoryItem:
    kind, key = folder.parents[1].name, folder.name
    used = folder.stat().st_mtime
    artefact = store.read_metadata(kind, key)
    if artefact is None:
        return InventoryItem(kind, key, folder, folder_size(folder), used, used, damaged=True)
    beside = artefact.path.with_name(f"{artefact.path.name}.json").stat()
    return InventoryItem(
        kind,
        key,
        folder,
        artefact.size + beside.st_size,
        beside.st_mtime,
        used,
        told=summarize_inputs(kind, artefact.key_inputs),
        records=tuple(used_by.get((kind, key), ())),
    )


def _other_items(kind: str, path: Path, goal: str, key: str) -> list[InventoryItem]:
    """Used is when something in it, or it itself, was written last."""
    times = []
    for part in (path, *path.glob("*")):
        with suppress(OSError):
            times.append(part.stat().st_mtime)
    if not times:
        return []
    return [InventoryItem(kind, key, path, folder_size(path), min(times), max(times), goal)]
