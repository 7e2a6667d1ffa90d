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
    >>> Entry({"metrics": {"pixel_ap": {"value": 0.5}}}, 1, "AnoDDPM").value("pixel_ap")
    0.5
    """

    record: Record
    rank: int | None
    name: str
    worse_than_baseline: str | None = None

    def value(self, metric: str) -> float | None:
        """A metric at the chosen level; None where it is undefined."""
        return metric_value(self.record, metric)
