"""What the page says of pairs of methods, where the rows of single samples are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...evaluation.sample_results import (
    SampleResults,
    SampleResultsError,
    significance_against_best,
)
from ...leaderboard.columns import TITLES
from ...leaderboard.leaderboard import Board, number
from ...leaderboard.pairwise import (
    ALIKE,
    BETTER,
    WORSE,
    Contrast,
    PairError,
    able,
    contrast,
    rows_of,
)
from .charts import histogram
from .svg import STYLES, Chart, letter
from .tables import Cell, Head, Line, Table

SIGNS = {BETTER: "▲", WORSE: "▼", ALIKE: "≈"}
NO_ROWS = "for fewer than two records here the rows of single samples are kept."


@dataclass(frozen=True)
class Contrasts:
    """matrix: row minus column in the metric; why: there is none; verdicts: against the best, of
    rows of the board by their place; of_means: the same of methods with several seeds, by theirs;
    histograms: of those rows that hold scores; known: their rows of samples, by place"""

    matrix: Table | None = None
    why: str = NO_ROWS
    metric: str = ""
    verdicts: Mapping[int, str] = field(default_factory=dict)
    of_means: Mapping[int, str] = field(default_factory=dict)
    histograms: list[Chart] = field(default_factory=list)
    known: Mapping[int, SampleResults] = field(default_factory=dict)


def contrasts(board: Board, folder: Path | None = None) -> Contrasts:
    """folder: of the results, where `samples` lies."""
    known = {
        k: rows
        for k, row in enumerate(board.done)
        if (rows := rows_of(row.record, folder)) is not None
    }
    shown = [chart for k, rows in known.items() if (chart := _scores(board, k, rows))]
    if len(known) < 2:
        return Contrasts(histograms=shown, known=known)
    names = able(list(known.values()))
    metric = board.metric if board.metric in names else "image_auroc"
    try:
        matrix = _matrix(board, metric, known)
        verdicts = _verdicts(metric, {k: [rows] for k, rows in known.items()})
        of_means = _verdicts(metric, _repeated(board, known))
    except (PairError, SampleResultsError) as error:
        return Contrasts(why=f"{error}.", histograms=shown, known=known)
    return Contrasts(matrix, "", TITLES.get(metric, metric), verdicts, of_means, shown, known)


def _repeated(board: Board, known: Mapping[int, SampleResults]) -> dict[int, list[SampleResults]]:
    """Of methods with several seeds, by their place among these, the rows of each; empty where the
    rows of one are not kept."""
    place = {id(row): k for k, row in enumerate(board.done)}
    if any(place[id(row)] not in known for repeat in board.repeats for row in repeat.rows):
        return {}
    return {k: [known[place[id(row)]] for row in each.rows] for k, each in enumerate(board.repeats)}


def _scores(board: Board, k: int, rows: SampleResults) -> Chart | None:
    seen = np.isfinite(rows.score)
    name = f"{letter(k)} {board.done[k].name}"
    return histogram(name, rows.score[seen].tolist(), rows.label[seen].tolist())


def _matrix(board: Board, metric: str, known: Mapping[int, SampleResults]) -> Table:
    lines = []
    for k, rows in known.items():
        cells = [
            Cell("", kind="text") if j == k else _cell(contrast([rows], [other], metric))
            for j, other in known.items()
        ]
        lines.append(Line(board.done[k].name, letter(k), k % STYLES, "", False, "", cells))
    said = (
        f"Row minus column in {TITLES.get(metric, metric)}, with paired 95 % intervals from the "
        "same resamples of groups. ▲ the row is better, ▼ it is worse, ≈ not distinguishable; "
        "the intervals are not corrected for the number of pairs."
    )
    return Table(said, [Head(letter(k), "text") for k in known], lines)


def _cell(found: Contrast) -> Cell:
    bounds = "no interval: too few groups"
    if found.low is not None and found.high is not None:
        bounds = f"[{found.low:+.3f}, {found.high:+.3f}]"
    source = f"{found.verdict}, {found.samples} samples of {found.groups} groups"
    source += "" if found.p is None else f", p = {found.p:.3g}"
    text = f"{SIGNS[found.verdict]} {found.value:+.3f}"
    return Cell(text, source, bounds=bounds, kind="text")


def _verdicts(metric: str, known: Mapping[int, Sequence[SampleResults]]) -> dict[int, str]:
    """Against the best in the metric, of each the rows of its seeds; corrected over the methods by
    Holm."""
    if len(known) < 2:
        return {}
    found = significance_against_best({str(k): rows for k, rows in known.items()}, metric)
    said = {}
    for k in known:
        standing = found[str(k)]
        word = standing.verdict.removesuffix(" from the best")
        said[k] = word if standing.p is None else f"{word}, p = {number(standing.p)}"
        if standing.p is None and standing.verdict == "not distinguishable from the best":
            said[k] = "unknown: too few groups"
    return said
