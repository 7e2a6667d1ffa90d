"""Sharing cases out to the sets that nobody has published, and keeping those that somebody has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .assignment import Case, deal

PARTS = ("train", "held_out", "val", "test")
PRIORITY = ("train", "held_out", "test", "val")
"""Which sets get a group while there are few."""


def share_out(
    cases: Sequence[Case],
    fractions: Sequence[float],
    seed: int,
    *,
    abnormal: Sequence[str] = ("train", "val", "test"),
) -> dict[str, str]:
    """The split of every case. Pools "val" and "test" are published: they stay whole. The others
    are dealt by group to the sets that are lacking: normal cases to train and held_out always, to
    test and val where these have none; abnormal ones to those of `abnormal` that have none.

    fractions: of cases in train, held_out, val and test; what is published needs none, and the
        rest is scaled up
    There is no val with one kind only: what it would hold is dealt to the others. Where a published
    val holds normal cases only, and nothing abnormal can join it, it is held_out.
    """
    split_of = _shared(cases, fractions, seed, abnormal, PARTS)
    in_val = [case for case in cases if split_of.get(case.name) == "val"]
    if len({bool(case.label) for case in in_val}) == 2 or not in_val:
        return split_of
    given = {case.name: case for case in cases if case.pool == "val"}
    if not given:
        return _shared(cases, fractions, seed, abnormal, ("train", "held_out", "test"))
    if any(case.label for case in given.values()):
        return split_of
    rest = [case for case in cases if case.name not in given]
    parts = ("train", "test")
    return _shared(rest, fractions, seed, abnormal, parts) | dict.fromkeys(given, "held_out")


def _shared(
    cases: Sequence[Case],
    fractions: Sequence[float],
    seed: int,
    abnormal: Sequence[str],
    parts: Sequence[str],
) -> dict[str, str]:
    size: dict[str, float] = dict(zip(PARTS, fractions, strict=True))
    given = {(case.pool, bool(case.label)) for case in cases}
    loose = [case for case in cases if case.pool not in ("val", "test")]
    lacking = [part for part in PRIORITY if part in parts and size[part] > 0]
    healthy = [part for part in lacking if (part, False) not in given or part == "train"]
    ill = [part for part in lacking if part in abnormal]
    ill = [part for part in ill if (part, True) not in given or part == "train"]
    normal = {case.group for case in loose if not case.label}
    mixed = any(case.label for case in loose) or ("val", True) in given
    if not mixed:  # nothing abnormal to choose a level on
        healthy = [part for part in healthy if part != "val"]
    dealt = deal(normal, _scaled(size, healthy), seed)
    dealt |= deal({case.group for case in loose} - normal, _scaled(size, ill), seed)
    return {
        case.name: case.pool if case.pool in ("val", "test") else dealt[case.group]
        for case in cases
    }


def _scaled(size: Mapping[str, float], parts: Sequence[str]) -> dict[str, float]:
    total = sum(size[part] for part in parts)
    return {part: size[part] / total for part in parts}
