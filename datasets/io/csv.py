"""Reading CSV files as text, with a check of their columns."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..base import DataError


def read_rows(path: Path, columns: Sequence[str], name: str) -> list[dict[str, str]]:
    """Return every row as a dict of texts by column; blank fields are "".

    path: the file, in UTF-8
    columns: those that must exist; others are returned too
    name: of the file in errors

    Raises DataError if it is no table or lacks one of the columns.

    >>> path = Path("subjects.csv")
    >>> _ = path.write_text("name,age\\nanna,31\\n")
    >>> read_rows(path, ["name"], "subjects.csv")
    [{'name': 'anna', 'age': '31'}]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # it would drop fields
            table = pd.read_csv(
                io.BytesIO(path.read_bytes()),
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
            )
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
    rows = table.itertuples(index=False, name=None)
    return [dict(zip(names, map(str, row), strict=True)) for row in rows]
