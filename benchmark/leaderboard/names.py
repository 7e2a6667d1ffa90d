"""Names that tell all entries of a leaderboard apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .leaderboard import Leaderboard


def with_distinct_names(board: Leaderboard) -> Leaderboard:
    """The leaderboard, whose entries with a result have profile and seed in their names where two
    would share one.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.leaderboard.names import with_distinct_names
    >>> records = [example_record(seed=0), example_record(seed=1), example_record("pDDPM", 12)]
    >>> (board,) = build_leaderboards(records)
    >>> [entry.name for entry in with_distinct_names(board).done]
    ['AnoDDPM, seed 0', 'AnoDDPM, seed 1', 'pDDPM']
    """
    counts = Counter(entry.name for entry in board.done)
    values: dict[tuple[str, str], set[str]] = {}
    for entry in board.done:
        for part in ("profile", "seed"):
            values.setdefault((entry.name, part), set()).add(str(entry.record[part]))
    renamed = {id(entry): entry for entry in board.entries}
    for entry in board.done:
        if counts[entry.name] > 1:
            differs = [p for p in ("profile", "seed") if len(values[entry.name, p]) > 1]
            words = [
                f"seed {entry.record[part]}" if part == "seed" else str(entry.record[part])
                for part in differs
            ]
            renamed[id(entry)] = replace(entry, name=", ".join([entry.name, *words]))
    summaries = [
        summary._replace(entries=[renamed[id(entry)] for entry in summary.entries])
        for summary in board.seed_summaries
    ]
    entries = [renamed[id(entry)] for entry in board.entries]
    return replace(board, entries=entries, seed_summaries=summaries)
