"""Assigning cases to the splits that a published dataset lacks, and keeping those it has."""

from __future__ import annotations

from collections.abc import Sequence

from .assignment import Case, assign_groups, normalise_fractions

SPLITS = ("train", "held_out", "val", "test")
PRIORITY = ("train", "held_out", "test", "val")
"""Which sets get a group while there are few."""


def assign_unpublished(
    cases: Sequence[Case],
    fractions: Sequence[float],
    seed: int,
    *,
    abnormal_splits: Sequence[str] = ("train", "val", "test"),
) -> dict[str, str]:
    """Return the split of every case; published pools "val" and "test" stay complete.

    The other cases are assigned by group to the missing splits: normal cases to train and held_out
    always, to test and val where these have none; abnormal cases to those of `abnormal_splits` that
    have none. There is no val with one kind only: its cases go to the other splits. A published val
    of normal cases that no abnormal case can join becomes held_out.

    cases: each with its pool
    fractions: of cases in train, held_out, val and test; published splits need none, and the others
        are scaled up
    seed: which groups go where
    abnormal_splits: those that may hold abnormal cases

    >>> from adbench.datasets.splits.assignment import Case
    >>> cases = [Case(name, name, {}, "train", False) for name in "abcd"]
    >>> cases.append(Case("t", "t", {}, "test", True))
    >>> assign_unpublished(cases, [0.6, 0.1, 0.1, 0.2], seed=0)
    {'a': 'held_out', 'b': 'test', 'c': 'train', 'd': 'train', 't': 'test'}
    """
    split_of = _assign(cases, fractions, seed, abnormal_splits, SPLITS)
    in_val = [case for case in cases if split_of.get(case.name) == "val"]
    if len({bool(case.label) for case in in_val}) == 2 or not in_val:
        return split_of
    published_val = {case.name: case for case in cases if case.pool == "val"}
    if not published_val:
        return _assign(cases, fractions, seed, abnormal_splits, ("train", "held_out", "test"))
    if any(case.label for case in published_val.values()):
        return split_of
    other_cases = [case for case in cases if case.name not in published_val]
    splits = ("train", "test")
    return _assign(other_cases, fractions, seed, abnormal_splits, splits) | dict.fromkeys(
        published_val, "held_out"
    )


def _assign(
    cases: Sequence[Case],
    fractions: Sequence[float],
    seed: int,
    abnormal_splits: Sequence[str],
    splits: Sequence[str],
) -> dict[str, str]:
    fraction_of: dict[str, float] = dict(zip(SPLITS, fractions, strict=True))
    published = {(case.pool, bool(case.label)) for case in cases}
    unpublished = [case for case in cases if case.pool not in ("val", "test")]
    lacking = [split for split in PRIORITY if split in splits and fraction_of[split] > 0]
    normal_splits = [
        split for split in lacking if (split, False) not in published or split == "train"
    ]
    abnormal_targets = [split for split in lacking if split in abnormal_splits]
    abnormal_targets = [
        split for split in abnormal_targets if (split, True) not in published or split == "train"
    ]
    normal = {case.group for case in unpublished if not case.label}
    has_abnormal = any(case.label for case in unpublished) or ("val", True) in published
    if not has_abnormal:  # nothing abnormal to choose a level on
        normal_splits = [split for split in normal_splits if split != "val"]
    split_of_group = assign_groups(normal, normalise_fractions(fraction_of, normal_splits), seed)
    split_of_group |= assign_groups(
        {case.group for case in unpublished} - normal,
        normalise_fractions(fraction_of, abnormal_targets),
        seed,
    )
    return {
        case.name: case.pool if case.pool in ("val", "test") else split_of_group[case.group]
        for case in cases
    }
