"""Paired comparisons of the methods of a leaderboard, where sample results are stored."""

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
from ...leaderboard.answer import p_text
from ...leaderboard.columns import TITLES
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.pairwise import (
    ALIKE,
    BETTER,
    DEFAULT_METRICS,
    WORSE,
    PairedComparison,
    PairError,
    compare_pair,
    sample_results_of,
    shared_metric,
)
from .chart import MAX_METHODS, STYLES, Chart, letter
from .charts import score_histogram
from .table_types import ColumnHead, Table, TableCell, TableLine

SIGNS = {BETTER: "▲", WORSE: "▼", ALIKE: "≈"}
MAX_HISTOGRAMS = 4
"""Methods of a leaderboard, the best, whose scores are drawn."""
NO_SAMPLE_RESULTS = "for fewer than two records here results of single samples are stored."


@dataclass(frozen=True)
class BoardComparisons:
    """Comparisons of the entries of a leaderboard with the best, and in pairs.

    matrix: method of the row minus that of the column in `metric`, each by the mean of its seeds;
        None for `missing_reason`
    verdicts: of entries against the best, by index
    mean_verdicts: the same of methods with several seeds, by index of the seed summary
    histograms: of scores      results: sample results of entries, by index
    damaged: files of sample results that cannot be read, each with what mends it

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.report.html.pairwise import compare_board
    >>> (board,) = build_leaderboards([example_record() | {"samples": None}])
    >>> comparisons = compare_board(board)
    >>> comparisons.matrix, comparisons.missing_reason
    (None, 'for fewer than two records here results of single samples are stored.')
    """

    matrix: Table | None = None
    missing_reason: str = NO_SAMPLE_RESULTS
    metric: str = ""
    verdicts: Mapping[int, str] = field(default_factory=dict)
    mean_verdicts: Mapping[int, str] = field(default_factory=dict)
    histograms: list[Chart] = field(default_factory=list)
    results: Mapping[int, SampleResults] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def compare_board(
    board: Leaderboard, folder: Path | None = None, has_charts: bool = True
) -> BoardComparisons:
    """Compare the entries of a leaderboard with the best, and the best ones in pairs.

    folder: of the results, where `samples` lies        has_charts: whether to draw scores

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.pairwise import compare_board
    >>> comparisons = compare_board(example_leaderboard(), has_charts=False)
    >>> comparisons.metric, comparisons.verdicts[0]
    ('image AUROC', 'best')
    >>> [cell.text for cell in comparisons.matrix.lines[0].cells]
    ['', '▲ +0.300']
    """
    results_by_row: dict[int, SampleResults] = {}
    verdicts: dict[int, str] = {}
    damaged: list[str] = []
    for k, row in enumerate(board.done):
        try:
            rows = sample_results_of(row.record, folder, {board.metric, *DEFAULT_METRICS})
        except SampleResultsError as error:
            damaged.append(f"{error}")
            verdicts[k] = "unknown: its file of samples is damaged"
        else:
            results_by_row |= {} if rows is None else {k: rows}
    methods = _results_by_method(board, results_by_row)
    drawn = list(methods.items())[: MAX_HISTOGRAMS if has_charts else 0]
    shown = [chart for k, seeds in drawn if (chart := _score_histogram(board, k, seeds))]
    if len(results_by_row) < 2:
        return BoardComparisons(histograms=shown, results=results_by_row, damaged=damaged)
    having = {
        k: rows for k, rows in results_by_row.items() if rows.values.get(board.metric) is not None
    }
    if len(having) < 2:  # too few: all by a metric that each of them has
        having = results_by_row
    metric = shared_metric(list(having.values()), board.metric)
    lacking = f"no {TITLES.get(metric, metric)}"
    try:
        matrix = _comparison_matrix(board, metric, methods) if len(methods) > 1 else None
        verdicts |= {k: lacking for k in results_by_row.keys() - having.keys()}
        verdicts |= _verdicts(metric, {k: [rows] for k, rows in having.items()})
        of_means = _verdicts(metric, _results_by_seed(board, having))
    except (PairError, SampleResultsError) as error:
        return BoardComparisons(
            missing_reason=f"{error}.", histograms=shown, results=results_by_row, damaged=damaged
        )
    return BoardComparisons(
        matrix, "", TITLES.get(metric, metric), verdicts, of_means, shown, results_by_row, damaged
    )


