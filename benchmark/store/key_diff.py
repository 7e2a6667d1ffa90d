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
from .cache_key import MAX_DIFFERENCES
from .key_text import diff_inputs

RECORD_FIELDS = (
    "method",
    "dataset",
    "profile",
    "seed",
    "partial",
    "protocol",
    "versions",
    "device",
)
"""What a record itself says of how it came about."""

IGNORED_SUBFIELDS = {"method": ("label", "paper", "baseline"), "protocol": ("text", "id")}


@dataclass(frozen=True)
class ComparedResult:
    """One of the two.

    record: the record's file, if it is named by one. key_inputs: identities by "record",
    "maps/val"…
    """

    name: str
    record: Mapping[str, Any] | None
    key_inputs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class KeyDiff:
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
            f"  {f['words']}: {_format_value(f['a'])} in A, {_format_value(f['b'])} in B"
            for f in self.fields[:MAX_DIFFERENCES]
        ]
        more = len(self.fields) - MAX_DIFFERENCES
        tail = [f"  and {more} more (--json)"] if more > 0 else []
        return head + body + tail + ([f"note: {self.note}"] if self.note else [])


def diff_keys(a: str, b: str, store: Store, out: Path) -> KeyDiff:
    """How A and B differ: keys in the store or their beginnings, record files, or cells of `out`.

    Raises StoreError if one is not found, or they are of two kinds.
    """
    one, two = (find_result(name, store, out) for name in (a, b))
    both = [kind for kind in one.key_inputs if kind in two.key_inputs]
    if both:
        kind = "record" if "record" in both else both[0]
        return KeyDiff(one.name, two.name, diff_inputs(one.key_inputs[kind], two.key_inputs[kind]))
    if one.record and two.record:
        fields = diff_inputs(_record_facts(one.record), _record_facts(two.record))
        note = "told by the record files alone: the store does not hold what they were made from"
        return KeyDiff(one.name, two.name, fields, note)
    kinds = " and ".join(", ".join(s.key_inputs) or "nothing that is stored" for s in (one, two))
    raise StoreError(f"{a} and {b} are of two kinds: {kinds} (adbench cache ls)")


def find_result(name: str, store: Store, out: Path) -> ComparedResult:
    path = _find_record(name, out)
    if path is None:
        return _find_by_key(name, store)
    try:
        record = json.loads(path.read_bytes())
        keys = dict(record.get("keys") or {})
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is no record: {error}") from error
    found = {}
    for kind, key in keys.items():
        if artefact := store.read_metadata(kind.partition("/")[0], str(key)):
            found[kind] = artefact.key_inputs
    return ComparedResult(path.stem, record, found)


def _find_record(name: str, out: Path) -> Path | None:
    """The record that a file's or a cell's name, or its beginning, stands for."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise StoreError(f"there is no record {name}")
        return Path(name)
    found = [p for p in sorted((out / "records").glob("*.json")) if p.name.startswith(name)]
    exact = [path for path in found if path.stem == name]
    if len(found) > 1 and not exact:
        raise StoreError(f"{name!r} is the beginning of {len(found)} cells: {_first_names(found)}")
    return (exact or found or [None])[0]


def _find_by_key(name: str, store: Store) -> ComparedResult:
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
        raise StoreError(f"{name!r} is the beginning of {len(found)} keys: {_first_names(found)}")
    kind, key = found[0].parents[1].name, found[0].name
    artefact = store.read_metadata(kind, key)
    if artefact is None:
        raise StoreError(f"{kind} {key} is damaged (adbench cache verify)")
    part = artefact.key_inputs.get("part") if kind == "maps" else None
    return ComparedResult(
        f"{kind} {key[:8]}", None, {f"{kind}/{part}" if part else kind: artefact.key_inputs}
    )


def _record_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for field in RECORD_FIELDS:
        value = record.get(field)
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in IGNORED_SUBFIELDS.get(field, ())}
        made[field] = value
    return made


def _first_names(paths: list[Path]) -> str:
    shown = ", ".join(path.stem[:40] for path in paths[:3])
    return shown + (", …" if len(paths) > 3 else "")


def _format_value(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{16,64}", value):
        return value[:8]  # a digest
    return "absent" if value is None else json.dumps(value)
