"""What a profile changes of the data, in one line for the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...datasets.base import COLOURS, SampleStatistics
from ..registry.registry import Entry


def profile_changes(
    entry: Entry, profile: str | None, overrides: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the arguments of a dataset that a profile changes: (without it, with it).

    entry: of the dataset
    profile: its name
    overrides: arguments that the user sets, which no profile changes

    >>> from adbench.benchmark.experiments.profile_changes import profile_changes
    >>> from adbench.benchmark.registry.registry import Registry
    >>> profile_changes(Registry.read().dataset("mvtec"), "tiny", {"size": 64})
    {'channels': (None, 1)}
    """
    plain, actual = entry.arguments(None, overrides), entry.arguments(profile, overrides)
    changes = {name: (plain[name], value) for name, value in actual.items()}
    return {name: pair for name, pair in changes.items() if pair[0] != pair[1]}


def data_line(
    name: str,
    profile: str | None,
    changes: Mapping[str, tuple[Any, Any]],
    statistics: SampleStatistics | None = None,
) -> str:
    """Return what a profile changes of a dataset, and how to keep more of it; "" for nothing.

    name: of the dataset
    profile: its name
    changes: of profile_changes
    statistics: of its samples, with the shapes in which they are stored, if they were read

    >>> from adbench.benchmark.experiments.profile_changes import data_line
    >>> data_line("mvtec", "tiny", {"size": (256, 32), "channels": (None, 1)})
    'data: mvtec, size 256 -> 32, gray (profile tiny); --set mvtec.size=256 keeps more'
    """
    if not changes:
        return ""
    shapes = "" if statistics is None else statistics.stored_text()
    shown_apart = {"size", "channels"} if shapes else set()
    texts = [shapes, *(_change_text(k, *v) for k, v in changes.items() if k not in shown_apart)]
    first = next(iter(k for k in ("size", "every", *changes) if k in changes))
    without = changes[first][0]
    keeps = "null" if without is None else str(without).replace(" ", "")
    described = ", ".join(filter(None, texts))
    dataset = name.partition("/")[0]
    return (
        f"data: {name}, {described} (profile {profile}); --set {dataset}.{first}={keeps} keeps more"
    )


def _change_text(name: str, without: Any, value: Any) -> str:
    if name == "every" and isinstance(value, int):
        return f"every {value}{'th' if value > 3 else ('st', 'nd', 'rd')[value - 1]} slice"
    if name == "channels" and value in COLOURS:
        return COLOURS[value]
    return f"{name} {_value_text(without)} -> {_value_text(value)}"


def _value_text(value: Any) -> str:
    return "all" if value is None else str(value)
