"""The rows of a table are those that JSON reads, in whichever way they are asked for."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adbench.datasets.preparation.table_rows import TableRows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), VALUES), max_size=6))
def test_rows_are_those_of_the_text(rows: list[dict[str, Any]]) -> None:
    table = TableRows(json.dumps(rows))
    assert [*table] == rows and len(table) == len(rows)
    assert table[1:] == rows[1:] and [table[-1 - i] for i in range(len(rows))] == rows[::-1]
