"""What a leaderboard says of tuning: how many trials, on what, which values were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .entry import Entry
from .records import Record
from .text import number_text

SPLIT_TEXT = {"val": "validation", "pseudo": "synthetic anomalies in calibration samples"}
METRIC_TEXT = {"pixel_ap": "pixel AP", "image_auroc": "image AUROC"}


def tuning_notes(entries: Sequence[Entry]) -> list[str]:
    """Sentences on the entries with a result whose arguments were tuned; none where none was.

    >>> tuning_notes([])
    []
    """
    done = [entry for entry in entries if entry.record["status"] == "ok"]
    tuned = [entry for entry in done if (entry.record.get("tuning") or {}).get("trials")]
    if not tuned:
        return []
    notes = list[str]()
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in tuned:
        facts = entry.record["tuning"]
        key = (facts["trials"], facts["objective"], facts["metric"])
        groups.setdefault(key, []).append(entry)
    for (trials, objective, metric), group in groups.items():
        texts = dict.fromkeys(f"{each.name}: {chosen_text(each.record)}" for each in group)
        notes.append(
            f"Tuned by {trials} trials each, the method as it is among them, on "
            f"{SPLIT_TEXT[objective]} by {METRIC_TEXT.get(metric, metric or 'a metric')}, without "
            f"the test split: {'; '.join(texts)}."
        )
    as_set = dict.fromkeys(entry.name for entry in done if entry not in tuned)
    if as_set:
        notes.append(f"Not tuned, so with an advantage less: {', '.join(as_set)}.")
    if len(groups) > 1:
        notes.append("Not all were tuned alike: more trials are an advantage of their own.")
    return notes


def chosen_text(record: Record) -> str:
    """The values that tuning chose, and what they gave.

    >>> chosen_text({"tuning": {"trials": 4, "chosen": {"lr": 0.00123456}, "value": 0.5,
    ...     "default": 0.25}})
    'lr=0.001235 (0.250 -> 0.500)'
    >>> chosen_text({"tuning": {"trials": 4, "chosen": {}, "value": 0.25, "default": 0.25}})
    'as it is, 0.250'
    """
    facts = record["tuning"]
    before, after = (number_text(facts[name]) for name in ("default", "value"))
    if not facts["chosen"]:
        return f"as it is, {after}"
    values = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in facts["chosen"].items()
    ]
    return f"{', '.join(values)} ({before} -> {after})"
