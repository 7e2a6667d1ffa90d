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
    FlatJson,
    cache_key,
    explain_miss,
    flatten,
)
from .key_text import summarize_inputs


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
        self._artifacts: dict[str, dict[str, Artifact]] = {}
        self._flat_inputs: dict[str, dict[str, list[FlatJson]]] = {}
        self._explanations: dict[tuple[str, str], list[str]] = {}

    def contains(self, kind: str, key: str, key_inputs: Mapping[str, Any]) -> bool:
        """Whether the artifact is there, by a quick check: damage is found when it is used."""
        return quick_check(self.store.folder(kind, key), key_inputs)

    def artifacts(self, kind: str) -> Mapping[str, Artifact]:
        """All artifacts of a kind, by key."""
        if kind not in self._artifacts:
            self._artifacts[kind] = {a.key: a for a in self.store.artifacts(kind)}
        return self._artifacts[kind]

    def explain_miss(self, kind: str, key_inputs: Mapping[str, Any]) -> list[str]:
        """Why there is no such artifact, as Store.explain_miss says it, among those of one method.

        If one of the same dataset, seed and split differs in few fields, no other is considered.
        """
        query = kind, cache_key(key_inputs)
        if query not in self._explanations:
            if kind not in self._flat_inputs:
                groups = self._flat_inputs[kind] = defaultdict(list)
                for artifact in self.artifacts(kind).values():
                    flat = flatten(dict(artifact.key_inputs))
                    for name in _index_names(kind, artifact.key_inputs):
                        groups[name].append(flat)
            lines: list[str] = []
            for name in _index_names(kind, key_inputs):
                lines = explain_miss(key_inputs, self._flat_inputs[kind].get(name, []))
                if lines != [NO_SIMILAR_ARTIFACT] and len(lines) <= MAX_DIFFERENCES:
                    break
            self._explanations[query] = lines
        return self._explanations[query]


def _index_names(kind: str, key_inputs: Mapping[str, Any]) -> tuple[str, str]:
    """The groups of an artifact: the narrow one first, then its method."""
    summary = summarize_inputs(kind, key_inputs)
    narrow = [summary.get(field) for field in ("method", "dataset", "seed", "part")]
    return str(narrow), str(summary.get("method", ""))
