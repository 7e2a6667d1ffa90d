"""Sharing results: merging folders of several machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sharing.merge import MergeReport


def merge(
    folders: Sequence[str | Path], to: str | Path, *, separate_boards: bool = False
) -> MergeReport:
    """Merge folders of results into one: see `sharing.merge.merge_results`.

    folders: of several machines      to: a new folder, or one of them
    separate_boards: accept folders that share no leaderboard of a dataset
    Raises MergeError, with all that does not belong together, before anything is written.

    >>> import adbench
    >>> adbench.merge(["no/such/folder"], "all")
    Traceback (most recent call last):
    adbench.benchmark.leaderboard.records.ReportError: no records in no/such/folder/records: ...
    """
    from ..sharing.merge import merge_results

    return merge_results(folders, to, separate_boards=separate_boards)
