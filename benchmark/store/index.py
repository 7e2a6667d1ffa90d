"""What a store holds, read once, for questions about many artefacts; payloads are not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .artifact import Artefact, glance
from .artifact_store import Store
from .cache_key import MOST, NOTHING_LIKE, Leaves, explained, key_of, leaves
from .key_text import facts

CLOSE = MOST
"""Differing fields up to which no nearer one is looked for."""


class Stock:
    """A store as it was when first asked. Only a miss reads more than it asks for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, dict[str, Artefact]] = {}
        self._leaves: dict[str, dict[str, list[Leaves]]] = {}
        self._why: dict[tuple[str, str], list[str]] = {}

    def has(self, kind: str, key: str, identity: Mapping[str, Any]) -> bool:
        """Whether it is there, at a glance: what is damaged within is found when it is used."""
        return glance(self.store.folder(kind, key), identity)

    def every(self, kind: str) -> Mapping[str, Artefact]:
        """All of a kind, by key."""
        if kind not in self._known:
            self._known[kind] = {artefact.key: artefact for artefact in self.store.each(kind)}
        return self._known[kind]

    def why(self, kind: str, identity: Mapping[str, Any]) -> list[str]:
        """Why there is no such artefact, as Store.explain says it, by those of the same method;
        of these, by those of the same dataset, seed and split, where one is close."""
        which = kind, key_of(identity)
        if which not in self._why:
            if kind not in self._leaves:
                held = defaultdict[str, list[Leaves]](list)
                for artefact in self.every(kind).values():
                    found = leaves(dict(artefact.identity))
                    for name in _sorts(kind, artefact.identity):
                        held[name].append(found)
                self._leaves[kind] = held
            told: list[str] = []
            for name in _sorts(kind, identity):
                told = explained(identity, self._leaves[kind].get(name, []))
                if told != [NOTHING_LIKE] and len(told) <= CLOSE:
                    break
            self._why[which] = told
        return self._why[which]


def _sorts(kind: str, identity: Mapping[str, Any]) -> tuple[str, str]:
    """What an artefact is listed under: the narrow first, then its method."""
    told = facts(kind, identity)
    narrow = [told.get(field) for field in ("method", "dataset", "seed", "part")]
    return str(narrow), str(told.get("method", ""))
