"""The records within the page, compressed: the one place from which it takes all digits.

Tables show three digits of a value; the script of the page looks up the rest, and what a record
says of its origin, when a reader asks for it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from ...leaderboard.records import Record
from .provenance import provenance


def pack_records(records: Sequence[Record]) -> str:
    """Return records and their provenance as base64 of compressed JSON (zlib).

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> from adbench.benchmark.report.html.packed_records import pack_records, unpack_records
    >>> [each["record"]["seed"] for each in unpack_records(pack_records(example_records()))]
    [0, 0]
    """
    content = [  # side by side, for what they share is then compressed
        {"record": _without_samples(record), "facts": provenance(record)} for record in records
    ]
    text = json.dumps(content, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpack_records(text: str) -> list[dict[str, Any]]:
    """Return what `pack_records` packed: each `record`, and its `facts`, pairs of name and value.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.report.html.packed_records import pack_records, unpack_records
    >>> dict(unpack_records(pack_records([example_record()]))[0]["facts"])["seed"]
    '0'
    """
    return json.loads(zlib.decompress(base64.b64decode(text)))


def _without_samples(record: Record) -> dict[str, Any]:
    """The record without the lists that are as long as there are samples or calibration pixels."""
    fields = {name: value for name, value in record.items() if name != "samples"}
    if calibration := fields.get("calibration"):
        rates = {name: v for name, v in calibration.items() if not isinstance(v, list)}
        fields["calibration"] = rates
    return fields
