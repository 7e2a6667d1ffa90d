"""Reading CSV files as text, with a check of their columns."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..base import DataError


def read_rows(path: Path, columns: Sequence[str], name: str) -> list[tuple[int, dict[str, str]]]:
    """Return every row with its line number, as a dict of texts by column; blank fields are "".

    path: the file, in UTF-8
    columns: those that must exist; others are returned too
    name: of the file in errors

    Raises DataError if it is no table or lacks one of the columns.

    >>> path = Path("subjects.csv")
    >>> _ = path.write_text("name,age\\nanna,31\\n")
    >>> read_rows(path, ["name"], "subjects.csv")
    [(2, {'name': 'anna', 'age': '31'})]
    """
    import pandas as pd  # 50 MB and 0.3 s, which image folders without a table do not need

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # it would drop fields
            table = pd.read_csv(
                io.BytesIO(path.read_bytes()),
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                skip_blank_lines=False,  # they count as lines
            ).fillna("")
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror})") from None
    except (ValueError, pd.errors.ParserWarning) as error:  # all of pandas' errors are ValueErrors
        reason = str(error).partition("\n")[0].strip()
        raise DataError(f"{name} is no table of comma-separated values ({reason})") from None
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in columns if column not in table.columns]
    if missing:
        available = ", ".join(str(column) for column in table.columns[:8])
        raise DataError(f"{name} lacks the column {', '.join(missing)} (it has {available})")
    names = list(table.columns)
    rows = enumerate(table.itertuples(index=False, name=None), start=2)
    return [(line, dict(zip(names, map(str, row), strict=True))) for line, row in rows if any(row)]


def repeated_row_problems(names: Iterable[tuple[str, int, str]]) -> list[str]:
    """Return a problem for each row that names something again.

    names: (table, line, what the row names), in order

    >>> repeated_row_problems([("a.csv", 2, "x.png"), ("a.csv", 3, "x.png"), ("b.csv", 2, "x.png")])
    ['a.csv line 3 names x.png again, after line 2',
     'b.csv line 2 names x.png again, after a.csv line 2']
    """
    first_rows: dict[str, tuple[str, int]] = {}
    problems = []
    for table, line, name in names:
        first_table, first_line = first_rows.setdefault(name, (table, line))
        if (first_table, first_line) != (table, line):
            after = (
                f"line {first_line}" if first_table == table else f"{first_table} line {first_line}"
            )
            problems.append(f"{table} line {line} names {name} again, after {after}")
    return problems
