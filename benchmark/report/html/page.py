"""The HTML page of all leaderboards, in one file: no network, no other file, nothing from a record
is ever taken for markup. Tables are built in tables.py, charts in charts.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ...leaderboard.columns import TITLES, reason_text
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.names import with_distinct_names
from ...leaderboard.rankings import SINGLE_DATASET_NOTE, LeaderboardSet, build_leaderboard_set
from ...leaderboard.records import Record
from ...leaderboard.seed_groups import SeedGroup
from ...leaderboard.titles import SIDES
from .answer_chart import answer_chart
from .board_table import board_table
from .chart import DASHES, LIGHT_THEME, MAX_METHODS, STYLES, Chart, letter
from .charts import cost_charts, sweep_charts
from .colour_scales import COMMON_SCALE, heat_stops, heat_tables
from .explanations import EXPLANATIONS, GLOSSARY
from .images import IMAGE_BYTES, ImageBudget
from .lesion_tables import froc_chart, lesion_table
from .packed_records import pack_records
from .pairwise import BoardComparisons, compare_board
from .provenance import differing, value_text
from .rankings import critical_difference_diagram, ranking_table
from .samples import SamplePictures, picture_entries, sample_pictures
from .subgroup_tables import BIAS_NOTE, subgroup_tables
from .table_types import Table
from .tables import all_metrics_table, cost_table, seeds_table, strata_table
from .templates import as_markup, content_security_policy, template_environment
from .training_chart import training_charts, training_table

MAX_CHARTS = 40
"""Charts on a page, about: leaderboards after those with so many have no charts and images."""
FIRST_SAMPLES = 4
"""Samples that are shown at first; a button shows more."""
LONG_TABLE = 30
"""Rows beyond which a table scrolls within its own frame, below its heads."""


@dataclass(frozen=True)
class Fold:
    """A part of a leaderboard that opens on a click: tables and charts under a title.

    name: of its id      open: whether it is open at first

    >>> from adbench.benchmark.report.html.page import Fold
    >>> Fold("cost", "Cost").empty
    True
    """

    name: str
    title: str
    note: str = ""
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    open: bool = False

    @property
    def empty(self) -> bool:
        return not (self.tables or self.charts or self.warnings or self.note)


@dataclass(frozen=True)
class _Section:
    """A leaderboard on the page."""

    id: str
    board: Leaderboard
    answer: Chart | None
    main: Table | None
    seeds: Table | None
    folds: list[Fold]
    pictures: SamplePictures
    sides: tuple[str, str] | None
    missing: list[tuple[str, str, str]]
    facts: list[tuple[str, str]]
    notes: list[str]
    drawn: list[SeedGroup]
    has_charts: bool

    @property
    def charts(self) -> list[Chart]:
        answer = [self.answer] if self.answer else []
        return answer + [chart for fold in self.folds for chart in fold.charts]


class Page(NamedTuple):
    """The HTML page, whole in itself, and its charts by the names of their files.

    pictures: of each leaderboard that has some, by the id of its section

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.report.html.page import Page, build_page
    >>> page = build_page(example_records())
    >>> [name for name in page.charts if "froc" in name]
    ['leaderboard-0-froc']
    """

    html: str
    charts: dict[str, Chart]
    pictures: dict[str, SamplePictures]


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
    numbers = {id(record): i for i, record in enumerate(records)}
    files = {str(record.get("file")): i for i, record in enumerate(records)}
    sections: list[_Section] = []
    for i, board in enumerate(results.leaderboards):
        has_charts = sum(len(section.charts) for section in sections) < max_charts
        sections.append(_build_section(i, board, numbers, folder, left, has_charts))
    environment = template_environment()
    template = environment.get_template("report.html.j2")
    style, script = (
        environment.get_template(f"report.{kind}.j2").render(theme=LIGHT_THEME, dashes=DASHES)
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
                "table": ranking_table(ranking, files),
                "notes": ranking.notes,
            }
            for ranking, diagram in zip(rankings, diagrams, strict=True)
        ],
        alone=SINGLE_DATASET_NOTE,
        records=[
            {"name": record["method"]["label"], "file": record.get("file", "?")}
            for record in records
        ],
        archive=pack_records(records),
        left_out=left.out,
        damaged=list(left.damaged),
        budget=f"{budget / 1e6:g}",
        letter=letter,
        styles=STYLES,
        titles=TITLES,
        explanations=EXPLANATIONS,
        glossary=GLOSSARY,
        heat_tables=heat_tables(),
        heat_stops=heat_stops(),
        common_scale=[f"{100 * share:g} %" for share in COMMON_SCALE],
        first_samples=FIRST_SAMPLES,
        long_table=LONG_TABLE,
        style=as_markup(style),
        script=as_markup(script),
        policy=content_security_policy(style, script),
    )
    pictures = {each.id: each.pictures for each in sections if each.pictures.cards}
    return Page(html, charts, pictures)


def _build_section(
    index: int,
    board: Leaderboard,
    numbers: Mapping[int, int],
    folder: Path | None,
    left: ImageBudget,
    has_charts: bool,
) -> _Section:
    done = bool(board.done)
    named = with_distinct_names(board)
    comparisons = compare_board(board, folder, has_charts) if done else BoardComparisons()
    drawn = board.methods[:MAX_METHODS]
    pictures = SamplePictures()
    if folder and has_charts and done:
        shown = picture_entries(drawn, folder / "pictures")
        of_record = {id(board.done[k].record): rows for k, rows in comparisons.results.items()}
        results = {
            k: rows
            for k, entry in enumerate(shown)
            if (rows := of_record.get(id(entry.record))) is not None
        }
        pictures = sample_pictures(shown, results, folder / "pictures", left)
    verdicts, means, by = comparisons.verdicts, comparisons.mean_verdicts, comparisons.metric
    record = board.entries[0].record
    return _Section(
        id=f"leaderboard-{index}",
        board=named,
        answer=answer_chart(board) if has_charts and done else None,
        main=board_table(named, numbers, verdicts, by) if done else None,
        seeds=seeds_table(named, numbers, means, by) if done else None,
        folds=_folds(board, named, numbers, comparisons, has_charts) if done else [],
        pictures=pictures,
        sides=SIDES.get(str(record["dataset"]["name"])),
        missing=[
            (
                f"{row.name}, {row.profile_and_seed}",
                reason_text(row),
                str(row.record.get("file", "?")),
            )
            for row in board.missing
        ],
        facts=_dataset_facts(board),
        notes=board.notes + (differing(board) if done else []),
        drawn=drawn,
        has_charts=has_charts,
    )


def _folds(
    board: Leaderboard,
    named: Leaderboard,
    numbers: Mapping[int, int],
    comparisons: BoardComparisons,
    has_charts: bool,
) -> list[Fold]:
    """What is below the board and the pictures, in order; parts that have nothing are left out.

    board: whose seeds of one method share a name      named: of names that tell its entries apart
    """
    drawn = board if has_charts else replace(board, entries=[])
    training = training_table(board)
    strata = [strata_table(board, metric, numbers) for metric in ("pixel_ap", "image_auroc")]
    subgroups = [
        table
        for metric in ("pixel_ap", "image_auroc")
        for table in subgroup_tables(board, metric, numbers)
    ]
    lesions, froc = lesion_table(board, numbers), froc_chart(drawn)
    sweeps = sweep_charts(drawn)
    matrix = comparisons.matrix
    folds = [
        Fold("levels", "Noise level", LEVEL_NOTE if sweeps else "", charts=sweeps, open=True),
        Fold("quality-cost", "Quality and cost", charts=cost_charts(drawn)),
        Fold(
            "differences",
            "Differences between methods",
            "" if matrix else f"Left out: {comparisons.missing_reason}",
            [matrix] if matrix else [],
            warnings=comparisons.damaged,
        ),
        Fold(
            "training",
            "Training data",
            tables=[training] if training else [],
            charts=training_charts(drawn),
        ),
        Fold("strata", "Strata", tables=[table for table in strata if table]),
        Fold(
            "subgroups", "Subgroups of patients", BIAS_NOTE if subgroups else "", tables=subgroups
        ),
        Fold(
            "lesions",
            "Lesions",
            tables=[lesions] if lesions else [],
            charts=[froc] if froc else [],
        ),
        Fold(
            "scores",
            "Scores of samples",
            SCORES_NOTE if comparisons.histograms else "",
            charts=comparisons.histograms,
        ),
        Fold("cost", "Cost", tables=[cost_table(named, numbers)]),
        Fold("metrics", "All metrics", tables=[all_metrics_table(named, numbers)]),
    ]
    return [fold for fold in folds if not fold.empty]


LEVEL_NOTE = (
    "Disc: the level that was chosen. Square: the level the paper uses. Diamond: the best level on "
    "the test set (an optimistic upper bound; do not report it). Bars: 95 % intervals at the "
    "chosen level."
)
SCORES_NOTE = "Abnormal samples above the line, normal ones below it, each as shares of their kind."


def _dataset_facts(board: Leaderboard) -> list[tuple[str, str]]:
    """The dataset with all of its arguments, and the protocol."""
    record = max(
        (entry.record for entry in board.entries),
        key=lambda record: bool(record["dataset"]["fingerprint"]),
    )
    data = record["dataset"]
    facts = [("dataset", str(data["name"]))]
    facts += [(f"argument {name}", value_text(data["args"][name])) for name in sorted(data["args"])]
    return [*facts, ("fingerprint", str(data["fingerprint"] or "unknown"))]
