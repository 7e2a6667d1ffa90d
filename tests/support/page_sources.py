"""What the cells of a page's tables are from, resolved as its script does it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from adbench.benchmark.report.html.packed_records import unpack_records


class CellSource(NamedTuple):
    """The field of records that a cell shows: their files, its name, its value in each."""

    files: list[str]
    field: str
    values: list[Any]


def cell_sources(tags: Iterable[tuple[str, dict[str, str]]], archive: str) -> Iterator[CellSource]:
    """The sources of all cells that have one.

    tags: of the page with their attributes, in order      archive: the text of the packed records
    """
    records = [each["record"] for each in unpack_records(archive)]
    heads: list[dict[str, str]] = []
    row: dict[str, str] = {}
    column = 0
    for tag, attrs in tags:
        if tag == "table":
            heads = []
        elif tag == "tr":
            row, column = attrs, 1
        elif tag == "th" and attrs["scope"] == "col":
            heads.append(attrs)
        elif tag == "td":
            head, column = heads[column], column + 1
            numbers = next(
                (each["data-records"] for each in (attrs, head, row) if "data-records" in each), ""
            )
            field = [n for each in (row, head) for n in json.loads(each.get("data-field", "[]"))]
            if field and numbers:
                yield _source([records[int(number)] for number in numbers.split()], field)


def _source(records: list[dict[str, Any]], field: list[Any]) -> CellSource:
    names, values = ".".join(map(str, field)), []
    for record in records:
        value: Any = record
        for name in field:
            if isinstance(value, list):
                value = value[name] if name < len(value) else None
            else:
                value = (value or {}).get(name)
        if isinstance(value, dict) and "value" in value:
            value, names = value["value"], ".".join(map(str, [*field, "value"]))
        values.append(value)
    return CellSource([record.get("file", "?") for record in records], names, values)
