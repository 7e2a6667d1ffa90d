"""A ranking over datasets as table cells, sentences and JSON values."""

from __future__ import annotations

from typing import Any

from .rankings import CrossDatasetRanking, DatasetRank


def clique_marks(ranking: CrossDatasetRanking) -> list[str]:
    """For each method the letters of its cliques, a dash where it is in none.

    Methods that share a letter are not significantly different.

    >>> from adbench.benchmark.leaderboard.rankings import CrossDatasetRanking, RankedMethod
    >>> from adbench.benchmark.leaderboard.rankings_text import clique_marks
    >>> methods = [RankedMethod(name, False, rank, []) for rank, name in enumerate("ABC", 1)]
    >>> clique_marks(CrossDatasetRanking("", "pixel_ap", [], methods, 0.01, 1.2, [[0, 1]], []))
    ['a', 'a', '-']
    """
    inside: list[list[str]] = [[] for _ in ranking.methods]
    for index, clique in enumerate(ranking.cliques):
        for i in clique:
            inside[i].append(chr(ord("a") + index % 26))
    return ["".join(letters) or "-" for letters in inside]


def column_titles(ranking: CrossDatasetRanking) -> list[str]:
    """Column titles of `table_cells`.

    >>> from adbench.benchmark.leaderboard.rankings import CrossDatasetRanking
    >>> from adbench.benchmark.leaderboard.rankings_text import column_titles
    >>> column_titles(CrossDatasetRanking("", "pixel_ap", ["brats"], [], None, None, [], []))
    ['method', 'mean rank', 'alike', 'brats']
    """
    return ["method", "mean rank", "alike", *ranking.datasets]


def table_cells(ranking: CrossDatasetRanking) -> list[list[str]]:
    """Table cells of each method; for each dataset its value, and its rank in brackets.

    >>> from adbench.benchmark.leaderboard.rankings import (
    ...     CrossDatasetRanking, DatasetRank, RankedMethod)
    >>> from adbench.benchmark.leaderboard.rankings_text import table_cells
    >>> methods = [RankedMethod("AnoDDPM", False, 1.0, [DatasetRank(0.5, 1.0, [])])]
    >>> table_cells(CrossDatasetRanking("", "pixel_ap", ["brats"], methods, None, None, [], []))
    [['AnoDDPM', '1.00', '-', '0.500 (1)']]
    """

    def text(dataset_rank: DatasetRank) -> str:
        value = dataset_rank.value
        return f"{'-' if value is None else f'{value:.3f}'} ({dataset_rank.rank:g})"

    return [
        [method.name, f"{method.mean:.2f}", mark, *map(text, method.dataset_ranks)]
        for method, mark in zip(ranking.methods, clique_marks(ranking), strict=True)
    ]


def sentences(ranking: CrossDatasetRanking) -> list[str]:
    """The ranking's notes, and what the letters of its table mean.

    >>> from adbench.benchmark.leaderboard.rankings import CrossDatasetRanking
    >>> from adbench.benchmark.leaderboard.rankings_text import sentences
    >>> sentences(CrossDatasetRanking("", "pixel_ap", [], [], 0.5, 1.2, [[0, 1]], ["Few data."]))
    ['Few data.', 'Methods that share a letter are not significantly different.']
    """
    alike = (
        ["Methods that share a letter are not significantly different."] if ranking.cliques else []
    )
    return [*ranking.notes, *alike]


def as_json(ranking: CrossDatasetRanking) -> dict[str, Any]:
    """The ranking as JSON values.

    >>> from adbench.benchmark.leaderboard.rankings import CrossDatasetRanking
    >>> from adbench.benchmark.leaderboard.rankings_text import as_json
    >>> as_json(CrossDatasetRanking("", "pixel_ap", [], [], 0.5, 1.2, [], []))["friedman_p"]
    0.5
    """
    return {
        "title": ranking.title,
        "metric": ranking.metric,
        "data_sets": ranking.datasets,
        "friedman_p": ranking.p,
        "critical_difference": ranking.critical_difference,
        "not_told_apart": [[ranking.methods[i].name for i in c] for c in ranking.cliques],
        "methods": [
            {
                "name": method.name,
                "baseline": method.baseline,
                "mean_rank": method.mean,
                "data_sets": [
                    {"value": s.value, "rank": s.rank, "files": s.files}
                    for s in method.dataset_ranks
                ],
            }
            for method in ranking.methods
        ],
        "notes": ranking.notes,
    }
