"""Key inputs in words: a summary of what an artifact is, and how the inputs of two differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .cache_key import flatten

SPLIT_NAMES = {
    "train": "training",
    "held_out": "calibration",
    "val": "validation",
    "test": "test",
    "pseudo": "synthetic-anomaly",
}

FIELD_NAMES = {
    "method": "the method's class",
    "supervision": "the supervision",
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
    """The method, dataset and seed of an artifact; of maps and records also split and levels.

    Empty for an artifact that no run created.

    >>> from adbench.benchmark.store.key_text import summarize_inputs
    >>> summarize_inputs("stage", {"stage": "vqvae", "data": {"dataset": "brats"}, "seed": 0})
    {'method': 'stage vqvae', 'dataset': 'brats', 'seed': 0}
    """
    try:
        if kind == "stage":  # a training that methods share
            name, data = key_inputs["stage"], key_inputs["data"]["dataset"]
            return {"method": f"stage {name}", "dataset": data, "seed": key_inputs["seed"]}
        maps = key_inputs["maps"] if kind == "record" else {"": key_inputs}
        inputs = next(iter(maps.values()))
        training = inputs if kind == "checkpoint" else inputs["train"]
        summary = {
            "method": training["method"].rpartition(":")[2],
            "dataset": training["data"]["dataset"],
            "seed": training["seed"],
        }
        if kind == "maps":
            summary["part"] = key_inputs["part"]
        if kind != "checkpoint":
            summary["levels"] = list(inputs["levels"])
        if kind == "record":
            summary["protocol"] = key_inputs["protocol"]["threshold"]
    except (KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return summary


def format_summary(summary: Mapping[str, Any]) -> str:
    """A summary in one line.

    >>> from adbench.benchmark.store.key_text import format_summary
    >>> facts = {"method": "PDDPM", "dataset": "brats", "seed": 0, "part": "val", "levels": [50]}
    >>> format_summary(facts)
    'PDDPM on brats, seed 0, validation, level 50'
    """
    if not summary:
        return "not created by a run"
    words = [f"{summary['method']} on {summary['dataset']}", f"seed {summary['seed']}"]
    if "part" in summary:
        words.append(SPLIT_NAMES.get(summary["part"]) or summary["part"])
    if any(summary.get("levels", ())):
        words.append(format_levels(summary["levels"]))
    if "protocol" in summary:
        words.append(summary["protocol"])
    return ", ".join(words)


def format_levels(levels: Sequence[int]) -> str:
    """Noise levels in few words.

    >>> from adbench.benchmark.store.key_text import format_levels
    >>> format_levels([50, 100]), format_levels([50, 100, 250, 500])
    ('levels 50, 100', 'levels 50..500 (4)')
    """
    if len(levels) == 1:
        return f"level {levels[0]}"
    if len(levels) <= 3:
        return f"levels {', '.join(map(str, levels))}"
    return f"levels {min(levels)}..{max(levels)} ({len(levels)})"


def diff_inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields in which two key inputs differ.

    Each has `field`, its name in `words`, and its value in `a` and in `b` (None if absent). A
    difference that the maps of several splits share is listed once.

    >>> from adbench.benchmark.store.key_text import diff_inputs
    >>> diff_inputs({"args": {"lr": 0.1}}, {"args": {"lr": 0.2}})
    [{'field': 'args.lr', 'words': 'argument lr', 'a': 0.1, 'b': 0.2}]
    """
    first, second = _flatten_inputs(a), _flatten_inputs(b)
    differences: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in {**first, **second}:
        left, right = first.get(path), second.get(path)
        if left != right:
            field = short_field(path)
            values = {"a": json.loads(left or "null"), "b": json.loads(right or "null")}
            difference = {"field": field, "words": describe_field(field), **values}
            differences.setdefault((field, str(left), str(right)), difference)
    return list(differences.values())


def short_field(path: str) -> str:
    """A field of a training or a dataset without the names of the stages around it.

    >>> from adbench.benchmark.store.key_text import short_field
    >>> short_field("maps.val.train.args.lr")
    'args.lr'
    """
    parts = path.split(".")
    if parts[0] == "maps" and len(parts) > 2:
        parts = parts[2:]
    if parts[0] == "train" and len(parts) > 1:
        parts = parts[1:]
    return ".".join(parts)


def describe_field(field: str) -> str:
    """The name of a field in words.

    >>> from adbench.benchmark.store.key_text import describe_field
    >>> describe_field("data.args.size"), describe_field("data.samples.held_out")
    ('dataset argument size', 'the calibration samples')
    """
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
    """Leaves by path, a list of plain values as one; the evaluation code under its own name."""
    flat: dict[str, str] = {}

    def add(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                add(item, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list) and not any(isinstance(v, (dict, list)) for v in value):
            flat[path] = json.dumps(value)
        elif value != {}:
            flat.update(flatten(value, path))

    add(dict(key_inputs), "")
    if "maps" in key_inputs and "code" in flat:
        flat["the evaluation code"] = flat.pop("code")
    return flat
