"""One row of a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass

from .records import Record, metric_value


@dataclass(frozen=True)
class Entry:
    """A record's place on a board.

    rank: from 1; None for what was skipped or failed, or lacks the figure the board is sorted by
    name: the method's label, with what sets it apart
    worse_than_baseline: the baseline that does better than this row, which is none
    """

    record: Record
    rank: int | None
    name: str
    worse_than_baseline: str | None = None

    def value(self, metric: str) -> float | None:
        return metric_value(self.record, metric)
