"""What an artefact is a result of, as JSON: its text, its key, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

MAX_DIFFERENCES = 12
"""Differing fields that an explanation tells of."""

NO_SIMILAR_ARTIFACT = "nothing like it is stored"

FlatJson = dict[str, str]
"""Every leaf of a JSON value, as JSON, by its dotted path."""


def canonical_json(value: Any) -> str:
    """`value` as JSON, the same text whatever the order of its keys. Refuses NaN, infinity, keys
    that are not text and whatever JSON does not know."""
    return encode_json(to_jsonable(value))


def encode_json(value: Any) -> str:
    """Canonical JSON of what json.loads has read, or `jsonable` has made."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":"))


def cache_key(key_inputs: Mapping[str, Any]) -> str:
    """The name of an artefact: 32 hex digits."""
    return hash_text(canonical_json(key_inputs))


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class JsonDict(dict[str, Any]):
    """What `plain` has made: known to be JSON, so that what contains it is not checked again."""


JSON_TYPES = {JsonDict, str, int, float, bool, type(None)}


def to_json_dict(value: Mapping[str, Any]) -> JsonDict:
    return JsonDict(to_jsonable(value))


def to_jsonable(value: Any) -> Any:
    """`value` in dicts and lists only."""
    if type(value) in JSON_TYPES:
        return value
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"a key must be text, not {wrong[0]!r}")
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    return value


def flatten(value: Any, path: str = "") -> FlatJson:
    """Every leaf of a JSON value by its dotted path."""
    inner: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list):
        inner = dict(enumerate(value))
    if not inner:
        return {path: encode_json(value)}
    made: FlatJson = {}
    for key, item in inner.items():
        made |= flatten(item, f"{path}.{key}" if path else str(key))
    return made


def explain_miss(key_inputs: Mapping[str, Any], stored: Iterable[FlatJson]) -> list[str]:
    """How the nearest of the stored identities differs from this one.

    Lines such as "train.args.lr: 0.0001 -> 2e-05", stored to asked for. Empty where it is there.
    """
    asked = flatten(to_jsonable(key_inputs))
    mine = asked.items()
    nearest, least = None, 0
    for other in stored:
        apart = len({field for field, _ in mine ^ other.items()})
        if nearest is None or apart < least:
            nearest, least = other, apart
        if not apart:
            return []
    if nearest is None or least >= len(asked):
        return [NO_SIMILAR_ARTIFACT]
    lines = [
        f"{field}: {nearest.get(field, 'absent')} -> {asked.get(field, 'absent')}"
        for field in {**nearest, **asked}
        if nearest.get(field) != asked.get(field)
    ]
    more = [f"and {least - MAX_DIFFERENCES} more"] if least > MAX_DIFFERENCES else []
    return lines[:MAX_DIFFERENCES] + more
