"""What a league says in words and numbers: for Markdown, LaTeX, the terminal, and for programs."""

from __future__ import annotations

from typing import Any

from .rankings import League, Stand


def marks(league: League) -> list[str]:
    """For each entrant the letters of the cliques that it is in: who shares one is not told apart;
    of one that is in none a dash."""
    inside: list[list[str]] = [[] for _ in league.entrants]
    for index, clique in enumerate(league.cliques):
        for i in clique:
            inside[i].append(chr(ord("a") + index % 26))
    return ["".join(letters) or "-" for letters in inside]


def heads(league: League) -> list[str]:
    """Of the table in words that `cells` fill."""
    return ["method", "mean rank", "alike", *league.sets]


def cells(league: League) -> list[list[str]]:
    """A row for each entrant; on a data set its figure, and its rank there in brackets."""

    def text(stand: Stand) -> str:
        return f"{'-' if stand.value is None else f'{stand.value:.3f}'} ({stand.rank:g})"

    return [
        [each.name, f"{each.mean:.2f}", mark, *map(text, each.stands)]
        for each, mark in zip(league.entrants, marks(league), strict=True)
    ]


def sentences(league: League) -> list[str]:
    """The league's, and what the letters of its table in words mean."""
    alike = ["Methods that share a letter are not told apart."] if league.cliques else []
    return [*league.notes, *alike]


def as_json(league: League) -> dict[str, Any]:
    return {
        "title": league.title,
        "metric": league.metric,
        "data_sets": league.sets,
        "friedman_p": league.p,
        "critical_difference": league.critical,
        "not_told_apart": [[league.entrants[i].name for i in c] for c in league.cliques],
        "methods": [
            {
                "name": each.name,
                "baseline": each.baseline,
                "mean_rank": each.mean,
                "data_sets": [
                    {"value": s.value, "rank": s.rank, "files": s.files} for s in each.stands
                ],
            }
            for each in league.entrants
        ],
        "notes": league.notes,
    }
