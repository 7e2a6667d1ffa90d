"""How records came about, in words: of one, and what differs between those of a leaderboard."""

from __future__ import annotations

import json
from typing import Any

from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import Record


def provenance(record: Record) -> list[tuple[str, str]]:
    """Return how a record came about as (name, value) pairs: data, arguments, protocol, versions.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.report.html.provenance import provenance
    >>> facts = dict(provenance(example_record()))
    >>> facts["data fingerprint"], facts["argument steps"], facts["seed"]
    ('f00d', '700', '0')
    """
    method, data = record["method"], record["dataset"]
    facts = {
        "record": f"records/{record.get('file', '?')}",
        "seal": record.get("seal") or "none: damage to this record and its files is not noticed",
        "method": method["name"],
        "supervision": method.get("supervision"),
        "paper": method.get("paper"),
        "data": data["name"],
        "data fingerprint": data["fingerprint"],
        "partial": record["partial"],
        "profile": record["profile"],
        "seed": record["seed"],
        "protocol": f"{record['protocol']['id']}: {record['protocol']['text']}",
        "threshold": (record.get("threshold") or {}).get("value"),
        "device": record.get("device"),
        "threads": record.get("threads"),
    }
    nested = {
        "argument": method["args"],
        "data argument": data["args"],
        "key": record.get("keys") or {},
        "version": record.get("versions") or {},
        "tuning": record.get("tuning") or {},
    }
    for word, inner in nested.items():
        facts |= {f"{word} {key}": value for key, value in sorted(inner.items())}
    return [(key, value_text(value)) for key, value in facts.items() if value not in (None, "")]


def differing(board: Leaderboard) -> list[str]:
    """Return sentences on what differs between records: device, threads, versions of libraries.

    Times can be compared where there is none.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.report.html.provenance import differing
    >>> differing(build_leaderboards([example_record(), example_record() | {"device": "cuda"}])[0])
    ['Not all of one device: cpu, cuda.']
    """
    sentences = []
    for what in ("device", "threads"):
        values = {str(row.record.get(what) or "unknown") for row in board.done}
        if len(values) > 1:
            sentences.append(f"Not all of one {what}: {', '.join(sorted(values))}.")
    versions: dict[str, set[str]] = {}
    for row in board.done:
        for name, version in (row.record.get("versions") or {}).items():
            versions.setdefault(name, set()).add(str(version))
    sentences += [
        f"Not all made with one version of {name}: {', '.join(sorted(numbers))}."
        for name, numbers in sorted(versions.items())
        if len(numbers) > 1
    ]
    return sentences


def value_text(value: Any) -> str:
    """A value of a record as text: JSON, but text as it is.

    >>> from adbench.benchmark.report.html.provenance import value_text
    >>> value_text("demo"), value_text([1, None])
    ('demo', '[1, null]')
    """
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
