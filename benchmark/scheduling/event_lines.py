"""Job events as lines of JSON: `[kind, facts]`, written by the process of a job.

A plugin may write to the same pipe or file, and a host may be lost in the middle of a line. So a
line is an event only if everything that the scheduler reads of it has the right type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

MAX_DEPTH = 32
"""Lists and dictionaries within each other at most; a record has fewer than ten."""

PROGRESS_TYPES: Mapping[str, Mapping[str, type]] = {
    "phase": {"phase": str},
    "note": {"text": str},
}
"""The facts that a progress event of this name always has."""

OUTCOME_TYPES: Mapping[str, Mapping[str, type]] = {
    "prepared": {"heads": dict, "unfit": dict},
    "ok": {"record": dict},
    "helped": {"samples": int},
    "failed": {"phase": str, "exception": str, "trace": str},
    "stopped": {"said": str},
    "no-data": {"said": str},
    "full": {"phase": str, "said": str},
    "refused": {"said": str},
}
"""What an outcome of this `end` always has."""


def format_event(kind: str, facts: Mapping[str, Any]) -> bytes:
    """Return an event as one line. A lone surrogate, as in a file name that is no UTF-8, becomes a
    question mark; a number of another library, a float.

    >>> from adbench.benchmark.scheduling.event_lines import format_event
    >>> format_event("ended", {"end": "stopped", "said": "at step 3"})
    b'["ended", {"end": "stopped", "said": "at step 3"}]\\n'
    """
    text = json.dumps([kind, facts], default=float, ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"


def parse_event(line: bytes, kinds: Collection[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the kind and the facts of a line, or None if it is not an event of these kinds.

    >>> from adbench.benchmark.scheduling.event_lines import parse_event
    >>> parse_event(b'["ended", {"end": "stopped", "said": ""}]', ["ended"])
    ('ended', {'end': 'stopped', 'said': ''})
    >>> parse_event(b'["ended", 3]', ["ended"]) is parse_event(b"a print", ["ended"]) is None
    True
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(value, list) and len(value) == 2):
        return None
    kind, facts = value
    if not (isinstance(kind, str) and kind in kinds and isinstance(facts, dict)):
        return None
    return (kind, facts) if _is_writable(facts) and _is_complete(kind, facts) else None


def _is_writable(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether it can be written as UTF-8, and is not nested too deeply to be written at all."""
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        items = [*value, *value.values()]
    elif isinstance(value, list):
        items = value
    else:
        return True
    return depth > 0 and all(_is_writable(item, depth - 1) for item in items)


def _is_complete(kind: str, facts: Mapping[str, Any]) -> bool:
    if kind == "progress":
        event, inner = facts.get("event"), facts.get("facts")
        return isinstance(event, str) and isinstance(inner, dict) and _is_progress(event, inner)
    if kind == "heartbeat":
        return all(_is_finite(facts[key]) for key in ("memory_mb", "gpu_mb") if key in facts)
    if kind == "ended":
        end = facts.get("end")
        return isinstance(end, str) and end in OUTCOME_TYPES and _has(facts, OUTCOME_TYPES[end])
    if kind == "died":
        return isinstance(facts.get("signal", 0), int | None)
    return True


def _is_progress(event: str, facts: Mapping[str, Any]) -> bool:
    if not _has(facts, PROGRESS_TYPES.get(event, {})):
        return False
    if "step" not in facts or event == "oom":
        return True
    loss = facts.get("loss")
    return (
        _is_finite(facts["step"])
        and _is_finite(facts.get("of"))
        and (loss is None or isinstance(loss, float) or _is_finite(loss))
    )


def _has(facts: Mapping[str, Any], types: Mapping[str, type]) -> bool:
    return all(isinstance(facts.get(key), kind) for key, kind in types.items())


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63
