"""Compare two results: which of the inputs that their cache keys hash are different."""

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
    "method", "dataset", "profile", "seed", "partial", "protocol", "versions", "device"
)  # fmt: skip
"""Fields of a record that say how the result was made."""

IGNORED_SUBFIELDS = {"method": ("label", "paper", "baseline"), "protocol": ("text", "id")}


@dataclass(frozen=True)
class ComparedResult:
    """One of the two results.

    record: the content of the record, if the result was named by one
    key_inputs: of its artifacts in the store, by "record", "checkpoint", "maps/val" and the like

    >>> result = ComparedResult("checkpoint 01234567", None, {"checkpoint": {"seed": 0}})
    >>> result.key_inputs["checkpoint"]
    {'seed': 0}
    """

    name: str
    record: Mapping[str, Any] | None
    key_inputs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class KeyDiff:
    """The differences of two results.

    a, b: their names
    fields: from `diff_inputs`
    note: a limit of the comparison; empty if there is none
    """

    a: str
    b: str
    fields: list[dict[str, Any]]
    note: str = ""

    def lines(self) -> list[str]:
        """A line for each difference, as far as they are few.

        >>> from adbench.benchmark.store.key_diff import KeyDiff
        >>> KeyDiff("x", "y", []).lines()
        ['x and y were made from the same inputs']
        """
        if not self.fields:
            lines = [f"{self.a} and {self.b} were made from the same inputs"]
        else:
            lines = [f"A {self.a}", f"B {self.b}"]
        for field in self.fields[:MAX_DIFFERENCES]:
            values = f"{_format_value(field['a'])} in A, {_format_value(field['b'])} in B"
            lines.append(f"  {field['words']}: {values}")
        if (more := len(self.fields) - MAX_DIFFERENCES) > 0:
            lines.append(f"  and {more} more (--json)")
        return [*lines, f"note: {self.note}"] if self.note else lines


def diff_keys(a: str, b: str, store: Store, out: Path) -> KeyDiff:
    """Return how the inputs of two results differ.

    a, b: keys in the store, record files, or names of experiments in `out`; also their beginnings
    Raises StoreError if one does not exist, or they are of two kinds.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store, StoreError
    >>> from adbench.benchmark.store.key_diff import diff_keys
    >>> try:
    ...     diff_keys("ab12", "cd34", Store(Path("/no/such/store")), Path("/no/such/results"))
    ... except StoreError as error:
    ...     print(error)
    no artifact's key and no record in results begins with 'ab12' (adbench cache ls; ...)
    """
    first, second = (find_result(name, store, out) for name in (a, b))
    common = [kind for kind in first.key_inputs if kind in second.key_inputs]
    if common:
        kind = "record" if "record" in common else common[0]
        fields = diff_inputs(first.key_inputs[kind], second.key_inputs[kind])
        return KeyDiff(first.name, second.name, fields)
    if first.record and second.record:
        fields = diff_inputs(_record_facts(first.record), _record_facts(second.record))
        note = "compared by the records alone: the store does not hold their artifacts"
        return KeyDiff(first.name, second.name, fields, note)
    kinds = [", ".join(result.key_inputs) or "nothing in the store" for result in (first, second)]
    raise StoreError(f"{a} and {b} are of two kinds: {' and '.join(kinds)} (adbench cache ls)")


def find_result(name: str, store: Store, out: Path) -> ComparedResult:
    """Return the result of a name: a record file, an experiment in `out`, or a key in the store.

    Raises StoreError if there is none, or the name is the beginning of several.

    >>> import tempfile
    >>> def create(path):
    ...     path.write_bytes(b"scores")
    ...     return {}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder, "store"))
    ...     artifact = store.get_or_create("checkpoint", {"seed": 0}, create, name="weights.st")
    ...     result = find_result(artifact.key[:6], store, Path(folder, "results"))
    >>> result.key_inputs
    {'checkpoint': {'seed': 0}}
    """
    path = _find_record(name, out)
    if path is None:
        return _find_by_key(name, store)
    try:
        record = json.loads(path.read_bytes())
        keys = dict(record.get("keys") or {})
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is no record: {error}") from error
    key_inputs = {}
    for kind, key in keys.items():
        if artifact := store.read_metadata(kind.partition("/")[0], str(key)):
            key_inputs[kind] = artifact.key_inputs
    return ComparedResult(path.stem, record, key_inputs)


def _find_record(name: str, out: Path) -> Path | None:
    """The record of a file's or an experiment's name, or its beginning; None if there is none."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise StoreError(f"there is no record {name}")
        return Path(name)
    paths = [p for p in sorted((out / "records").glob("*.json")) if p.name.startswith(name)]
    exact = [path for path in paths if path.stem == name]
    if len(paths) > 1 and not exact:
        raise StoreError(
            f"{name!r} is the beginning of {len(paths)} experiments: {_first_names(paths)}"
        )
    return (exact or paths or [None])[0]


def _find_by_key(name: str, store: Store) -> ComparedResult:
    kind, slash, key = name.rpartition("/")
    folders = store.folders(kind if slash else None) if len(key) >= 2 else []
    folders = [folder for folder in folders if folder.name.startswith(key)]
    if not folders:
        raise StoreError(
            f"no artifact's key and no record in results begins with {name!r} "
            "(adbench cache ls; --store and --out say where to look)"
        )
    if len(folders) > 1:
        raise StoreError(
            f"{name!r} is the beginning of {len(folders)} keys: {_first_names(folders)}"
        )
    kind, key = folders[0].parents[1].name, folders[0].name
    artifact = store.read_metadata(kind, key)
    if artifact is None:
        raise StoreError(f"{kind} {key} is damaged (adbench cache verify)")
    part = artifact.key_inputs.get("part") if kind == "maps" else None
    name = f"{kind}/{part}" if part else kind
    return ComparedResult(f"{kind} {key[:8]}", None, {name: artifact.key_inputs})


def _record_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that say how the result was made."""
    facts = {}
    for field in RECORD_FIELDS:
        value, ignored = record.get(field), IGNORED_SUBFIELDS.get(field, ())
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name not in ignored}
        facts[field] = value
    return facts


def _first_names(paths: list[Path]) -> str:
    names = ", ".join(path.stem[:40] for path in paths[:3])
    return names + (", …" if len(paths) > 3 else "")


def _format_value(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{16,64}", value):
        return value[:8]  # a digest
    return "absent" if value is None else json.dumps(value)
