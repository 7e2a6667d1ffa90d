"""Lines that a plugin, or a host that was lost, left where events are read: none ends a run."""

from __future__ import annotations

import pytest

from adbench.benchmark.scheduling.event_lines import format_event, parse_event

KINDS = ("progress", "heartbeat", "ended", "died")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"what a plugin wrote",
        b"\xff\xfe",
        b"3",
        b"null",
        b"{}",
        b'["heartbeat"]',
        b'["heartbeat", {}, 1]',
        b'["heartbeat", 3]',
        b'["heartbeat", null]',
        b'["unheard", {}]',
        b'[["heartbeat"], {}]',
        b"[" * 200_000,
        b'["heartbeat", ' + b'{"a":' * 500 + b"1" + b"}" * 501 + b"]",
        b'["heartbeat", {"memory_mb": "much"}]',
        b'["heartbeat", {"memory_mb": 1e999}]',
        b'["heartbeat", {"\\ud800": 1}]',
        b'["progress", {"event": 3, "facts": {}}]',
        b'["progress", {"event": "train"}]',
        b'["progress", {"event": "phase", "facts": {}}]',
        b'["progress", {"event": "note", "facts": {"text": 3}}]',
        b'["progress", {"event": "note", "facts": {"text": "\\ud800"}}]',
        b'["progress", {"event": "train", "facts": {"step": 1}}]',
        b'["progress", {"event": "train", "facts": {"step": "1", "of": 2}}]',
        b'["progress", {"event": "train", "facts": {"step": NaN, "of": 2}}]',
        b'["progress", {"event": "train", "facts": {"step": 1, "of": 2, "loss": "low"}}]',
        b'["progress", {"event": "train", "facts": {"step": 1, "of": 1' + b"0" * 400 + b"}}]",
        b'["progress", {"event": "train", "facts": {"step": 1, "of": 1' + b"0" * 5000 + b"}}]",
        b'["ended", {}]',
        b'["ended", {"end": ["ok"]}]',
        b'["ended", {"end": "ok"}]',
        b'["ended", {"end": "failed", "phase": "train"}]',
        b'["ended", {"end": "stopped", "said": null}]',
        b'["died", {"signal": "nine"}]',
    ],
)
def test_a_line_that_is_no_event_is_none(line: bytes) -> None:
    assert parse_event(line, KINDS) is None


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("heartbeat", {"memory_mb": 12.5, "gpu_mb": 3}),
        ("progress", {"event": "train", "facts": {"step": 1, "of": 10, "loss": 0.5}}),
        ("progress", {"event": "oom", "facts": {"micro": 4}}),
        ("ended", {"end": "ok", "record": {"metrics": {"auroc": {"value": None}}}}),
        ("died", {"signal": 9, "memory": False}),
        ("died", {"signal": None, "said": "its host was lost", "lost": True}),
    ],
)
def test_an_event_comes_back_as_it_was_written(kind: str, facts: dict[str, object]) -> None:
    assert parse_event(format_event(kind, facts), KINDS) == (kind, facts)
    assert parse_event(format_event(kind, facts), ["started"]) is None


def test_a_file_name_that_is_no_utf_8_does_not_cost_the_outcome() -> None:
    outcome = {"end": "stopped", "said": "no file a\udcff.png"}
    assert parse_event(format_event("ended", outcome), KINDS) == (
        "ended",
        {"end": "stopped", "said": "no file a?.png"},
    )
