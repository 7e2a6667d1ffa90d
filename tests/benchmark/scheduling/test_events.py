"""Lines that a plugin, or a host that was lost, left where events are read: none ends a run."""

from __future__ import annotations

import pytest

from adbench.benchmark.scheduling.events import (
    Died,
    Ended,
    Event,
    Failed,
    Heartbeat,
    NoData,
    Output,
    Prepared,
    Progress,
    Started,
    Stopped,
    Succeeded,
    format_event,
    parse_event,
    progress_event,
)

TRAIN = b'{"kind": "progress", "event": "train", '
ENDED = b'{"kind": "ended", "outcome": '


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"what a plugin wrote",
        b"\xff\xfe",
        b"3",
        b"null",
        b"[]",
        b"{}",
        b'["told", 5]',
        b'{"kind": 3}',
        b'{"kind": ["heartbeat"]}',
        b'{"kind": "unheard"}',
        b'{"kind": "heartbeat"} {}',
        b"[" * 200_000,
        b'{"kind": "heartbeat", "more": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"kind": "heartbeat", "memory_mb": "much"}',
        b'{"kind": "heartbeat", "memory_mb": 1e999}',
        b'{"kind": "heartbeat", "\\ud800": 1}',
        b'{"kind": "started", "pid": "one"}',
        b'{"kind": "progress"}',
        b'{"kind": "progress", "event": 3}',
        b'{"kind": "progress", "event": "phase", "phase": null}',
        b'{"kind": "progress", "event": "note", "text": 3}',
        b'{"kind": "progress", "event": "note", "text": "\\ud800"}',
        TRAIN + b'"step": 1}',
        TRAIN + b'"step": "1", "of": 2}',
        TRAIN + b'"step": NaN, "of": 2}',
        TRAIN + b'"step": 1, "of": 2, "loss": "low"}',
        TRAIN + b'"step": 1, "of": 1' + b"0" * 400 + b"}",
        TRAIN + b'"step": 1, "of": 1' + b"0" * 5000 + b"}",
        ENDED + b"{}}",
        ENDED + b'{"end": ["ok"]}}',
        ENDED + b'{"end": "ok"}}',
        ENDED + b'{"end": "ok", "record": 3}}',
        ENDED + b'{"end": "failed", "phase": "train"}}',
        ENDED + b'{"end": "stopped", "reason": null}}',
        ENDED + b'{"end": "prepared", "headers": {"a": 3}, "incompatible": {}}}',
        b'{"kind": "died", "signal": "nine"}',
        b'{"kind": "died", "signal": 1' + b"0" * 400 + b"}",
    ],
)
def test_a_line_that_is_no_event_is_none(line: bytes) -> None:
    assert parse_event(line) is None


@pytest.mark.parametrize(
    "event",
    [
        Started(12, 1, "node7"),
        Heartbeat(12.5, 3.0),
        Progress("train", 1, 10, 0.5),
        Progress("oom", micro=4),
        Output(b"\xff\x00"),
        Ended(Succeeded({"metrics": {"auroc": {"value": None}}})),
        Ended(Prepared({"a": {"seed": 3}}, {"b": "no labels"})),
        Ended(Failed("train", "ValueError: no", "Traceback")),
        Ended(NoData("no file")),
        Died(signal=9, out_of_memory=True),
        Died(reason="its host was lost", lost=True),
    ],
)
def test_an_event_comes_back_as_it_was_written(event: Event) -> None:
    assert parse_event(format_event(event)) == event


def test_a_file_name_that_is_not_utf_8_does_not_cost_the_outcome() -> None:
    event = Ended(Succeeded({"file": "a\udcff.png", "\udc80": 1}))
    assert parse_event(format_event(event)) == Ended(
        Succeeded({"file": "a\\udcff.png", "\\udc80": 1})
    )


def test_of_facts_of_a_wrong_type_the_event_stays() -> None:
    facts = {"step": 1, "of": 2, "loss": float("inf")}
    assert progress_event("train", facts) == Progress("train", 1, 2)
    for wrong in ({"step": "a", "of": 2}, {"step": 3}, {"text": 3}, {"kind": "died", "step": []}):
        assert progress_event("train", wrong) == Progress("train")
    assert progress_event("predict", {"part": "test", "step": 1, "of": 2, "key": object()}) == (
        Progress("predict", 1, 2, part="test")
    )
    assert parse_event(format_event(Ended(Stopped("\x1b[2J")))) == Ended(Stopped("\x1b[2J"))
