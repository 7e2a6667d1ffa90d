"""Which slices make a volume, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence


def volume_stacks(keys: Sequence[str], groups: Sequence[str]) -> list[list[int]]:
    """The samples of each volume, as indices in the order of its slices.

    Slices with keys such as `case/z041` are of the volume `case`; with other keys, those of a group
    are of one volume. Their order is that of the numbers at the ends of the keys. Slices that a
    dataset left out are missing from the stack, and those around them lie side by side. Every
    sample is in one stack; stacks are ordered by their names.

    keys, groups: (N,) of each sample

    >>> from adbench.benchmark.evaluation.volume_stacks import volume_stacks
    >>> volume_stacks(["a/z010", "a/z009", "b_2", "b_10"], ["a", "a", "b", "b"])
    [[1, 0], [2, 3]]
    >>> volume_stacks(["a/day1/z1", "a/day2/z1"], ["a", "a"])  # two scans of a patient
    [[0], [1]]
    """
    stacks: dict[tuple[str, str], list[int]] = {}
    for index, (key, group) in enumerate(zip(keys, groups, strict=True)):
        match = re.fullmatch(r"(.+)/z[+-]?\d+", key)
        stacks.setdefault((group, match[1] if match else ""), []).append(index)
    return [
        sorted(stacks[name], key=lambda index: (_slice_number(keys[index]), keys[index]))
        for name in sorted(stacks)
    ]


def _slice_number(key: str) -> int:
    """The number at the end of a key, before an ending such as .png; 0 without one."""
    match = re.search(r"((?:(?<=z)[+-])?\d+)\D*$", key.rpartition("/")[2])
    return int(match[1]) if match else 0
