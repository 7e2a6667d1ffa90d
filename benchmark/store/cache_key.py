"""What an artefact is a result of, as JSON: its text, its key, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

MOST = 12
"""Differing fields that an explanation tells of."""

NOTHING_LIKE = "nothing like it is stored"

Leaves = dict[str, str]
"""Every leaf of a JSON value, as JSON, by its dotted path."""


def canonical_json(value: Any) -> str:
    """`value` as JSON, the same text whatever the order of its keys. Refuses NaN, infinity, keys
    that are not text and whatever JSON does not know."""
    return text_of(jsonable(value))


def text_of(value: Any) -> str:
    """Canonical JSON of what json.loads has read, or `jsonable` has made."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":"))


def key_of(identity: Mapping[str, Any]) -> str:
    """The name of an artefact: 32 hex digits."""
    return key_of_text(canonical_json(identity))


def key_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Plain(dict[str, Any]):
    """What `plain` has made: known to be JSON, so that what contains it is not checked again."""


SETTLED = {Plain, str, int, float, bool, type(None)}


def plain(value: Mapping[str, Any]) -> Plain:
    return Plain(jsonable(value))


def jsonable(value: Any) -> Any:
    """`value` in dicts and lists only."""
    if type(value) in SETTLED:
        return value
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"a key must be text, not {wrong[0]!r}")
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def leaves(value: Any, path: str = "") -> Leaves:
    """Every leaf of a JSON value by its dotted path."""
    inner: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list):
        inner = dict(enumerate(value))
    if not inner:
        return {path: text_of(value)}
    made: Leaves = {}
    for key, item in inner.items():
        made |= leaves(item, f"{path}.{key}" if path else str(key))
    return made


def explained(identity: Mapping[str, Any], stored: Iterable[Leaves]) -> list[str]:
    """How the nearest of the stored identities differs from this one.

    Lines such as "train.args.lr: 0.0001 -> 2e-05", stored to asked for. Empty where it is there.
    """
    asked = leaves(jsonable(identity))
    mine = asked.items()
    nearest, least = None, 0
    for other in stored:
        apart = len({field for field, _ in mine ^ other.items()})
        if nearest is None or apart < least:
            nearest, least = other, apart
        if not apart:
            return []
    if nearest is None or least >= len(asked):
        return [NOTHING_LIKE]
    lines = [
        f"{field}: {nearest.get(field, 'absent')} -> {asked.get(field, 'absent')}"
        for field in {**nearest, **asked}
        if nearest.get(field) != asked.get(field)
    ]
    more = [f"and {least - MOST} more"] if least > MOST else []
    return lines[:MOST] + more
