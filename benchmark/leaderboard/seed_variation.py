"""Variation between seeds: mean, lowest and highest value of methods that were trained with several
seeds, and pairs of methods whose order depends on the seed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .entry import Entry
from .seed_groups import group_seeds

MAX_PAIRS = 8
"""Pairs named at most."""

COLUMN_TITLES = ("method", "mean", "lowest", "highest", "seed: rank among the same seed's")


class SeedSummary(NamedTuple):
    """A method with one setting and several seeds.

    entries: one a seed, in the seeds' order       values: of the metric that it is sorted by
    ranks: among the repeated methods that have this seed, from 1

    >>> from adbench.benchmark.leaderboard.seed_variation import SeedSummary
    >>> summary = SeedSummary("AnoDDPM", [], {0: 0.4, 1: 0.6}, {0: 2, 1: 1})
    >>> summary.table_cells()
    ['AnoDDPM', '0.500', '0.400', '0.600', '0: 2, 1: 1']
    """

    name: str
    entries: list[Entry]
    values: dict[int, float]
    ranks: dict[int, int]

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)

    def table_cells(self) -> list[str]:
        """Table cells under COLUMN_TITLES."""
        ranks = ", ".join(f"{seed}: {rank}" for seed, rank in self.ranks.items())
        low, high = min(self.values.values()), max(self.values.values())
        return [self.name, *(f"{value:.3f}" for value in (self.mean, low, high)), ranks]


def summarize_seeds(entries: Sequence[Entry], metric: str) -> list[SeedSummary]:
    """Summaries of the methods with several seeds, best mean first.

    >>> from adbench.benchmark.leaderboard.entry import Entry
    >>> from adbench.benchmark.leaderboard.seed_variation import summarize_seeds
    >>> def entry(seed, value):
    ...     method = {"name": "a", "label": "A", "args": {}}
    ...     metrics = {"pixel_ap": {"value": value}}
    ...     record = {"method": method, "profile": "tiny", "seed": seed, "metrics": metrics}
    ...     return Entry(record, None, "A")
    >>> (summary,) = summarize_seeds([entry(0, 0.25), entry(1, 0.75)], "pixel_ap")
    >>> summary.mean, summary.ranks
    (0.5, {0: 1, 1: 1})
    """
    groups = group_seeds([entry for entry in entries if entry.value(metric) is not None])
    repeated = [
        [(int(each.record["seed"]), each.value(metric) or 0.0, each) for each in group.entries]
        for group in groups
        if len(group.entries) > 1
    ]
    of_seed: dict[int, list[float]] = {}
    for members in repeated:
        for seed, value, _ in members:
            of_seed.setdefault(seed, []).append(-value)
    sorted_values = {seed: sorted(values) for seed, values in of_seed.items()}  # best first
    summaries = []
    profiles = {str(entry.record["profile"]) for entry in entries}
    for members in repeated:
        values = {seed: value for seed, value, _ in members}
        ranks = {
            seed: 1 + bisect_left(sorted_values[seed], -value) for seed, value in values.items()
        }
        of_method = [entry for _, _, entry in members]
        name = of_method[0].name + (
            f", {of_method[0].record['profile']}" if len(profiles) > 1 else ""
        )
        summaries.append(SeedSummary(name, of_method, values, ranks))
    return sorted(summaries, key=lambda summary: (-summary.mean, summary.name))


def sentences(summaries: Sequence[SeedSummary], title: str) -> list[str]:
    """Notes on the seeds of a leaderboard that is sorted by the metric of that title.

    >>> from adbench.benchmark.leaderboard.seed_variation import SeedSummary, sentences
    >>> a = SeedSummary("A", [], {0: 0.4, 1: 0.6}, {0: 2, 1: 1})
    >>> b = SeedSummary("B", [], {0: 0.5, 1: 0.5}, {0: 1, 1: 2})
    >>> sentences([a, b], "pixel AP")[-1]
    'The order by pixel AP depends on the seed for A over B (seed 1, not 0).'
    """
    if not summaries:
        return [
            "One seed each: the intervals cover the choice of groups (patients, recordings), not "
            "random variation of the training; use --seeds 0,1,2."
        ]
    notes = [
        "The interval of an entry is of its seed alone; differences between methods "
        "(adbench compare A B) cover the choice of groups and of seeds."
    ]
    flips = _rank_flips(summaries)
    if flips:
        examples = [_rank_flip_text(summaries[a], summaries[b]) for a, b in flips[:MAX_PAIRS]]
        more = f"; and {len(flips) - MAX_PAIRS} pairs more" if len(flips) > MAX_PAIRS else ""
        notes.append(f"The order by {title} depends on the seed for {'; '.join(examples)}{more}.")
    elif len(summaries) > 1:
        notes.append(f"The order by {title} is the same in every seed.")
    return notes


def _rank_flips(summaries: Sequence[SeedSummary]) -> list[tuple[int, int]]:
    """Pairs of methods, as indices, whose order is not the same in all seeds that they share."""
    seeds = sorted({seed for summary in summaries for seed in summary.values})
    values = np.array([[each.values.get(seed, np.nan) for seed in seeds] for each in summaries])
    flips = []
    for a in range(len(summaries) - 1):
        first = (values[a] >= values[a + 1 :]).any(1)
        other = (values[a] < values[a + 1 :]).any(1)  # neither where a seed is not shared: NaN
        flips += [(a, a + 1 + int(b)) for b in np.flatnonzero(first & other)]
    return flips


def _rank_flip_text(a: SeedSummary, b: SeedSummary) -> str:
    """`A over B (seeds 0, 2, not 1)`."""
    shared = [seed for seed in a.values if seed in b.values]
    first = [seed for seed in shared if a.values[seed] >= b.values[seed]]
    yes, no = (
        ", ".join(str(seed) for seed in shared if (seed in first) == part) for part in (True, False)
    )
    return f"{a.name} over {b.name} ({'seeds' if len(first) > 1 else 'seed'} {yes}, not {no})"


def as_json(summaries: Sequence[SeedSummary]) -> list[Mapping[str, Any]]:
    """The summaries as JSON values.

    >>> from adbench.benchmark.leaderboard.seed_variation import SeedSummary, as_json
    >>> as_json([SeedSummary("A", [], {0: 0.4, 1: 0.6}, {0: 1, 1: 1})])[0]["mean"]
    0.5
    """
    return [
        {
            "name": summary.name,
            "mean": summary.mean,
            "values": {str(seed): value for seed, value in summary.values.items()},
            "ranks": {str(seed): rank for seed, rank in summary.ranks.items()},
            "files": [entry.record.get("file") for entry in summary.entries],
        }
        for summary in summaries
    ]
