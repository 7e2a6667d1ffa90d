"""Leaderboards and rankings as Markdown, CSV and JSON, and all of a report's files.

They need records alone: no GPU, no data, no network. What a leaderboard holds depends on what was
measured and never on how fast: seconds and memory have a table of their own.
"""

from __future__ import annotations

import csv as csv_
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..leaderboard.columns import columns, reason_text
from ..leaderboard.entry import Entry
from ..leaderboard.leaderboard import Leaderboard
from ..leaderboard.metric_names import BUDGET, COST, METRIC_NAMES
from ..leaderboard.rankings import SINGLE_DATASET_NOTE, LeaderboardSet, build_leaderboard_set
from ..leaderboard.rankings_text import as_json as ranking_json
from ..leaderboard.rankings_text import column_titles, sentences, table_cells
from ..leaderboard.records import SCHEMA, Record
from ..leaderboard.seed_variation import COLUMN_TITLES
from ..leaderboard.seed_variation import as_json as seeds_json
from ..leaderboard.text import plain_text
from ..store.artifact_store import atomic_write
from .latex import latex

if TYPE_CHECKING:
    from .html.chart import Chart
    from .html.page import Page

IDENTITY = (
    *("board", "dataset", "fingerprint", "synthetic", "partial", "protocol"),
    *("method", "label", "profile", "seed"),
)
"""Columns that say which record a row is of."""

FORMULA = re.compile(r"[=+@＝＋＠\t\r]|[-－].")  # noqa: RUF001 - a spreadsheet takes wide signs too
"""How a text begins that a spreadsheet would take for a formula."""


def markdown(results: LeaderboardSet) -> str:
    """Every leaderboard as a Markdown table, and the rankings over datasets.

    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> from adbench.benchmark.report.export import markdown
    >>> print(markdown(build_leaderboard_set([])).splitlines()[0])
    # Leaderboard
    """
    lines = ["# Leaderboard", ""]
    for board in results.leaderboards:
        lines += [f"## {escape_markdown(board.title)}", "", *_entry_lines(board)]
        if board.seed_summaries:
            lines += ["", f"Over seeds, {METRIC_NAMES[board.metric]}:", ""]
            lines += _table(COLUMN_TITLES, (each.table_cells() for each in board.seed_summaries))
        lines += ["", *(f"{escape_markdown(note)}  " for note in board.notes), ""]
    lines += ["## Over data sets", ""]
    for ranking in results.rankings:
        lines += [f"### {escape_markdown(ranking.title)}", ""]
        lines += [*_table(column_titles(ranking), table_cells(ranking)), ""]
        lines += [*(f"{escape_markdown(note)}  " for note in sentences(ranking)), ""]
    if not results.rankings:
        lines += [SINGLE_DATASET_NOTE, ""]
    return "\n".join(lines)


def _entry_lines(board: Leaderboard) -> list[str]:
    """A table of the entries, or a list of them where none has a result."""
    if not board.done:
        texts = (f"{e.name}, {e.profile_and_seed}: {reason_text(e)}" for e in board.missing)
        return [f"- {escape_markdown(text)}" for text in texts]
    shown = columns(board)
    rows = [[column.text(entry) for column in shown] for entry in board.done]
    for entry in board.missing:
        cells = [column.text(entry) for column in shown[:4]] + [reason_text(entry)]
        rows.append(cells + [""] * (len(shown) - len(cells)))
    return _table([column.title for column in shown], rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(map(escape_markdown, cells))} |" for cells in lines]


def escape_markdown(text: str) -> str:
    r"""Text on one line, in which nothing is markup: no table cell, image, link or element.

    >>> from adbench.benchmark.report.export import escape_markdown
    >>> print(escape_markdown("![a](http://b) |<i> [0.1, 0.2]"))
    \![a\](http://b) \|\<i> [0.1, 0.2]
    """
    text = " ".join(plain_text(text).split())
    text = re.sub(r"([\\|*`<]|!(?=\[)|\](?=[\[(:]))", r"\\\1", text)
    return text


def csv(results: LeaderboardSet) -> str:
    """Every row of every leaderboard but what differs from run to run: six decimals, empty where
    undefined.

    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> from adbench.benchmark.report.export import csv
    >>> csv(build_leaderboard_set([]))
    ''
    """
    rows = [row for board in results.leaderboards for row in board.rows()]
    names = dict.fromkeys(name for row in rows for name in row)
    return _to_csv([name for name in names if name not in (*COST, "device")], rows)


def cost_csv(results: LeaderboardSet) -> str:
    """Seconds and memory of every row with a result: they differ from run to run.

    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> from adbench.benchmark.report.export import cost_csv
    >>> cost_csv(build_leaderboard_set([]))
    ''
    """
    rows = [row for board in results.leaderboards for row in board.rows()]
    return _to_csv([*IDENTITY, "device", *COST], [row for row in rows if row["status"] == "ok"])


