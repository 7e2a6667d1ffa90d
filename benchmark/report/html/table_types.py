"""A table of the page: its caption, columns, lines and cells.

A line and a column name the records and the field that a cell is from: the page holds every record
once, from which its script takes all digits of a value when a table is sorted or the pointer is
over a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class TableCell(NamedTuple):
    """A cell of a table.

    text, bounds: what is shown, and the interval below it
    title: what is shown where the pointer is, of cells that are from no field of a record
    sort: what the column is sorted by, where it is neither a field nor the text
    kind: `text`, `oracle` or empty for a number        best: whether it is shown bold
    bar: low, value and high within the column, 0 to 88 points, of an interval that is drawn
    records: the indices of those that it is from, where neither line nor column says it

    >>> from adbench.benchmark.report.html.table_types import TableCell
    >>> TableCell("0.500").bounds
    ''
    """

    text: str
    title: str = ""
    sort: str = ""
    bounds: str = ""
    kind: str = ""
    best: bool = False
    bar: tuple[int, int, int] | None = None
    records: tuple[int, ...] = ()


class ColumnHead(NamedTuple):
    """The heading of a column: its text, how it is sorted, and whether lower values are better.

    key: of the column      about: what it means      hidden: whether it is hidden at first
    field: names of the field of a record that its cells show, after those of the line
    records: the indices of those that its cells are from; of several, the mean

    >>> from adbench.benchmark.report.html.table_types import ColumnHead
    >>> ColumnHead("healthy FP", lower=True).kind
    'number'
    """

    text: str
    kind: str = "number"
    lower: bool = False
    key: str = ""
    about: str = ""
    hidden: bool = False
    field: tuple[str | int, ...] = ()
    records: tuple[int, ...] = ()


class TableLine(NamedTuple):
    """A row of a table.

    letter, style: of the method in charts
    below: the baseline that the entry is worse than, empty where it is not
    profile: of the entry, to filter by
    records, field: as of a column; the name is a link to the first record

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import cost_table
    >>> line = cost_table(example_leaderboard(), {}).lines[1]
    >>> line.name, line.letter, len(line.cells)
    ('pDDPM', 'B', 8)
    """

    name: str
    cells: list[TableCell]
    letter: str = ""
    style: int = 0
    baseline: bool = False
    below: str = ""
    profile: str = ""
    records: tuple[int, ...] = ()
    field: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the page: a caption, headings and lines of cells.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import cost_table
    >>> table = cost_table(example_leaderboard(), {})
    >>> table.first, [head.text for head in table.heads][:2]
    ('method', ['evals / image', 'GFLOP / image'])
    """

    caption: str
    heads: list[ColumnHead]
    lines: list[TableLine]
    first: str = "method"
