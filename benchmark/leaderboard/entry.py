"""One entry of a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass

from .records import Record, metric_value


@dataclass(frozen=True)
class Entry:
    """A record's entry on a leaderboard.

    rank: from 1; None for what was skipped or failed, or lacks the metric that the
        leaderboard is sorted by
    name: the method's label, with what distinguishes it from others
    worse_than_baseline: the best baseline, where the paired 95 % interval of the difference in the
        leaderboard's metric says that this entry, which is no baseline, is worse

    >>> from adbench.benchmark.leaderboard.entry import Entry
    >>> record = {"profile": "tiny", "seed": 0, "metrics": {"pixel_ap": {"value": 0.5}}}
    >>> entry = Entry(record, 1, "AnoDDPM")
    >>> entry.value("pixel_ap"), entry.profile_and_seed
    (0.5, 'tiny, seed 0')
    """

    record: Record
    rank: int | None
    name: str
    worse_than_baseline: str | None = None

    def value(self, metric: str) -> float | None:
        """A metric at the chosen level; None where it is undefined."""
        return metric_value(self.record, metric)

    @property
    def profile_and_seed(self) -> str:
        return f"{self.record['profile']}, seed {self.record['seed']}"
