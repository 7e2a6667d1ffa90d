"""Numbers and tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Measurement = Mapping[str, Any]


def format_number(value: float) -> str:
    """Three significant digits."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


def format_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    table = [[*rows[0]], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in table), ""]
