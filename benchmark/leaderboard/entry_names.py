"""Names of entries: the label of a method, and in what it differs from others of that label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .records import Record


def entry_names(records: Sequence[Record]) -> dict[int, str]:
    """The name of each record's method in tables, by the record's id: its label, with the arguments
    in which it differs from those of the same label, profile and seed.

    >>> from adbench.benchmark.leaderboard.entry_names import entry_names
    >>> methods = [{"name": "a", "label": "A", "baseline": k == 1, "args": {"width": 32, "k": k}}
    ...            for k in (1, 2)]
    >>> records = [{"method": method, "profile": "tiny", "seed": 0} for method in methods]
    >>> list(entry_names(records).values())
    ['A k=1 (baseline)', 'A k=2']
    """
    alike: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        method, key = record["method"], (str(record["profile"]), str(record["seed"]))
        alike.setdefault((method["label"], method["name"], *key), []).append(record)
    names = {}
    for group in alike.values():
        settings = [record["method"]["args"] for record in group]
        shared = {
            key
            for key, value in settings[0].items()
            if all(key in args and args[key] == value for args in settings)
        }
        for record in group:
            mark = ["external"] if record.get("external") else []
            mark += training_marks(record)
            names[id(record)] = _entry_name(record["method"], shared, mark)
    return names


def training_marks(record: Record) -> list[str]:
    """How the training samples of a record differ from those of its dataset, in words.

    >>> from adbench.benchmark.leaderboard.entry_names import training_marks
    >>> training_marks({"training": {"fraction": 30.0, "contamination": 1.0}})
    ['30 % of training', '1 % contaminated']
    """
    training = record.get("training") or {}
    fraction, contamination = training.get("fraction", 100), training.get("contamination", 0)
    marks = [] if fraction == 100 else [f"{fraction:g} % of training"]
    return marks + ([f"{contamination:g} % contaminated"] if contamination else [])


def _entry_name(method: Mapping[str, Any], shared: set[str], marks: Sequence[str]) -> str:
    """The label of a method, its arguments but those shared with all that read alike, and what
    marks it."""
    differs = [
        f"{key}={value}" for key, value in sorted(method["args"].items()) if key not in shared
    ]
    marks = [*marks, *(["baseline"] if method["baseline"] else [])]
    if method.get("supervision") not in (None, "normal"):
        marks.append(method["supervision"])
    return " ".join([method["label"], *differs]) + (f" ({', '.join(marks)})" if marks else "")
