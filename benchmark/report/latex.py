"""The boards as LaTeX tables (booktabs), to be \\input into a paper."""

from __future__ import annotations

from collections.abc import Sequence

from ..leaderboard.columns import LOWER_IS_BETTER, TITLES, reason_text
from ..leaderboard.leaderboard import (
    Leaderboard,
    binning_error_text,
    build_leaderboards,
    profile_and_seed,
)
from ..leaderboard.rankings import CrossDatasetRanking, build_rankings
from ..leaderboard.rankings_text import column_titles, sentences, table_cells
from ..leaderboard.records import Record, metric_value, number_text

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


def latex(records: Sequence[Record]) -> str:
    """A table for every board that has a result, and for ranks over data sets; what has no result
    is told in comments.

    The best figure of a column is bold; the intervals stand beneath their figures. Needs the
    packages booktabs and graphicx: what is wider than the text is made smaller.
    """
    parts = ["% Made by adbench report. \\usepackage{booktabs,graphicx}"]
    for board in build_leaderboards(records):
        parts.append(_comment(board.title))
        parts += [
            _comment(f"{row.name}, {profile_and_seed(row)}: {reason_text(row)}")
            for row in board.missing
        ]
        if board.done:
            parts.append(_table(board))
    parts += [_ranking_table(league) for league in build_rankings(records)]
    return "\n".join(parts) + "\n"


def escape_latex(text: str) -> str:
    """On one line, with what TeX would take for its own made plain; other letters beyond ASCII
    are left to the encoding."""
    kept = (mark for mark in " ".join(text.split()) if mark.isprintable())
    return "".join(ESCAPES.get(mark, mark) for mark in kept)


def _table(board: Leaderboard) -> str:
    shown = [
        name for name in METRIC_COLUMNS if any(row.value(name) is not None for row in board.done)
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
    for row in board.done:
        level = (row.record.get("level") or {}).get("chosen") or "--"
        cells = [escape_latex(row.name), str(level)]
        for name in shown:
            text = number_text(row.value(name))
            text = rf"\textbf{{{text}}}" if text == best[name] else text
            cells.append("--" if text == "-" else text)
        lines.append(" & ".join(cells) + r" \\")
        bounds = [_interval_text(row.record, name) for name in shown]
        if any(bounds):
            small = [rf"{{\scriptsize {bound}}}" if bound else "" for bound in bounds]
            lines.append(" & ".join(["", "", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}"])


def _ranking_table(league: CrossDatasetRanking) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(' '.join([league.title + '.', *sentences(league)]))}}}",
        RESIZE_BOX,
        rf"\begin{{tabular}}{{lrl{'r' * len(league.datasets)}}}",
        r"\toprule",
    ]
    rows = [
        " & ".join(map(escape_latex, row)) + r" \\"
        for row in (column_titles(league), *table_cells(league))
    ]
    lines += [rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines)


def _best_value(board: Leaderboard, metric: str) -> str:
    """As it is printed, so that what looks alike is marked alike."""
    values = [value for row in board.done if (value := row.value(metric)) is not None]
    return number_text(min(values) if metric in LOWER_IS_BETTER else max(values))


def _interval_text(record: Record, metric: str) -> str:
    low, high = (metric_value(record, metric, part) for part in ("low", "high"))
    bounds = "" if low is None or high is None else f" [{number_text(low)}, {number_text(high)}]"
    return escape_latex(f"{binning_error_text(record, metric)}{bounds}".strip())


def _comment(text: str) -> str:
    return "% " + " ".join(text.split())
