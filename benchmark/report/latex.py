"""Leaderboards and rankings as LaTeX tables (booktabs), to be \\input into a paper."""

from __future__ import annotations

from ..leaderboard.binning import binning_error_text
from ..leaderboard.columns import LOWER_IS_BETTER, TITLES, reason_text
from ..leaderboard.leaderboard import Leaderboard
from ..leaderboard.rankings import CrossDatasetRanking, LeaderboardSet
from ..leaderboard.rankings_text import column_titles, sentences, table_cells
from ..leaderboard.records import Record, metric_value
from ..leaderboard.text import number_text, plain_text

METRIC_COLUMNS = (
    "image_auroc",
    "image_ap",
    "pixel_ap",
    "pixel_auroc",
    "pixel_aupro30",
    "pixel_dice",
)

RESIZE_BOX = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"

ESCAPES = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after \\ it would begin an option
    "⌈": r"$\lceil$",
    "⌉": r"$\rceil$",
    "±": r"$\pm$",
    "▲": r"$\bigtriangleup$",
    "▼": r"$\bigtriangledown$",
    "≈": r"$\approx$",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
}


def latex(results: LeaderboardSet) -> str:
    """A table for every leaderboard that has a result, and for every ranking over datasets; what
    has no result is named in comments.

    The best figure of a column is bold; the intervals are below their figures. Needs the
    packages booktabs and graphicx: what is wider than the text is made smaller.

    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> from adbench.benchmark.report.latex import latex
    >>> print(latex(build_leaderboard_set([])).strip())
    % Made by adbench report. \\usepackage{booktabs,graphicx}
    """
    parts = ["% Made by adbench report. \\usepackage{booktabs,graphicx}"]
    for board in results.leaderboards:
        parts.append(_comment(board.title))
        parts += [
            _comment(f"{entry.name}, {entry.profile_and_seed}: {reason_text(entry)}")
            for entry in board.missing
        ]
        if board.done:
            parts.append(_table(board))
    parts += [_ranking_table(ranking) for ranking in results.rankings]
    return "\n".join(parts) + "\n"


def escape_latex(text: object) -> str:
    """Text on one line, in which nothing is a command of TeX; letters beyond ASCII that have no
    command of their own are left to the encoding.

    >>> from adbench.benchmark.report.latex import escape_latex
    >>> print(escape_latex("50 % of $x$"))
    50 \\% of \\$x\\$
    """
    return "".join(ESCAPES.get(char, char) for char in " ".join(plain_text(text).split()))


def _table(board: Leaderboard) -> str:
    shown = [
        name
        for name in METRIC_COLUMNS
        if any(entry.value(name) is not None for entry in board.done)
    ]
    arrows = {name: r"$\downarrow$" if name in LOWER_IS_BETTER else r"$\uparrow$" for name in shown}
    heads = ["method", "level", *(f"{escape_latex(TITLES[name])} {arrows[name]}" for name in shown)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(' '.join([board.title + '.', *board.notes]))}}}",
        RESIZE_BOX,
        rf"\begin{{tabular}}{{ll{'r' * len(shown)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    best = {name: _best_value(board, name) for name in shown}
    for entry in board.done:
        level = (entry.record.get("level") or {}).get("chosen") or "--"
        cells = [escape_latex(entry.name), escape_latex(level)]
        for name in shown:
            text = number_text(entry.value(name))
            text = rf"\textbf{{{text}}}" if text == best[name] else text
            cells.append("--" if text == "-" else text)
        lines.append(" & ".join(cells) + r" \\")
        bounds = [_interval_text(entry.record, name) for name in shown]
        if any(bounds):
            small = [rf"{{\scriptsize {bound}}}" if bound else "" for bound in bounds]
            lines.append(" & ".join(["", "", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}"])


def _ranking_table(ranking: CrossDatasetRanking) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(' '.join([ranking.title + '.', *sentences(ranking)]))}}}",
        RESIZE_BOX,
        rf"\begin{{tabular}}{{lrl{'r' * len(ranking.datasets)}}}",
        r"\toprule",
    ]
    rows = [
        " & ".join(map(escape_latex, row)) + r" \\"
        for row in (column_titles(ranking), *table_cells(ranking))
    ]
    lines += [rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines)


def _best_value(board: Leaderboard, metric: str) -> str:
    """As it is printed, so that what looks alike is marked alike."""
    values = [value for entry in board.done if (value := entry.value(metric)) is not None]
    return number_text(min(values) if metric in LOWER_IS_BETTER else max(values))


def _interval_text(record: Record, metric: str) -> str:
    low, high = (metric_value(record, metric, part) for part in ("low", "high"))
    bounds = "" if low is None or high is None else f" [{number_text(low)}, {number_text(high)}]"
    return escape_latex(f"{binning_error_text(record, metric)}{bounds}".strip())


def _comment(text: str) -> str:
    return "% " + " ".join(plain_text(text).split())
