"""Test samples on which the methods of a board disagree most, with what each made of them.

Scores of two methods have no common scale, so what is compared is the rank of a sample among all
test samples of the board, 1 the most anomalous; the disagreement is from the highest rank that any
method gives it to the lowest. Baselines are shown and not asked, where there are two methods that
are none: the largest disagreement would always be with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...evaluation.metrics.connected_components import Array
from ...evaluation.sample_results import SampleResults
from ...leaderboard.leaderboard import Leaderboard
from .chart import letter
from .images import ImageBudget, ImageGrid, image_grid, open_sheet

MAX_SAMPLES = 6


def score_ranks(score: Array) -> Array:
    """Rank of each sample of (N,), 1 for the highest score; equals share the mean of theirs."""
    _, inverse, counts = np.unique(-score, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # scipy.stats takes 1 s to import


def largest_disagreements(
    board: Leaderboard, results: Mapping[int, SampleResults], keys: set[str]
) -> list[tuple[str, str]]:
    """(key, caption) of the samples among `keys`, the most disputed first, with who says what.

    results: rows of samples of methods of the board, by their place on it
    """
    asked = [k for k in results if not board.done[k].record["method"]["baseline"]]
    asked = asked if len(asked) > 1 else list(results)
    if len(asked) < 2:
        return []
    first = results[asked[0]]
    alike = [k for k in asked if results[k].keys == first.keys]
    if len(alike) < 2:
        return []
    ranks = {k: score_ranks(results[k].score) for k in alike}
    disagreements = []
    for i, key in enumerate(first.keys):
        sample_ranks = [float(ranks[k][i]) for k in alike]
        if key in keys and max(sample_ranks) > min(sample_ranks):
            rank_text = ", ".join(
                f"{letter(k)} {rank:g}" for k, rank in zip(alike, sample_ranks, strict=True)
            )
            kind = "abnormal" if first.label[i] else "normal"
            caption = f"{kind}; ranks {rank_text} of {len(first.keys)}"
            disagreements.append((min(sample_ranks) - max(sample_ranks), key, caption))
    return [(key, caption) for _, key, caption in sorted(disagreements)[:MAX_SAMPLES]]


def disagreement_grid(
    board: Leaderboard, results: Mapping[int, SampleResults], folder: Path, budget: ImageBudget
) -> ImageGrid:
    """The most disputed samples of those on the sheets of all methods that are asked.

    folder: of the pictures. A method without a contact sheet (contact.py) shows its gallery.
    """
    sheets = {
        k: sheet
        for k, row in enumerate(board.done)
        if (sheet := open_sheet(folder, row, budget, ".contact") or open_sheet(folder, row, budget))
        and sheet.layout
    }
    asked = [
        {row["key"] for row in sheet.layout["rows"]} for k, sheet in sheets.items() if k in results
    ]
    if len(asked) < 2:
        return ImageGrid([], [])
    samples = dict(largest_disagreements(board, results, set.intersection(*asked)))
    return image_grid(
        [(board.done[k], sheet) for k, sheet in sheets.items()], samples, ("map",), budget
    )
