"""Cases, and the assignment of their groups to splits by seed and names alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from .case_files import CaseFiles

NOTHING: Mapping[str, Any] = {}
"""What all cases without extras share."""


@dataclass(frozen=True, slots=True)
class Case:
    """The files that are read together.

    name: unique in the dataset, the same wherever the data lie; keys of its samples begin with it
    group: the patient or recording, which stays in one split
    files: by role ("image", "mask", "t1"); their contents are part of the cache key
    pool: the published set of the case ("train", "test"), or "" where nothing is published
    label: whether the case is abnormal, where that is known before it is read
    extra: what else reading it needs; plain JSON, and part of the cache key

    >>> Case("scan-1", "patient-1", files={}).pool
    ''
    """

    name: str
    group: str
    files: Mapping[str, Path]
    pool: str = ""
    label: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", CaseFiles(self.files))
        if not self.extra:
            object.__setattr__(self, "extra", NOTHING)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all files as text, without the Path objects that `files` makes of them.

        >>> Case("scan-1", "patient-1", {"image": Path("a.png")}).paths
        ('a.png',)
        """
        assert isinstance(self.files, CaseFiles)
        return self.files.texts


def check_fractions(fractions: Sequence[float], count: int) -> list[float]:
    """Return the fractions as floats; ValueError unless they are valid.

    fractions: `count` numbers >= 0 that sum to 1; the first is not 0

    >>> check_fractions([0.9, 0.1], 2)
    [0.9, 0.1]
    """
    valid = len(fractions) == count and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-6
    if not valid or not fractions[0]:
        raise ValueError(f"fractions are {count} numbers that sum to 1, not {list(fractions)}")
    return [float(fraction) for fraction in fractions]


def normalise_fractions(
    fractions: Mapping[str, float], splits: Iterable[str] | None = None
) -> dict[str, float]:
    """Return fractions scaled so that they sum to 1.

    fractions: of each split
    splits: those that take part; None for all

    >>> normalise_fractions({"train": 0.6, "val": 0.2, "test": 0.2}, ["train", "val"])["train"]
    0.7499999999999999
    """
    chosen = {split: fractions[split] for split in (fractions if splits is None else splits)}
    total = sum(chosen.values()) or 1.0
    return {split: fraction / total for split, fraction in chosen.items()}


def assign_groups(
    groups: Iterable[str], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the split of each group, in an order that only seed and names decide.

    groups: names; duplicates count once
    fractions: of the groups in each split, summing to 1; the first split takes what rounding
        leaves. Every split gets a group as long as there are any, in this order
    seed: which groups go where

    >>> assign_groups(["a", "b", "c", "d"], {"train": 0.5, "test": 0.5}, seed=0)
    {'d': 'train', 'c': 'train', 'a': 'test', 'b': 'test'}
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
    """Return the split of every case, assigning the groups of each pool by its own fractions.

    cases: those of pools without fractions are left out
    pool_fractions: the fractions of each split, by pool
    seed: which groups go where

    Groups with a normal case, or one whose label is not known, are assigned separately from those
    with abnormal cases only, so that both kinds reach every split.

    >>> cases = [Case(name, name, {}, pool="train") for name in "abcd"]
    >>> assign_pools(cases, {"train": {"train": 0.5, "held_out": 0.5}}, seed=0)
    {'a': 'held_out', 'b': 'held_out', 'c': 'train', 'd': 'train'}
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
    """Return the groups that are in several splits, and those splits.

    cases: those without an entry in `split_of` are ignored
    split_of: split by case name

    >>> cases = [Case("a1", "a", {}), Case("a2", "a", {})]
    >>> sorted(groups_in_several_splits(cases, {"a1": "train", "a2": "test"})["a"])
    ['test', 'train']
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.name in split_of:
            splits[case.group].add(split_of[case.name])
    return {group: group_splits for group, group_splits in splits.items() if len(group_splits) > 1}


def four_way_split(groups: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Return the split of each group: train, held_out, val or test; below four groups, no val.

    groups: names; duplicates count once
    fractions: of the groups in train, held_out, val and test
    seed: which groups go where

    >>> sorted(four_way_split("abc", [0.4, 0.2, 0.2, 0.2], seed=0).values())
    ['held_out', 'test', 'train']
    """
    names: tuple[str, ...] = ("train", "held_out", "val", "test")
    fraction_of: dict[str, float] = dict(zip(names, fractions, strict=True))
    groups = set(groups)
    if len(groups) < len(fraction_of):
        del fraction_of["val"]
    return assign_groups(groups, fraction_of, seed)
