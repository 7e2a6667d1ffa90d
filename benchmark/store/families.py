"""Families of artifacts: those whose cost tells that of others, by their key inputs.

A family is everything that the time of a stage depends on, as canonical JSON: of a training but
for its length, of a prediction but for its levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cache_key import encode_json

STEPS_ARGUMENT = "steps"
"""The argument for the length of a training, in methods that have one."""


def family(kind: str, key_inputs: Mapping[str, Any]) -> str:
    """The family of a checkpoint, of maps or of a record; empty for what no run created.

    >>> inputs = {"method": "m:M", "supervision": "normal", "numerics": "float32", "args": {},
    ...           "data": {"dataset": "brats", "args": {}}}
    >>> family("checkpoint", inputs) == family("checkpoint", inputs | {"args": {"steps": 9}})
    True
    >>> family("checkpoint", {"seed": 0})
    ''
    """
    try:
        if kind == "checkpoint":
            return training_family(key_inputs)
        if kind == "maps":
            return prediction_family(key_inputs)
        return evaluation_family(key_inputs) if kind == "record" else ""
    except (KeyError, TypeError, AttributeError):
        return ""


def training_family(training: Mapping[str, Any]) -> str:
    """Everything that the speed of a training depends on, but for its length.

    >>> training_family({"method": "m:M", "supervision": "normal", "numerics": "float32",
    ...                  "args": {"steps": 9}, "data": {"dataset": "brats", "args": {}}})
    '["m:M","normal","float32",{},["brats",{}]]'
    """
    args = {key: value for key, value in training["args"].items() if key != STEPS_ARGUMENT}
    data = training["data"]["dataset"], training["data"]["args"]
    names = [training["method"], training["supervision"], training["numerics"]]
    return encode_json([*names, args, data])


def prediction_family(key_inputs: Mapping[str, Any]) -> str:
    """Everything that the speed of a prediction depends on, but for its levels.

    >>> training = {"method": "m:M", "supervision": "normal", "numerics": "float32",
    ...             "args": {}, "data": {"dataset": "brats", "args": {}}}
    >>> prediction_family({"train": training, "args": {"count": 2}})[-11:]
    '{"count":2}'
    """
    return training_family(key_inputs["train"]) + encode_json(key_inputs["args"])


def evaluation_family(key_inputs: Mapping[str, Any]) -> str:
    """Everything that the time of an evaluation depends on.

    >>> evaluation_family({"maps": {}, "protocol": {}})
    '[{},{}]'
    """
    maps = key_inputs["maps"]
    samples = {part: (m["data"]["samples"], len(m["levels"])) for part, m in maps.items()}
    return encode_json([samples, key_inputs.get("protocol")])
