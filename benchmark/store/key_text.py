"""Identities in words: what an artefact is, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .cache_key import flatten

SPLIT_NAMES = {"train": "training", "held_out": "held-out", "val": "validation", "test": "test"}

FIELD_NAMES = {
    "method": "the method's class",
    "supervision": "what the method learns from",
    "seed": "the training seed",
    "numerics": "the precision",
    "code": "the code of the method, or of what it imports",
    "data.dataset": "the dataset",
    "levels": "the noise levels",
    "part": "the split",
}
PREFIX_NAMES = {
    "args": "argument {}",
    "data.args": "dataset argument {}",
    "protocol": "the protocol's {}",
    "method.args": "argument {}",
    "dataset.args": "dataset argument {}",
    "versions": "the version of {}",
}


def summarize_inputs(kind: str, key_inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What an identity says that people ask for: method, dataset, seed, and of maps and records
    the split and the levels. Empty of an identity that is none of the runner's."""
    told: dict[str, Any] = {}
    try:
        if kind == "stage":  # of a training; methods share it
            name, data = key_inputs["stage"], key_inputs["data"]["dataset"]
            return {"method": f"stage {name}", "dataset": data, "seed": key_inputs["seed"]}
        maps = key_inputs["maps"] if kind == "record" else {"": key_inputs}
        some = next(iter(maps.values()))
        train = some if kind == "checkpoint" else some["train"]
        told["method"] = train["method"].rpartition(":")[2]
        told["dataset"], told["seed"] = train["data"]["dataset"], train["seed"]
        if kind == "maps":
            told["part"] = key_inputs["part"]
        if kind != "checkpoint":
            told["levels"] = list(some["levels"])
        if kind == "record":
            told["protocol"] = key_inputs["protocol"]["threshold"]
    except (KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return told


def format_summary(told: Mapping[str, Any]) -> str:
    """The facts in a line: "TemplateZ on brats, seed 0, test, levels 50..500 (10)"."""
    if not told:
        return "made by something else than a run"
    words = [f"{told['method']} on {told['dataset']}", f"seed {told['seed']}"]
    if "part" in told:
        words.append(SPLIT_NAMES.get(told["part"]) or told["part"])
    if any(told.get("levels", ())):
        words.append(format_levels(told["levels"]))
    if "protocol" in told:
        words.append(told["protocol"])
    return ", ".join(words)


def format_levels(levels: Sequence[int]) -> str:
    """ "level 250", "levels 50, 100" or "levels 50..500 (10)"."""
    if len(levels) == 1:
        return f"level {levels[0]}"
    if len(levels) <= 3:
        return f"levels {', '.join(map(str, levels))}"
    return f"levels {min(levels)}..{max(levels)} ({len(levels)})"


def diff_inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where two identities differ: field, in words, and the value in each (None: not there).

    What both splits' maps of a record say alike is told once.
    """
    first, second = _flatten_inputs(a), _flatten_inputs(b)
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in {**first, **second}:
        left, right = first.get(path), second.get(path)
        if left == right:
            continue
        field = short_field(path)
        told: dict[str, Any] = {"field": field, "words": describe_field(field)}
        told["a"] = None if left is None else json.loads(left)
        told["b"] = None if right is None else json.loads(right)
        found.setdefault((field, str(left), str(right)), told)
    return list(found.values())


def short_field(path: str) -> str:
    """A field without the way through the stages to it: "maps.val.train.args.lr" is "args.lr"."""
    parts = path.split(".")
    if parts[0] == "maps" and len(parts) > 2:
        parts = parts[2:]
    if parts[0] == "train" and len(parts) > 1:
        parts = parts[1:]
    return ".".join(parts)


def describe_field(field: str) -> str:
    if field in FIELD_NAMES:
        return FIELD_NAMES[field]
    if field.startswith("data.samples."):
        part = field.rpartition(".")[2]
        return f"the {SPLIT_NAMES.get(part, part)} samples"
    for prefix, words in sorted(PREFIX_NAMES.items(), key=lambda item: -len(item[0])):
        if field.startswith(f"{prefix}."):
            return words.format(field.removeprefix(f"{prefix}."))
    return field.replace(".", " ")


def _flatten_inputs(key_inputs: Mapping[str, Any]) -> dict[str, str]:
    """Leaves by path, a list of plain values as one of them; the code that judges by its own
    name."""
    found: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list) and not any(isinstance(v, (dict, list)) for v in value):
            found[path] = json.dumps(value)
        elif value != {}:
            found.update(flatten(value, path))

    walk(dict(key_inputs), "")
    if "maps" in key_inputs and "code" in found:
        found["the code that judges"] = found.pop("code")
    return found
