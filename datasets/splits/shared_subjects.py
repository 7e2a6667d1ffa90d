"""Published pools that share subjects: removing them from all but one pool, or keeping them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..base import first_names
from .assignment import Case


class DisjointCases(NamedTuple):
    """Cases of pools that share no subject.

    cases: those that remain
    notes: on subjects that were removed, or that are in two pools
    left_out: the files of removed cases, and why

    >>> DisjointCases(cases=[], notes=[]).notes
    []
    """

    cases: list[Case]
    notes: list[str]
    left_out: Mapping[Path, str] = MappingProxyType({})


def remove_shared_subjects(
    cases: Sequence[Case], order: Sequence[str], *, published: bool
) -> DisjointCases:
    """Keep each group in the first pool of `order` that has it, and remove it from the others.

    cases: each with its pool
    order: pools, the preferred first
    published: keep all groups in all pools, and warn in the notes

    >>> from adbench.datasets.splits.assignment import Case
    >>> cases = [Case("a1", "a", {}, "train"), Case("a2", "a", {}, "test")]
    >>> disjoint = remove_shared_subjects(cases, ["test", "train"], published=False)
    >>> [case.name for case in disjoint.cases]
    ['a2']
    """
    owner: dict[str, str] = {}
    for pool in order:
        for case in cases:
            if case.pool == pool:
                owner.setdefault(case.group, pool)
    notes = []
    for pool in order[1:]:
        for preferred in order[: order.index(pool)]:
            shared_groups = {
                case.group for case in cases if case.pool == pool and owner[case.group] == preferred
            }
            if not shared_groups:
                continue
            noun = "subject" if len(shared_groups) == 1 else "subjects"
            notes.append(
                overlap_note(
                    sorted(shared_groups), noun, pool=pool, other=preferred, published=published
                )
            )
    disjoint = [
        case for case in cases if published or owner.get(case.group, case.pool) == case.pool
    ]
    remaining = {path for case in disjoint for path in case.files.values()}
    left_out = {
        path: f"its subject is also in {owner[case.group]}"
        for case in cases
        for path in case.files.values()
        if path not in remaining
    }
    return DisjointCases(disjoint, notes, left_out)


def check_split_policy(split: str) -> str:
    """Return the policy for published splits that leak; ValueError unless it is one of the two.

    split: "corrected" removes what is in two pools, "published" keeps it

    >>> check_split_policy("corrected")
    'corrected'
    """
    if split not in ("corrected", "published"):
        raise ValueError(f"split is 'corrected' or 'published', not {split!r}")
    return split


def overlap_note(names: Sequence[str], noun: str, *, pool: str, other: str, published: bool) -> str:
    """Return the note on what two pools share.

    names: of the shared subjects or images
    noun: what they are, in the plural unless there is one
    pool, other: the pool that loses them, and the preferred one
    published: whether they stay in both pools

    >>> overlap_note(["p1"], "subject", pool="train", other="test", published=False)
    "1 subject removed from train, because also in test: p1 (split='published' keeps them)"
    """
    count, examples = f"{len(names)} {noun}", first_names(names)
    if published:
        return (
            f"LEAKY as published: {count} of {pool} also in {other} ({examples}); scores on this "
            "split are too good (split='corrected' removes them)"
        )
    return (
        f"{count} removed from {pool}, because also in {other}: {examples} "
        "(split='published' keeps them)"
    )
