"""What other seeds say: methods of a board that were trained more than once, how far their
trainings lie apart, and whose order is not the same in all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .entry import Entry

MAX_PAIRS = 8
"""Pairs named at most."""

COLUMN_TITLES = ("method", "mean", "lowest", "highest", "seed: rank among the same seed's")


class SeedSummary(NamedTuple):
    """A method with one setting and several seeds.

    entries: one a seed, in the seeds' order       values: of the metric that it is sorted by
    ranks: among the repeated methods that have this seed, from 1
    """

    name: str
    entries: list[Entry]
    values: dict[int, float]
    ranks: dict[int, int]

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)

    def table_cells(self) -> list[str]:
        """What stands under HEADS."""
        ranks = ", ".join(f"{seed}: {rank}" for seed, rank in self.ranks.items())
        low, high = min(self.values.values()), max(self.values.values())
        return [self.name, *(f"{value:.3f}" for value in (self.mean, low, high)), ranks]


def summarize_seeds(entries: Sequence[Entry], metric: str) -> list[SeedSummary]:
    """Of rows with a result, best mean first; empty where nothing has two seeds."""
    found: dict[str, list[tuple[int, float, Entry]]] = {}
    for row in entries:
        value, method = row.value(metric), row.record["method"]
        if value is not None:
            own = [method["name"], method["args"], row.record["profile"], row.name]
            key = json.dumps(own, sort_keys=True)
            found.setdefault(key, []).append((int(row.record["seed"]), value, row))
    several = [sorted(each, key=lambda part: part[0]) for each in found.values() if len(each) > 1]
    made = []
    profiles = {str(row.record["profile"]) for row in entries}
    for own in several:
        values = {seed: value for seed, value, _ in own}
        ranks = {
            seed: 1 + sum(v > value for other in several for s, v, _ in other if s == seed)
            for seed, value in values.items()
        }
        rows = [row for _, _, row in own]
        name = rows[0].name + (f", {rows[0].record['profile']}" if len(profiles) > 1 else "")
        made.append(SeedSummary(name, rows, values, ranks))
    return sorted(made, key=lambda repeat: (-repeat.mean, repeat.name))


def sentences(summaries: Sequence[SeedSummary], title: str) -> list[str]:
    """What to know of the seeds of a board, sorted by the metric of that title."""
    if not summaries:
        return [
            "One seed each: the intervals hold what other groups would change, and nothing of what "
            "another training would (--seeds 0,1,2)."
        ]
    said = [
        "The interval of a row is of its seed alone; differences between methods "
        "(adbench compare A B) hold groups and seeds."
    ]
    flips = [pair for a, b in combinations(summaries, 2) if (pair := _rank_flip(a, b))]
    if flips:
        more = f"; and {len(flips) - MAX_PAIRS} pairs more" if len(flips) > MAX_PAIRS else ""
        said.append(
            f"The order by {title} hangs on the seed for {'; '.join(flips[:MAX_PAIRS])}{more}."
        )
    elif len(summaries) > 1:
        said.append(f"The order by {title} is the same in every seed.")
    return said


def _rank_flip(a: SeedSummary, b: SeedSummary) -> str | None:
    """`A over B (seeds 0, 2, not 1)`, where shared seeds do not agree."""
    shared = [seed for seed in a.values if seed in b.values]
    first = [seed for seed in shared if a.values[seed] >= b.values[seed]]
    other = [seed for seed in shared if seed not in first]
    if not first or not other:
        return None
    yes, no = (", ".join(map(str, part)) for part in (first, other))
    return f"{a.name} over {b.name} ({'seeds' if len(first) > 1 else 'seed'} {yes}, not {no})"


def as_json(summaries: Sequence[SeedSummary]) -> list[Mapping[str, Any]]:
    return [
        {
            "name": repeat.name,
            "mean": repeat.mean,
            "values": {str(seed): value for seed, value in repeat.values.items()},
            "ranks": {str(seed): rank for seed, rank in repeat.ranks.items()},
            "files": [row.record.get("file") for row in repeat.entries],
        }
        for repeat in summaries
    ]
