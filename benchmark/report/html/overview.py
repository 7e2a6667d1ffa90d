"""A small page over several results folders: answers, ranks, cost and quality, and links.

It repeats nothing of the pages but what compares boards; it has no script and no records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.rankings import SINGLE_DATASET_NOTE, rank_leaderboards
from .answer_chart import answer_chart
from .chart import DASHES, LIGHT_THEME, MAX_METHODS, STYLES, letter
from .charts import cost_charts
from .rankings import critical_difference_diagram, ranking_table
from .templates import as_markup, content_security_policy, template_environment


class LinkedBoard(NamedTuple):
    """A leaderboard of another page.

    name: what the overview calls its results      link: address of the leaderboard on its page

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.overview import LinkedBoard
    >>> LinkedBoard("brains", "../brains/index.html", example_leaderboard()).board.title
    'BraTS'
    """

    name: str
    link: str
    board: Leaderboard


def render_overview(
    boards: Sequence[LinkedBoard], title: str, conclusions: Sequence[str] = ()
) -> str:
    """Return the HTML of the page over leaderboards; those without any result are left out.

    conclusions: what the reader should take from them, a paragraph each

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.overview import LinkedBoard, render_overview
    >>> board = LinkedBoard("brains", "../brains/index.html", example_leaderboard())
    >>> 'href="../brains/index.html"' in render_overview([board], "All boards")
    True
    """
    shown = [each for each in boards if each.board.done]
    rankings = rank_leaderboards([each.board for each in shown], only_complete=True)
    environment = template_environment()
    style = environment.get_template("report.css.j2").render(theme=LIGHT_THEME, dashes=DASHES)
    return environment.get_template("overview.j2").render(
        title=title,
        conclusions=conclusions,
        boards=[
            {
                "name": each.name,
                "link": each.link,
                "board": each.board,
                "methods": each.board.methods[:MAX_METHODS],
                "charts": [
                    chart for chart in (answer_chart(each.board), *cost_charts(each.board)) if chart
                ],
            }
            for each in shown
        ],
        rankings=[
            {
                "ranking": ranking,
                "diagram": critical_difference_diagram(ranking, f"{i}"),
                "table": ranking_table(ranking, {}),
            }
            for i, ranking in enumerate(rankings)
        ],
        alone=SINGLE_DATASET_NOTE,
        letter=letter,
        styles=STYLES,
        style=as_markup(style),
        policy=content_security_policy(style),
    )
