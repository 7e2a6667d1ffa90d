"""Published pools that share subjects: leave those out of the lesser pool, or keep and say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .assignment import Case


class DisjointCases(NamedTuple):
    """cases: those that stay; notes: on who was left out, or stands in two pools."""

    cases: list[Case]
    notes: list[str]


def remove_shared_subjects(
    cases: Sequence[Case], order: Sequence[str], *, published: bool
) -> DisjointCases:
    """A group stays in the first pool of `order` that it stands in, and is left out of others;
    with `published` it stays everywhere, and a note warns of it."""
    owner: dict[str, str] = {}
    for pool in order:
        for case in cases:
            if case.pool == pool:
                owner.setdefault(case.group, pool)
    notes = []
    for pool in order[1:]:
        for first in order[: order.index(pool)]:
            mine = {
                case.group for case in cases if case.pool == pool and owner[case.group] == first
            }
            if not mine:
                continue
            few = ", ".join(sorted(mine)[:5]) + (", ..." if len(mine) > 5 else "")
            who = f"{len(mine)} subject{'s' if len(mine) > 1 else ''}"
            notes.append(
                f"LEAKY as published: {who} of {pool} stand in {first} too ({few}); numbers on "
                "this split are too good (split='corrected' leaves them out)"
                if published
                else f"{who} left out of {pool}, because they stand in {first} too: {few} "
                "(split='published' keeps them)"
            )
    kept = [case for case in cases if published or owner.get(case.group, case.pool) == case.pool]
    return DisjointCases(kept, notes)
