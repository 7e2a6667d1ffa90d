"""What a league says in words and numbers: for Markdown, LaTeX, the terminal, and for programs."""

from __future__ import annotations

from typing import Any

from .rankings import CrossDatasetRanking, DatasetRank


def clique_marks(ranking: CrossDatasetRanking) -> list[str]:
    """For each entrant the letters of the cliques that it is in: who shares one is not told apart;
    of one that is in none a dash."""
    inside: list[list[str]] = [[] for _ in ranking.methods]
    for index, clique in enumerate(ranking.cliques):
        for i in clique:
            inside[i].append(chr(ord("a") + index % 26))
    return ["".join(letters) or "-" for letters in inside]


def column_titles(ranking: CrossDatasetRanking) -> list[str]:
    """Of the table in words that `cells` fill."""
    return ["method", "mean rank", "alike", *ranking.datasets]


def table_cells(ranking: CrossDatasetRanking) -> list[list[str]]:
    """A row for each entrant; on a data set its figure, and its rank there in brackets."""

    def text(stand: DatasetRank) -> str:
        return f"{'-' if stand.value is None else f'{stand.value:.3f}'} ({stand.rank:g})"

    return [
        [each.name, f"{each.mean:.2f}", mark, *map(text, each.dataset_ranks)]
        for each, mark in zip(ranking.methods, clique_marks(ranking), strict=True)
    ]


def sentences(ranking: CrossDatasetRanking) -> list[str]:
    """The league's, and what the letters of its table in words mean."""
    alike = ["Methods that share a letter are not told apart."] if ranking.cliques else []
    return [*ranking.notes, *alike]


def as_json(ranking: CrossDatasetRanking) -> dict[str, Any]:
    return {
        "title": ranking.title,
        "metric": ranking.metric,
        "data_sets": ranking.datasets,
        "friedman_p": ranking.p,
        "critical_difference": ranking.critical_difference,
        "not_told_apart": [[ranking.methods[i].name for i in c] for c in ranking.cliques],
        "methods": [
            {
                "name": each.name,
                "baseline": each.baseline,
                "mean_rank": each.mean,
                "data_sets": [
                    {"value": s.value, "rank": s.rank, "files": s.files} for s in each.dataset_ranks
                ],
            }
            for each in ranking.methods
        ],
        "notes": ranking.notes,
    }
