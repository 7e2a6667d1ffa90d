"""The HTML page of all leaderboards, in one file: no network, no other file, nothing from a record
is ever taken for markup. Tables are built in tables.py, charts in charts.py.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ...leaderboard.columns import TITLES, reason_text
from ...leaderboard.leaderboard import Leaderboard, profile_and_seed
from ...leaderboard.rankings import SINGLE_DATASET_NOTE, LeaderboardSet, build_leaderboard_set
from ...leaderboard.records import Record
from .chart import DASHES, LIGHT_THEME, Chart
from .charts import cost_charts, sweep_charts
from .disagreements import disagreement_grid
from .images import IMAGE_BYTES, ImageBudget, ImageGrid, SampleImages, sample_images
from .lesion_tables import froc_chart, lesion_table
from .pairwise import BoardComparisons, compare_board
from .rankings import critical_difference_diagram, ranking_table
from .tables import (
    Table,
    all_metrics_table,
    anchor,
    cost_table,
    differing,
    main_table,
    provenance,
    seeds_table,
    strata_table,
)
from .training_chart import training_charts, training_table

NO_IMAGES = SampleImages(ImageGrid([], []), [])
MAX_ENTRIES = 12
"""Entries of a leaderboard in its charts and images, the best; more cannot be distinguished."""
MAX_CHARTS = 40
"""Charts on a page, about: leaderboards after those with so many have no charts and images."""


@dataclass(frozen=True)
class _Section:
    """A board on the page."""

    id: str
    board: Leaderboard
    metric: str
    main: Table | None
    seeds: Table | None
    tables: list[tuple[str, Table]]
    strata: list[Table]
    lesions: Table | None
    froc: Chart | None
    sweeps: list[Chart]
    pareto: list[Chart]
    images: SampleImages
    missing: list[tuple[str, str, str]]
    differing: list[str]
    comparisons: BoardComparisons
    entries_shown: int
    has_charts: bool

    @property
    def charts(self) -> list[Chart]:
        froc = [self.froc] if self.froc else []
        return [*self.sweeps, *froc, *self.pareto, *self.comparisons.histograms]


class Page(NamedTuple):
    """The HTML page, whole in itself, and its charts by the names of their files.

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.report.html.page import Page, build_page
    >>> page = build_page(example_records())
    >>> [name for name in page.charts if "froc" in name]
    ['leaderboard-0-froc']
    """

    html: str
    charts: dict[str, Chart]


def render_page(
    records: Sequence[Record], folder: Path | None = None, *, budget: int = IMAGE_BYTES
) -> str:
    """Return the HTML of the page of all leaderboards; arguments as `build_page` takes them.

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.report.html.page import render_page
    >>> render_page(example_records())[:15]
    '<!doctype html>'
    """
    return build_page(records, folder, budget=budget).html


def build_page(
    records: Sequence[Record],
    folder: Path | None = None,
    *,
    budget: int = IMAGE_BYTES,
    max_charts: float = MAX_CHARTS,
    results: LeaderboardSet | None = None,
) -> Page:
    """Build the page of all leaderboards, with its charts.

    folder: of the results, with `pictures` and `samples`
    budget: bytes of images, at most, as they are in the page
    max_charts: leaderboards after those with so many charts have no charts and images
    results: the leaderboards of the records, where they are built already

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.report.html.page import build_page
    >>> page = build_page([example_record("<script>")], max_charts=0)
    >>> "&lt;script&gt;" in page.html, page.charts
    (True, {})
    """
    results = results or build_leaderboard_set(records, folder)
    left = ImageBudget(budget)
    anchors = {id(record): anchor(i) for i, record in enumerate(records)}
    sections: list[_Section] = []
    for i, board in enumerate(results.leaderboards):
        has_charts = sum(len(section.charts) for section in sections) < max_charts
        sections.append(_build_section(i, board, anchors, folder, left, has_charts))
    template = _environment().get_template("report.html.j2")
    style, script = (
        _environment().get_template(f"report.{kind}.j2").render(theme=LIGHT_THEME, dashes=DASHES)
        for kind in ("css", "js")
    )
    rankings = results.rankings
    diagrams = [critical_difference_diagram(each, f"{i}") for i, each in enumerate(rankings)]
    charts = {f"{each.id}-{chart.name}": chart for each in sections for chart in each.charts}
    charts |= {f"ranking-{diagram.name}": diagram for diagram in diagrams if diagram}
    html = template.render(
        sections=sections,
        rankings=[
            {
                "title": ranking.title,
                "diagram": diagram,
                "table": ranking_table(ranking),
                "notes": ranking.notes,
            }
            for ranking, diagram in zip(rankings, diagrams, strict=True)
        ],
        alone=SINGLE_DATASET_NOTE,
        records=[
            {
                "id": anchors[id(record)],
                "name": record["method"]["label"],
                "file": record.get("file", "?"),
                "facts": provenance(record),
            }
            for record in records
        ],
        raw=[{k: v for k, v in record.items() if k != "samples"} for record in records],
        left_out=left.out,
        damaged=list(left.damaged),
        budget=f"{budget / 1e6:g}",
        style=_read_asset(style),
        script=_read_asset(script),
        policy=_content_security_policy(style, script),
    )
    return Page(html, charts)


def _build_section(
    index: int,
    board: Leaderboard,
    anchors: Mapping[int, str],
    folder: Path | None,
    left: ImageBudget,
    has_charts: bool,
) -> _Section:
    done = bool(board.done)
    comparisons = compare_board(board, folder, has_charts) if done else BoardComparisons()
    best = replace(board, entries=board.done[:MAX_ENTRIES])
    drawn = replace(best, entries=best.entries if has_charts else [])
    strata = [strata_table(board, metric) for metric in ("pixel_ap", "image_auroc")]
    return _Section(
        id=f"leaderboard-{index}",
        board=board,
        metric=TITLES.get(board.metric, board.metric),
        main=main_table(board, anchors, comparisons.verdicts, comparisons.metric) if done else None,
        seeds=seeds_table(board, anchors, comparisons.mean_verdicts, comparisons.metric)
        if done
        else None,
        tables=[
            ("Cost", cost_table(board, anchors)),
            ("Every figure", all_metrics_table(board, anchors)),
            *([("Training data", training)] if (training := training_table(board)) else []),
        ]
        if done
        else [],
        strata=[table for table in strata if table],
        lesions=lesion_table(board) if done else None,
        froc=froc_chart(drawn),
        sweeps=sweep_charts(drawn),
        pareto=[*cost_charts(drawn), *training_charts(drawn)],
        images=_section_images(best, comparisons, folder / "pictures", left)
        if folder and has_charts
        else NO_IMAGES,
        missing=[
            (
                f"{row.name}, {profile_and_seed(row)}",
                reason_text(row),
                str(row.record.get("file", "?")),
            )
            for row in board.missing
        ],
        differing=differing(board) if done else [],
        comparisons=comparisons,
        entries_shown=len(best.entries),
        has_charts=has_charts,
    )


def _section_images(
    board: Leaderboard, comparisons: BoardComparisons, folder: Path, left: ImageBudget
) -> SampleImages:
    shown = sample_images(board.done, folder, left)
    results = {k: rows for k, rows in comparisons.results.items() if k < len(board.done)}
    return replace(shown, disagreements=disagreement_grid(board, results, folder, left))


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read_asset(text: str) -> Any:
    """The style or script, which is ours and not from records, as markup that is not escaped."""
    from markupsafe import Markup

    return Markup(text)


def _content_security_policy(style: str, script: str) -> str:
    """The policy by which a browser shows the page, runs its one script, and requests nothing."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