def _results_by_method(
    board: Leaderboard, results_by_row: Mapping[int, SampleResults]
) -> dict[int, dict[str, SampleResults]]:
    """The sample results of each method that has some, by its index and by seed."""
    by_record = {id(board.done[k].record): rows for k, rows in results_by_row.items()}
    by_method = {
        k: {
            str(entry.record["seed"]): by_record[id(entry.record)]
            for entry in group.entries
            if id(entry.record) in by_record
        }
        for k, group in enumerate(board.methods)
    }
    return {k: seeds for k, seeds in by_method.items() if seeds}


def _results_by_seed(
    board: Leaderboard, results_by_row: Mapping[int, SampleResults]
) -> dict[int, list[SampleResults]]:
    """The sample results of each seed of methods with several, by index of the seed summary.

    Empty where those of one seed are not stored.
    """
    index = {id(row): k for k, row in enumerate(board.done)}
    if any(
        index[id(row)] not in results_by_row
        for repeat in board.seed_summaries
        for row in repeat.entries
    ):
        return {}
    return {
        k: [results_by_row[index[id(row)]] for row in each.entries]
        for k, each in enumerate(board.seed_summaries)
    }


def _score_histogram(
    board: Leaderboard, k: int, seeds: Mapping[str, SampleResults]
) -> Chart | None:
    """Of the first seed, for scores of different trainings have no common scale."""
    seed, rows = next(iter(seeds.items()))
    seen = np.isfinite(rows.score)
    name = f"{letter(k)} {board.methods[k].name}" + (f", seed {seed}" if len(seeds) > 1 else "")
    return score_histogram(
        f"scores-{letter(k)}", name, rows.score[seen].tolist(), rows.label[seen].tolist()
    )


def _comparison_matrix(
    board: Leaderboard, metric: str, methods: Mapping[int, Mapping[str, SampleResults]]
) -> Table:
    best = {k: list(seeds.values()) for k, seeds in list(methods.items())[:MAX_METHODS]}
    pairs = {
        (k, j): compare_pair(seeds, others, shared_metric([*seeds, *others], metric))
        for k, seeds in best.items()
        for j, others in best.items()
        if j != k
    }
    counts = {(pair.samples, pair.groups) for pair in pairs.values()}
    lines = []
    for k in best:
        cells = [
            TableCell("", kind="text") if j == k else _comparison_cell(pairs[k, j], metric)
            for j in best
        ]
        lines.append(TableLine(board.methods[k].name, cells, letter(k), k % STYLES))
    caption = (
        f"Row minus column in {TITLES.get(metric, metric)}, with paired 95 % intervals from the "
        "same resamples of groups; in another metric, which the cell names, where one of the two "
        "lacks it. ▲ the row is better, ▼ it is worse, ≈ not distinguishable; "
        "the intervals are not corrected for the number of pairs."
    )
    caption += "".join(f" {samples} samples of {groups} groups." for samples, groups in counts)
    if any(len(seeds) > 1 for seeds in best.values()):
        caption += " Of several seeds, the mean; intervals then cover the choice of seeds too."
    if len(best) < len(board.methods):
        caption += f" Of the {len(best)} best with results of single samples."
    return Table(caption, [ColumnHead(letter(k), "text") for k in best], lines)


def _comparison_cell(comparison: PairedComparison, metric: str) -> TableCell:
    bounds = "no interval: too few groups"
    if comparison.low is not None and comparison.high is not None:
        bounds = f"[{comparison.low:+.3f}, {comparison.high:+.3f}]"
    title = "" if comparison.p is None else p_text(comparison.p)
    text = f"{SIGNS[comparison.verdict]} {comparison.value:+.3f}"
    text += (
        ""
        if comparison.metric == metric
        else f" {TITLES.get(comparison.metric, comparison.metric)}"
    )
    return TableCell(text, title, bounds=bounds, kind="text")


def _verdicts(metric: str, results_by_row: Mapping[int, Sequence[SampleResults]]) -> dict[int, str]:
    """Against the best in the metric, of each the rows of its seeds; corrected over the methods by
    Holm."""
    if len(results_by_row) < 2:
        return {}
    significances = significance_against_best(
        {str(k): rows for k, rows in results_by_row.items()}, metric
    )
    verdicts = {}
    for k in results_by_row:
        standing = significances[str(k)]
        word = standing.verdict.removesuffix(" from the best")
        verdicts[k] = word if standing.p is None else f"{word}, {p_text(standing.p)}"
        if standing.p is None and standing.verdict == "not distinguishable from the best":
            verdicts[k] = "unknown: too few groups"
    return verdicts
