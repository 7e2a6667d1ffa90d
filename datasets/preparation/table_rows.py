"""The rows of a table of a prepared file, each parsed when it is asked for."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any, overload


class TableRows(Sequence[dict[str, Any]]):
    """The rows of a table in JSON, in a third of the memory of parsed ones.

    text: of a list of objects, as `json.dumps` writes it

    Raises ValueError if it is no such list.

    >>> from adbench.datasets.preparation.table_rows import TableRows
    >>> rows = TableRows('[{"key": "a"}, {"key": "b"}]')
    >>> len(rows), rows[-1], [row["key"] for row in rows]
    (2, {'key': 'b'}, ['a', 'b'])
    """

    def __init__(self, text: str) -> None:
        self._text, self._starts = text, array("Q")
        decode, position = json.JSONDecoder().raw_decode, 1
        while position < len(text) - 1:
            self._starts.append(position)
            position = decode(text, position)[1] + len(", ")

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        start = self._starts[index]
        return json.JSONDecoder().raw_decode(self._text, start)[0]
