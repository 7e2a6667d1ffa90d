"""How a method's metric differs between subgroups of the test data, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .records import Record
from .text import interval_text, number_text

MAX_NOTES = 12
"""Lines at most: those of the largest gaps."""


def subgroup_notes(records: Sequence[Record], metric: str, title: str) -> list[str]:
    """Return a line for each method and field of metadata: the metric of every subgroup with its
    interval, and the largest gap between two of them; the largest gaps first, MAX_NOTES at most.

    metric, title: the name of the metric in a record and in words

    >>> from adbench.benchmark.leaderboard.subgroup_gaps import subgroup_notes
    >>> subgroups = {name: {"metrics": {"image_auroc": {"value": value, "low": value - 0.04,
    ...                                                 "high": value + 0.04}}}
    ...              for name, value in (("F", 0.9), ("M", 0.8))}
    >>> gap = {"higher": "F", "lower": "M", "value": 0.1, "low": 0.02, "high": 0.18, "pairs": 1}
    >>> record = {"method": {"label": "PCA"}, "seed": 0,
    ...           "metadata": {"sex": {"subgroups": subgroups, "gaps": {"image_auroc": gap}}}}
    >>> subgroup_notes([record], "image_auroc", "image AUROC")
    ['PCA (seed 0), image AUROC by sex: F 0.900 [0.860, 0.940], M 0.800 [0.760, 0.840]; largest gap
    0.100 [0.020, 0.180] (F over M).']
    """
    lines: list[tuple[float, str]] = []
    for record in records:
        for name, field in (record.get("metadata") or {}).items():
            gap = field["gaps"].get(metric)
            if gap is None:
                continue
            values = ", ".join(
                f"{value} {_with_interval(subgroup['metrics'][metric])}"
                for value, subgroup in sorted(
                    field["subgroups"].items(), key=lambda item: subgroup_order(item[0])
                )
            )
            among = f", of {gap['pairs']} pairs" if gap["pairs"] > 1 else ""
            largest = f"{_with_interval(gap)} ({gap['higher']} over {gap['lower']}{among})"
            method = f"{record['method']['label']} (seed {record['seed']})"
            lines.append(
                (gap["value"], f"{method}, {title} by {name}: {values}; largest gap {largest}.")
            )
    lines.sort(key=lambda line: -line[0])
    notes = [line for _, line in lines[:MAX_NOTES]]
    if len(lines) > MAX_NOTES:
        notes.append(f"Smaller gaps between subgroups: {len(lines) - MAX_NOTES} more, in records.")
    return notes


def subgroup_order(name: str) -> tuple[float, str]:
    """Return what subgroups are sorted by: ranges of a number in its order, words by the alphabet.

    >>> from adbench.benchmark.leaderboard.subgroup_gaps import subgroup_order
    >>> sorted(["60 and above", "below 9", "9 to 60"], key=subgroup_order)
    ['below 9', '9 to 60', '60 and above']
    """
    first, _, _ = name.partition(" ")
    if first == "below":
        return -math.inf, name
    try:
        return float(first), name
    except ValueError:
        return math.inf, name


def _with_interval(values: Mapping[str, Any]) -> str:
    bounds = interval_text(values.get("low"), values.get("high"))
    return " ".join(filter(None, [number_text(values["value"]), bounds]))
