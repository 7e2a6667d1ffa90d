"""An index of a store, read once, for questions about many artifacts; payloads are not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .artifact import Artifact, quick_check
from .artifact_store import Store
from .cache_key import (
    MAX_DIFFERENCES,
    NO_SIMILAR_ARTIFACT,
    cache_key,
    encode_json,
    explain_miss,
    flatten,
    hash_text,
)
from .families import family
from .index_database import IndexEntry, read_entries
from .key_text import summarize_inputs

MAX_SIMILAR = 200
"""Artifacts of a group that are read, the latest ones: of thousands the others add nothing."""


class StoreIndex:
    """The content of a store when it was first asked for. Only a miss reads other artifacts.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.index import StoreIndex
    >>> StoreIndex(Store(Path("/no/such/store"))).explain_miss("maps", {"seed": 0})
    ['no similar artifact is stored']
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._entries: dict[str, list[IndexEntry]] = {}
        self._families: dict[str, dict[str, list[IndexEntry]]] = {}
        self._groups: dict[tuple[str, str], dict[str, list[IndexEntry]]] = {}
        self._artifacts: dict[tuple[str, str], Artifact | None] = {}
        self._explanations: dict[tuple[str, str], list[str]] = {}

    def contains(self, kind: str, key: str, key_inputs: Mapping[str, Any]) -> bool:
        """Whether the artifact is there, by a quick check: damage is found when it is used."""
        return quick_check(self.store.folder(kind, key), key_inputs)

    def artifact(self, kind: str, key: str) -> Artifact | None:
        """An artifact by its metadata; None where there is none, or a damaged one."""
        if (kind, key) not in self._artifacts:
            self._artifacts[kind, key] = self.store.read_metadata(kind, key)
        return self._artifacts[kind, key]

    def similar(self, kind: str, key_inputs: Mapping[str, Any]) -> list[Artifact]:
        """The artifacts of the same family (families.py), at most MAX_SIMILAR, the latest."""
        name = family(kind, key_inputs)
        if not name:
            return []
        if kind not in self._families:
            families = self._families[kind] = defaultdict(list)
            for entry in self._entries_of(kind):
                families[entry.family].append(entry)
        return self._read(kind, self._families[kind].get(hash_text(name), []))

    def _entries_of(self, kind: str) -> list[IndexEntry]:
        if kind not in self._entries:
            # those that are asked for are read, and with that checked
            entries = read_entries(self.store.root, kind, check=False)
            self._entries[kind] = [entry for _, entry in entries if entry is not None]
        return self._entries[kind]

    def _groups_like(self, kind: str, summary: Mapping[str, Any]) -> dict[str, list[IndexEntry]]:
        """The groups of the artifacts of the same method, by their names."""
        text = f'"method":{encode_json(summary["method"])}' if "method" in summary else ""
        if (kind, text) not in self._groups:
            groups = self._groups[kind, text] = defaultdict(list)
            for entry in self._entries_of(kind):
                if text in entry.summary:  # which is JSON, and decoded only for these
                    for name in _group_names(entry.facts):
                        groups[name].append(entry)
        return self._groups[kind, text]

    def _read(self, kind: str, entries: list[IndexEntry]) -> list[Artifact]:
        if len(entries) > MAX_SIMILAR:
            entries = sorted(entries, key=lambda entry: (entry.created, entry.key))[-MAX_SIMILAR:]
            entries.sort(key=lambda entry: entry.key)
        artifacts = (self.artifact(kind, entry.key) for entry in entries)
        return [artifact for artifact in artifacts if artifact is not None]

    def explain_miss(self, kind: str, key_inputs: Mapping[str, Any]) -> list[str]:
        """Why there is no such artifact, as Store.explain_miss says it, among those of one method.

        If one of the same dataset, seed and split differs in few fields, no other is considered.
        """
        query = kind, cache_key(key_inputs)
        if query not in self._explanations:
            lines: list[str] = []
            summary = summarize_inputs(kind, key_inputs)
            for name in _group_names(summary):
                group = self._read(kind, self._groups_like(kind, summary).get(name, []))
                stored = (flatten(dict(artifact.key_inputs)) for artifact in group)
                lines = explain_miss(key_inputs, stored)
                if lines != [NO_SIMILAR_ARTIFACT] and len(lines) <= MAX_DIFFERENCES:
                    break
            self._explanations[query] = lines
        return self._explanations[query]


def _group_names(summary: Mapping[str, Any]) -> tuple[str, str]:
    """The groups of an artifact: the narrow one first, then its method."""
    narrow = [summary.get(field) for field in ("method", "dataset", "seed", "part")]
    return f"like {narrow}", f"method {summary.get('method', '')}"
