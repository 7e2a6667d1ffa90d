"""Cache keys: everything an artifact was made from, as canonical JSON, its hash and differences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

MAX_DIFFERENCES = 12
"""Differing fields that an explanation lists."""

NO_SIMILAR_ARTIFACT = "no similar artifact is stored"

FlatJson = dict[str, str]
"""Every leaf of a JSON value, as JSON, by its dotted path."""


def canonical_json(value: Any) -> str:
    """JSON text of a value, the same for any order of its keys.

    Raises ValueError on NaN and infinity, TypeError on keys that are not text and other types.

    >>> from adbench.benchmark.store.cache_key import canonical_json
    >>> canonical_json({"seed": 0, "levels": (50, 100)})
    '{"levels":[50,100],"seed":0}'
    """
    return encode_json(to_jsonable(value))


def encode_json(value: Any) -> str:
    """Canonical JSON text of what json.loads or `to_jsonable` returned.

    >>> from adbench.benchmark.store.cache_key import encode_json
    >>> encode_json({"b": [1, 2], "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":"))


def cache_key(key_inputs: Mapping[str, Any]) -> str:
    """The key of an artifact: 32 hexadecimal digits, a hash of everything it is made from.

    >>> from adbench.benchmark.store.cache_key import cache_key
    >>> cache_key({"seed": 0, "lr": 1e-4}) == cache_key({"lr": 1e-4, "seed": 0})
    True
    """
    return hash_text(canonical_json(key_inputs))


def hash_text(text: str) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of a text.

    >>> from adbench.benchmark.store.cache_key import hash_text
    >>> hash_text("{}")
    '44136fa355b3678a1146ad16f7e8649e'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class JsonDict(dict[str, Any]):
    """What `to_json_dict` returned: known to be JSON, so that values around it are not rechecked.

    >>> from adbench.benchmark.store.cache_key import JsonDict
    >>> JsonDict(seed=0)
    {'seed': 0}
    """


JSON_TYPES = {JsonDict, str, int, float, bool, type(None)}


def to_json_dict(value: Mapping[str, Any]) -> JsonDict:
    """A mapping in the types of JSON, checked once however often it becomes part of another.

    >>> from adbench.benchmark.store.cache_key import to_json_dict
    >>> to_json_dict({"levels": (50, 100)})
    {'levels': [50, 100]}
    """
    return JsonDict(to_jsonable(value))


def to_jsonable(value: Any) -> Any:
    """A value with its mappings as dicts and its tuples as lists.

    Raises TypeError on a key that is not text.

    >>> from adbench.benchmark.store.cache_key import to_jsonable
    >>> to_jsonable({"levels": (50, (100,))})
    {'levels': [50, [100]]}
    """
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
    """Every leaf of a JSON value, as JSON, by its dotted path.

    path: of the value itself

    >>> from adbench.benchmark.store.cache_key import flatten
    >>> flatten({"args": {"lr": 0.1}, "levels": [50, 100]})
    {'args.lr': '0.1', 'levels.0': '50', 'levels.1': '100'}
    """
    items: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        items = value
    elif isinstance(value, list):
        items = dict(enumerate(value))
    if not items:
        return {path: encode_json(value)}
    flat: FlatJson = {}
    for key, item in items.items():
        flat |= flatten(item, f"{path}.{key}" if path else str(key))
    return flat


def explain_miss(key_inputs: Mapping[str, Any], stored: Iterable[FlatJson]) -> list[str]:
    """How the most similar of the stored key inputs differ from these, one line per field.

    A line reads "field: stored value -> requested value". No line if they are stored.

    key_inputs: those for which there is no artifact
    stored: the flattened key inputs of artifacts

    >>> from adbench.benchmark.store.cache_key import explain_miss, flatten
    >>> explain_miss({"lr": 2e-5, "seed": 0}, [flatten({"lr": 1e-4, "seed": 0})])
    ['lr: 0.0001 -> 2e-05']
    """
    requested = flatten(to_jsonable(key_inputs))
    nearest, fewest = None, 0
    for candidate in stored:
        count = len({field for field, _ in requested.items() ^ candidate.items()})
        if nearest is None or count < fewest:
            nearest, fewest = candidate, count
        if not count:
            return []
    if nearest is None or fewest >= len(requested):
        return [NO_SIMILAR_ARTIFACT]
    lines = [
        f"{field}: {nearest.get(field, 'absent')} -> {requested.get(field, 'absent')}"
        for field in {**nearest, **requested}
        if nearest.get(field) != requested.get(field)
    ]
    more = [f"and {fewest - MAX_DIFFERENCES} more"] if fewest > MAX_DIFFERENCES else []
    return lines[:MAX_DIFFERENCES] + more