def _to_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv_.writer(out, lineterminator="\n")
    writer.writerow(map(_csv_cell, names))
    writer.writerows([_csv_cell(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    """A value for a spreadsheet, which would calculate what looks like a formula."""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        text = plain_text(value)
        return f"'{text}" if FORMULA.match(text) else text
    return value


def as_json(results: LeaderboardSet) -> str:
    """Every leaderboard for programs: its entries in order, their figures as the records have them,
    and the file of each; and the rankings over datasets.

    >>> from adbench.benchmark.leaderboard.rankings import build_leaderboard_set
    >>> from adbench.benchmark.report.export import as_json
    >>> print(as_json(build_leaderboard_set([])).strip())
    {
     "boards": [],
     "over_data_sets": [],
     "schema": 2
    }
    """
    boards = [
        {
            "title": board.title,
            "sorted_by": board.metric,
            "protocol": board.entries[0].record["protocol"],
            "dataset": next((entry.record["dataset"] for entry in board.done), None),
            "notes": board.notes,
            "over_seeds": seeds_json(board.seed_summaries),
            "rows": [_entry_json(entry) for entry in board.entries],
        }
        for board in results.leaderboards
    ]
    rankings = [ranking_json(ranking) for ranking in results.rankings]
    content = {"schema": SCHEMA, "boards": boards, "over_data_sets": rankings}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _entry_json(entry: Entry) -> dict[str, Any]:
    record, cost = entry.record, entry.record.get("cost") or {}
    whole = ("status", "reason", "profile", "seed", "partial", "file")
    parts = ("method", "level", "threshold", "metrics", "at_published", "at_oracle", "keys")
    return {
        "rank": entry.rank,
        "name": entry.name,
        "below_baseline": entry.worse_than_baseline,
        **{name: record.get(name) for name in (*whole, *parts)},
        "budget": {name: cost.get(name) for name in BUDGET},
    }


FIGURE_KINDS = ("svg", "pdf", "png")


def write_report(
    records: Sequence[Record],
    folder: Path,
    results: LeaderboardSet | None = None,
    *,
    figures: bool = False,
    source: Path | None = None,
) -> list[Path]:
    """Write leaderboard.md, .csv, .json and .tex, cost.csv and index.html; return the paths.

    Each file is whole or as it was. Figures of an earlier report are removed.

    results: the leaderboards of the records, where they are built already
    figures: draw all charts, however many, and the pictures, and write them as SVG, PDF and PNG in
        `figures`
    source: of the results, where `samples` and `pictures` lie; None for `folder`

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.report.export import write_report
    >>> with TemporaryDirectory() as folder:
    ...     paths = write_report(example_records(), Path(folder))
    ...     (Path(folder) / "leaderboard.csv").read_text().count("AnoDDPM")
    1
    >>> [path.name for path in paths]
    ['leaderboard.md', 'leaderboard.csv', 'leaderboard.json', 'leaderboard.tex', 'cost.csv',
    'index.html']
    """
    from .html.page import MAX_CHARTS, build_page

    source = folder if source is None else source
    results = results or build_leaderboard_set(records, source)
    texts = {
        "leaderboard.md": markdown(results),
        "leaderboard.csv": csv(results),
        "leaderboard.json": as_json(results),
        "leaderboard.tex": latex(results),
        "cost.csv": cost_csv(results),
    }
    for name, text in texts.items():  # before the page, which takes longer
        atomic_write(folder / name, text)
    max_charts = math.inf if figures else MAX_CHARTS
    page = build_page(records, source, results=results, max_charts=max_charts)
    atomic_write(folder / "index.html", page.html)
    charts = page.charts | _pictures_charts(page) if figures else {}
    for path in (folder / "figures").glob("*-*.*"):
        is_figure = path.stem.startswith(("leaderboard-", "ranking-"))
        if is_figure and path.suffix[1:] in FIGURE_KINDS and path.stem not in charts:
            path.unlink()
    for name, chart in charts.items():
        for kind in FIGURE_KINDS:
            atomic_write(folder / "figures" / f"{name}.{kind}", chart.rendered(kind))
    if not charts:
        with suppress(OSError):  # there is none, or it holds files of others
            (folder / "figures").rmdir()
    return [folder / name for name in (*texts, "index.html", *(["figures"] if charts else []))]


def _pictures_charts(page: Page) -> dict[str, Chart]:
    """The pictures of each leaderboard as a figure, by the name of its file."""
    from .html.pictures_chart import pictures_chart

    charts = {name: pictures_chart(pictures) for name, pictures in page.pictures.items()}
    return {f"{name}-pictures": chart for name, chart in charts.items() if chart}
