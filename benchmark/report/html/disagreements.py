"""Test samples on which the methods of a leaderboard disagree most, with the map of each method.

Scores of two methods have no common scale, so what is compared is the rank of a sample among all
test samples of the board, 1 the most anomalous; the disagreement is from the highest rank that any
method gives it to the lowest. Baselines are shown and do not count, where there are two methods
that are none: the largest disagreement would always be with them.
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
    """Return the rank of each of N scores, 1 for the highest; equal scores share their mean rank.

    >>> import numpy as np
    >>> from adbench.benchmark.report.html.disagreements import score_ranks
    >>> score_ranks(np.array([0.2, 0.9, 0.2])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(-score, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # scipy.stats takes 1 s to import


def largest_disagreements(
    board: Leaderboard, results: Mapping[int, SampleResults], keys: set[str]
) -> list[tuple[str, str]]:
    """Return (key, caption) of the samples that methods rank most differently, the largest first.

    results: sample results of entries of the leaderboard, by index
    keys: of the samples to choose from

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.leaderboard.pairwise import sample_results_of
    >>> from adbench.benchmark.report.html.disagreements import largest_disagreements
    >>> board = example_leaderboard()
    >>> results = {k: sample_results_of(entry.record) for k, entry in enumerate(board.done)}
    >>> largest_disagreements(board, results, {"patient 00", "patient 17"})
    [('patient 17', 'abnormal; ranks A 1, B 38 of 40'), ('patient 00', 'abnormal; ranks A 18, B 12
    of 40')]
    """
    compared = [k for k in results if not board.done[k].record["method"]["baseline"]]
    compared = compared if len(compared) > 1 else list(results)
    if len(compared) < 2:
        return []
    first = results[compared[0]]
    alike = [k for k in compared if results[k].keys == first.keys]
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
    """Return the images of the samples that methods rank most differently, with every method's map.

    Samples are those on the contact sheets of all methods with sample results, or in the gallery
    of a method without a contact sheet.

    results: sample results of entries of the leaderboard, by index
    folder: of the images      budget: for the images that the page may hold

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.disagreements import disagreement_grid
    >>> from adbench.benchmark.report.html.images import ImageBudget
    >>> disagreement_grid(example_leaderboard(), {}, Path("no/images"), ImageBudget()).rows
    []
    """
    sheets = {
        k: sheet
        for k, row in enumerate(board.done)
        if (sheet := open_sheet(folder, row, budget, ".contact") or open_sheet(folder, row, budget))
        and sheet.layout
    }
    sheet_keys = [
        {row["key"] for row in sheet.layout["rows"]} for k, sheet in sheets.items() if k in results
    ]
    if len(sheet_keys) < 2:
        return ImageGrid([], [])
    samples = dict(largest_disagreements(board, results, set.intersection(*sheet_keys)))
    return image_grid(
        [(board.done[k], sheet) for k, sheet in sheets.items()], samples, ("map",), budget
    )
