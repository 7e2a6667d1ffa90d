"""Cases, and which split each is in: by group, in an order that only seed and names decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """What is read together.

    name: unique in the dataset, the same wherever the data lie; its samples' keys begin with it
    group: what must not be torn apart (patient, recording)
    files: by role ("image", "mask", "t1"); what they hold is part of the dataset's identity
    pool: the published set that it lies in ("train", "test"), or "" where nothing is published
    label: whether it is abnormal, where that is known before it is read
    extra: what else reading it needs; plain JSON, and part of the identity
    """

    name: str
    group: str
    files: Mapping[str, Path]
    pool: str = ""
    label: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def check_fractions(fractions: Sequence[float], count: int) -> list[float]:
    """The fractions, if they are `count` of them, sum to 1, and the first is not 0."""
    valid = len(fractions) == count and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-6
    if not valid or not fractions[0]:
        raise ValueError(f"fractions are {count} numbers that sum to 1, not {list(fractions)}")
    return [float(fraction) for fraction in fractions]


def assign_groups(
    groups: Iterable[str], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Which split each group is in: in an order that only seed and names decide.

    fractions: of the groups, by split, summing to 1; the first split takes what rounding leaves.
    Every split gets a group as long as there are any, in the order of `fractions`.
    """
    order = sorted(set(groups), key=lambda name: sha256(f"{seed}\0{name}".encode()).digest())
    fractions = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    first_split, *other_splits = list(fractions)[: len(order)] or [""]
    counts = {split: max(1, round(fractions[split] * len(order))) for split in other_splits}
    while sum(counts.values()) >= len(order) > 0 and counts:
        largest = max(counts, key=lambda split: counts[split])
        counts[largest] -= 1
    remaining = len(order) - sum(counts.values())
    splits = [first_split] * remaining + [
        split for split, count in counts.items() for _ in range(count)
    ]
    return dict(zip(order, splits, strict=True))


def assign_pools(
    cases: Sequence[Case], pool_fractions: Mapping[str, Mapping[str, float]], seed: int
) -> dict[str, str]:
    """The split of every case: the groups of each pool dealt by that pool's shares.

    Groups with a normal case, or one whose label is not known, are dealt apart from those with
    abnormal cases only, so that both kinds reach every split.
    """
    split_of: dict[str, str] = {}
    for pool, fractions in pool_fractions.items():
        pool_cases = [case for case in cases if case.pool == pool]
        normal = {case.group for case in pool_cases if not case.label}
        split_of_group = assign_groups(normal, fractions, seed) | assign_groups(
            {c.group for c in pool_cases} - normal, fractions, seed
        )
        split_of |= {case.name: split_of_group[case.group] for case in pool_cases}
    return split_of


def split_training_pool(
    cases: Sequence[Case], fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """Return the split of every case: pool "train" is divided, pools "val" and "test" stay.

    cases: each with its pool
    fractions: of the groups of "train" in train and held_out
    seed: which groups those are

    >>> pools = {"a": "train", "b": "train", "c": "test"}
    >>> cases = [Case(name, name, {}, pool) for name, pool in pools.items()]
    >>> sorted(split_training_pool(cases, [0.5, 0.5], seed=0).values())
    ['held_out', 'test', 'train']
    """
    train, held_out = fractions
    training = {"train": train, "held_out": held_out}
    return assign_pools(
        cases, {"train": training, "val": {"val": 1.0}, "test": {"test": 1.0}}, seed
    )


def groups_in_several_splits(
    cases: Iterable[Case], split_of: Mapping[str, str]
) -> dict[str, set[str]]:
    """The groups that stand in several splits, and in which."""
    splits: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.name in split_of:
            splits[case.group].add(split_of[case.name])
    return {group: group_splits for group, group_splits in splits.items() if len(group_splits) > 1}


def four_way_split(groups: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Groups dealt to train, held_out, val and test; with fewer than four, val goes without."""
    names: tuple[str, ...] = ("train", "held_out", "val", "test")
    fraction_of: dict[str, float] = dict(zip(names, fractions, strict=True))
    groups = set(groups)
    if len(groups) < len(fraction_of):
        del fraction_of["val"]
    return assign_groups(groups, fraction_of, seed)
