"""Sharing cases out to the sets that nobody has published, and keeping those that somebody has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .assignment import Case, assign_groups

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
    """The split of every case. Pools "val" and "test" are published: they stay whole. The others
    are dealt by group to the sets that are lacking: normal cases to train and held_out always, to
    test and val where these have none; abnormal ones to those of `abnormal_splits` that have none.

    fractions: of cases in train, held_out, val and test; what is published needs none, and the
        rest is scaled up
    There is no val with one kind only: what it would hold is dealt to the others. Where a published
    val holds normal cases only, and nothing abnormal can join it, it is held_out.
    """
    split_of = _assign(cases, fractions, seed, abnormal_splits, SPLITS)
    in_val = [case for case in cases if split_of.get(case.name) == "val"]
    if len({bool(case.label) for case in in_val}) == 2 or not in_val:
        return split_of
    given = {case.name: case for case in cases if case.pool == "val"}
    if not given:
        return _assign(cases, fractions, seed, abnormal_splits, ("train", "held_out", "test"))
    if any(case.label for case in given.values()):
        return split_of
    rest = [case for case in cases if case.name not in given]
    parts = ("train", "test")
    return _assign(rest, fractions, seed, abnormal_splits, parts) | dict.fromkeys(given, "held_out")


def _assign(
    cases: Sequence[Case],
    fractions: Sequence[float],
    seed: int,
    abnormal_splits: Sequence[str],
    splits: Sequence[str],
) -> dict[str, str]:
    size: dict[str, float] = dict(zip(SPLITS, fractions, strict=True))
    given = {(case.pool, bool(case.label)) for case in cases}
    loose = [case for case in cases if case.pool not in ("val", "test")]
    lacking = [part for part in PRIORITY if part in splits and size[part] > 0]
    healthy = [part for part in lacking if (part, False) not in given or part == "train"]
    ill = [part for part in lacking if part in abnormal_splits]
    ill = [part for part in ill if (part, True) not in given or part == "train"]
    normal = {case.group for case in loose if not case.label}
    mixed = any(case.label for case in loose) or ("val", True) in given
    if not mixed:  # nothing abnormal to choose a level on
        healthy = [part for part in healthy if part != "val"]
    dealt = assign_groups(normal, _normalise_fractions(size, healthy), seed)
    dealt |= assign_groups(
        {case.group for case in loose} - normal, _normalise_fractions(size, ill), seed
    )
    return {
        case.name: case.pool if case.pool in ("val", "test") else dealt[case.group]
        for case in cases
    }


def _normalise_fractions(fractions: Mapping[str, float], splits: Sequence[str]) -> dict[str, float]:
    total = sum(fractions[part] for part in splits)
    return {part: fractions[part] / total for part in splits}
