"""One page for a browser, whole in itself: no network, no other file, nothing from a record is
ever taken for markup. What a board shows is in views.py, its charts in curves.py.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ...leaderboard.columns import TITLES, reason
from ...leaderboard.leaderboard import Board, Record, boards, run_of
from ...leaderboard.rankings import ALONE, leagues
from .charts import pareto, sweeps
from .disagreements import disagreements
from .images import BUDGET, Album, Budget, Grid, album
from .lesion_tables import froc_chart, lesion_table
from .pairwise import Contrasts, contrasts
from .rankings import diagram, league_table
from .svg import BOTTOM, HIGH, LEFT, RIGHT, TOP, WIDE, Chart
from .tables import (
    Table,
    all_figures,
    anchor,
    cost_table,
    differing,
    main_table,
    provenance,
    seeds_table,
    strata_table,
)

SIZE = {"wide": WIDE, "high": HIGH, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
NOTHING = Album(Grid([], []), [])


@dataclass(frozen=True)
class Section:
    """A board on the page."""

    id: str
    board: Board
    metric: str
    main: Table | None
    seeds: Table | None
    tables: list[tuple[str, Table]]
    strata: list[Table]
    lesions: Table | None
    froc: Chart | None
    sweeps: list[Chart]
    pareto: list[Chart]
    album: Album
    missing: list[tuple[str, str, str]]
    differing: list[str]
    contrasts: Contrasts


def page(records: Sequence[Record], folder: Path | None = None, *, budget: int = BUDGET) -> str:
    """The page of all boards.

    folder: of the results, with `pictures` and `samples`; budget: bytes of pictures, at most, as
    they stand in the page
    """
    left = Budget(budget)
    anchors = {id(record): anchor(i) for i, record in enumerate(records)}
    sections = [
        _section(i, board, anchors, folder, left) for i, board in enumerate(boards(records))
    ]
    template = _environment().get_template("report.html.j2")
    style, script = (
        _environment().get_template(f"report.{kind}.j2").render() for kind in ("css", "js")
    )
    return template.render(
        sections=sections,
        leagues=[
            {
                "title": league.title,
                "diagram": diagram(league),
                "table": league_table(league),
                "notes": league.notes,
            }
            for league in leagues(records)
        ],
        alone=ALONE,
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
        budget=f"{budget / 1e6:g}",
        size=SIZE,
        style=_own(style),
        script=_own(script),
        policy=_policy(style, script),
    )


def _section(
    index: int, board: Board, anchors: Mapping[int, str], folder: Path | None, left: Budget
) -> Section:
    done = bool(board.done)
    found = contrasts(board, folder) if done else Contrasts()
    strata = [strata_table(board, metric) for metric in ("pixel_ap", "image_auroc")]
    return Section(
        id=f"board-{index}",
        board=board,
        metric=TITLES.get(board.metric, board.metric),
        main=main_table(board, anchors, found.verdicts, found.metric) if done else None,
        seeds=seeds_table(board, anchors, found.of_means, found.metric) if done else None,
        tables=[
            ("Cost", cost_table(board, anchors)),
            ("Every figure", all_figures(board, anchors)),
        ]
        if done
        else [],
        strata=[table for table in strata if table],
        lesions=lesion_table(board) if done else None,
        froc=froc_chart(board) if done else None,
        sweeps=sweeps(board) if done else [],
        pareto=pareto(board) if done else [],
        album=_album(board, found, folder / "pictures", left) if folder else NOTHING,
        missing=[
            (f"{row.name}, {run_of(row)}", reason(row), str(row.record.get("file", "?")))
            for row in board.missing
        ],
        differing=differing(board) if done else [],
        contrasts=found,
    )


def _album(board: Board, found: Contrasts, folder: Path, left: Budget) -> Album:
    shown = album(board.done, folder, left)
    return replace(shown, disputed=disagreements(board, found.known, folder, left))


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


def _own(text: str) -> Any:
    """Of our own files, not of records: markup as it stands."""
    from markupsafe import Markup

    return Markup(text)


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page: show it, run our one script, and ask nobody."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
