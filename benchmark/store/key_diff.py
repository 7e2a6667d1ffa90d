"""Why two results are two: which fields of their identities differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .artifact_store import Store
from .atomic_files import StoreError
from .cache_key import MOST
from .key_text import differences

TOLD = ("method", "dataset", "profile", "seed", "partial", "protocol", "versions", "device")
"""What a record itself says of how it came about."""

NOT_TOLD = {"method": ("label", "paper", "baseline"), "protocol": ("text", "id")}


@dataclass(frozen=True)
class Side:
    """One of the two.

    record: the record's file, if it is named by one. artefacts: identities by "record", "maps/val"…
    """

    name: str
    record: Mapping[str, Any] | None
    artefacts: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Why:
    """fields: of `words.differences`. note: what limits the answer; empty if nothing does"""

    a: str
    b: str
    fields: list[dict[str, Any]]
    note: str = ""

    def lines(self) -> list[str]:
        if not self.fields:
            head = [f"{self.a} and {self.b} are results of the same"]
        else:
            head = [f"A {self.a}", f"B {self.b}"]
        body = [
            f"  {f['words']}: {_value(f['a'])} in A, {_value(f['b'])} in B"
            for f in self.fields[:MOST]
        ]
        more = len(self.fields) - MOST
        tail = [f"  and {more} more (--json)"] if more > 0 else []
        return head + body + tail + ([f"note: {self.note}"] if self.note else [])


def why(a: str, b: str, store: Store, out: Path) -> Why:
    """How A and B differ: keys in the store or their beginnings, record files, or cells of `out`.

    Raises StoreError if one is not found, or they are of two kinds.
    """
    one, two = (side(name, store, out) for name in (a, b))
    both = [kind for kind in one.artefacts if kind in two.artefacts]
    if both:
        kind = "record" if "record" in both else both[0]
        return Why(one.name, two.name, differences(one.artefacts[kind], two.artefacts[kind]))
    if one.record and two.record:
        fields = differences(_told(one.record), _told(two.record))
        note = "told by the record files alone: the store does not hold what they were made from"
        return Why(one.name, two.name, fields, note)
    kinds = " and ".join(", ".join(s.artefacts) or "nothing that is stored" for s in (one, two))
    raise StoreError(f"{a} and {b} are of two kinds: {kinds} (adbench cache ls)")


def side(name: str, store: Store, out: Path) -> Side:
    path = _record_file(name, out)
    if path is None:
        return _by_key(name, store)
    try:
        record = json.loads(path.read_bytes())
        keys = dict(record.get("keys") or {})
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is no record: {error}") from error
    found = {}
    for kind, key in keys.items():
        if artefact := store.peek(kind.partition("/")[0], str(key)):
            found[kind] = artefact.identity
    return Side(path.stem, record, found)


def _record_file(name: str, out: Path) -> Path | None:
    """The record that a file's or a cell's name, or its beginning, stands for."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise StoreError(f"there is no record {name}")
        return Path(name)
    found = [p for p in sorted((out / "records").glob("*.json")) if p.name.startswith(name)]
    exact = [path for path in found if path.stem == name]
    if len(found) > 1 and not exact:
        raise StoreError(f"{name!r} is the beginning of {len(found)} cells: {_some(found)}")
    return (exact or found or [None])[0]


def _by_key(name: str, store: Store) -> Side:
    kind, slash, key = name.rpartition("/")
    found = [
        path
        for path in store.folders(kind if slash else None)
        if len(key) >= 2 and path.name.startswith(key)
    ]
    if not found:
        raise StoreError(
            f"no artefact's key and no record in results begins with {name!r} "
            "(adbench cache ls; --store and --out say where to look)"
        )
    if len(found) > 1:
        raise StoreError(f"{name!r} is the beginning of {len(found)} keys: {_some(found)}")
    kind, key = found[0].parents[1].name, found[0].name
    artefact = store.peek(kind, key)
    if artefact is None:
        raise StoreError(f"{kind} {key} is damaged (adbench cache verify)")
    part = artefact.identity.get("part") if kind == "maps" else None
    return Side(f"{kind} {key[:8]}", None, {f"{kind}/{part}" if part else kind: artefact.identity})


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for field in TOLD:
        value = record.get(field)
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in NOT_TOLD.get(field, ())}
        made[field] = value
    return made


def _some(paths: list[Path]) -> str:
    shown = ", ".join(path.stem[:40] for path in paths[:3])
    return shown + (", …" if len(paths) > 3 else "")


def _value(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{16,64}", value):
        return value[:8]  # a digest
    return "absent" if value is None else json.dumps(value)
