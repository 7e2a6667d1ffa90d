"""Lines that a plugin, or a host that was lost, left where events are read: none ends a run."""

from __future__ import annotations

import pytest

from adbench.benchmark.scheduling.event_lines import format_event, parse_event

KINDS = ("told", "alive", "ended", "died")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"what a plugin wrote",
        b"\xff\xfe",
        b"3",
        b"null",
        b"{}",
        b'["alive"]',
        b'["alive", {}, 1]',
        b'["alive", 3]',
        b'["alive", null]',
        b'["unheard", {}]',
        b'[["alive"], {}]',
        b"[" * 200_000,
        b'["alive", ' + b'{"a":' * 500 + b"1" + b"}" * 501 + b"]",
        b'["alive", {"memory_mb": "much"}]',
        b'["alive", {"memory_mb": 1e999}]',
        b'["alive", {"\\ud800": 1}]',
        b'["told", {"event": 3, "facts": {}}]',
        b'["told", {"event": "train"}]',
        b'["told", {"event": "phase", "facts": {}}]',
        b'["told", {"event": "note", "facts": {"text": 3}}]',
        b'["told", {"event": "note", "facts": {"text": "\\ud800"}}]',
        b'["told", {"event": "train", "facts": {"step": 1}}]',
        b'["told", {"event": "train", "facts": {"step": "1", "of": 2}}]',
        b'["told", {"event": "train", "facts": {"step": NaN, "of": 2}}]',
        b'["told", {"event": "train", "facts": {"step": 1, "of": 2, "loss": "low"}}]',
        b'["told", {"event": "train", "facts": {"step": 1, "of": 1' + b"0" * 400 + b"}}]",
        b'["told", {"event": "train", "facts": {"step": 1, "of": 1' + b"0" * 5000 + b"}}]",
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
        ("alive", {"memory_mb": 12.5, "gpu_mb": 3}),
        ("told", {"event": "train", "facts": {"step": 1, "of": 10, "loss": 0.5}}),
        ("told", {"event": "oom", "facts": {"micro": 4}}),
        ("ended", {"end": "ok", "record": {"metrics": {"auroc": {"value": None}}}}),
        ("died", {"signal": 9, "memory": False}),
        ("died", {"signal": None, "said": "its host was lost", "lost": True}),
    ],
)
def test_an_event_comes_back_as_it_was_written(kind: str, facts: dict[str, object]) -> None:
    assert parse_event(format_event(kind, facts), KINDS) == (kind, facts)
    assert parse_event(format_event(kind, facts), ["begun"]) is None


def test_a_file_name_that_is_no_utf_8_does_not_cost_the_outcome() -> None:
    outcome = {"end": "stopped", "said": "no file a\udcff.png"}
    assert parse_event(format_event("ended", outcome), KINDS) == (
        "ended",
        {"end": "stopped", "said": "no file a?.png"},
    )
