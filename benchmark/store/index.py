"""What a store holds, read once, for questions about many artefacts; payloads are not read."""

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

MAX_CLOSE_DIFFERENCES = MAX_DIFFERENCES
"""Differing fields up to which no nearer one is looked for."""


class StoreIndex:
    """A store as it was when first asked. Only a miss reads more than it asks for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._artifacts: dict[str, dict[str, Artifact]] = {}
        self._flat_inputs: dict[str, dict[str, list[FlatJson]]] = {}
        self._explanations: dict[tuple[str, str], list[str]] = {}

    def contains(self, kind: str, key: str, key_inputs: Mapping[str, Any]) -> bool:
        """Whether it is there, at a glance: what is damaged within is found when it is used."""
        return quick_check(self.store.folder(kind, key), key_inputs)

    def artifacts(self, kind: str) -> Mapping[str, Artifact]:
        """All of a kind, by key."""
        if kind not in self._artifacts:
            self._artifacts[kind] = {
                artefact.key: artefact for artefact in self.store.artifacts(kind)
            }
        return self._artifacts[kind]

    def explain_miss(self, kind: str, key_inputs: Mapping[str, Any]) -> list[str]:
        """Why there is no such artefact, as Store.explain says it, by those of the same method;
        of these, by those of the same dataset, seed and split, where one is close."""
        which = kind, cache_key(key_inputs)
        if which not in self._explanations:
            if kind not in self._flat_inputs:
                held = defaultdict[str, list[FlatJson]](list)
                for artefact in self.artifacts(kind).values():
                    found = flatten(dict(artefact.key_inputs))
                    for name in _index_names(kind, artefact.key_inputs):
                        held[name].append(found)
                self._flat_inputs[kind] = held
            told: list[str] = []
            for name in _index_names(kind, key_inputs):
                told = explain_miss(key_inputs, self._flat_inputs[kind].get(name, []))
                if told != [NO_SIMILAR_ARTIFACT] and len(told) <= MAX_CLOSE_DIFFERENCES:
                    break
            self._explanations[which] = told
        return self._explanations[which]


def _index_names(kind: str, key_inputs: Mapping[str, Any]) -> tuple[str, str]:
    """What an artefact is listed under: the narrow first, then its method."""
    told = summarize_inputs(kind, key_inputs)
    narrow = [told.get(field) for field in ("method", "dataset", "seed", "part")]
    return str(narrow), str(told.get("method", ""))
