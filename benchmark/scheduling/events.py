"""Events of a job and its outcome: typed values, each one line of JSON between processes.

A plugin may write to the same pipe or file, and a host may be lost in the middle of a line. So a
line is an event only if every field of it has the right type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from ..leaderboard.records import plain_text
from .printable import escape_surrogates

Number = Annotated[float, Meta(ge=-(2.0**63), le=2.0**63)]
Code = Annotated[int, Meta(ge=-255, le=255)]


class Started(Struct, frozen=True, tag_field="kind", tag="started", omit_defaults=True):
    """The process of a job runs.

    >>> format_event(Started(pid=7)).decode().strip()
    '{"kind": "started", "pid": 7}'
    """

    pid: int | None = None
    slot: int | None = None  # of the executor
    host: str = ""  # its name; empty for this one


class Progress(Struct, frozen=True, tag_field="kind", tag="progress", omit_defaults=True):
    """An event of the engine, with those of its facts that a user is shown.

    >>> format_event(Progress("train", step=3, of=9)).decode().strip()
    '{"kind": "progress", "event": "train", "step": 3, "of": 9}'
    >>> Progress("train", step=3)
    Traceback (most recent call last):
    ValueError: a step without the number of steps
    """

    event: str  # train, predict, oom, note, phase, the name of an artifact
    step: Number | None = None  # how far; None where the event has no steps
    of: Number | None = None  # steps in all
    loss: Number | None = None
    part: str = ""  # of the data
    phase: str = ""  # train, predict or evaluate: of an event "phase"
    text: str = ""  # of an event "note"
    fresh: bool = True  # whether an artifact was made now, or read from the store
    micro: Number | None = None  # rows at a time in training, of an event "oom"
    batch: Number | None = None  # rows at a time in prediction, of an event "oom"

    def __post_init__(self) -> None:
        if self.step is not None and self.of is None:
            raise ValueError("a step without the number of steps")


class Heartbeat(Struct, frozen=True, tag_field="kind", tag="heartbeat", omit_defaults=True):
    """A sign of life, every second or few.

    >>> format_event(Heartbeat(memory_mb=512.0)).decode().strip()
    '{"kind": "heartbeat", "memory_mb": 512.0}'
    """

    memory_mb: Number | None = None
    gpu_mb: Number | None = None


class Output(Struct, frozen=True, tag_field="kind", tag="output"):
    """What a job printed, as bytes; base64 in JSON.

    >>> format_event(Output(b"hello")).decode().strip()
    '{"kind": "output", "data": "aGVsbG8="}'
    """

    data: bytes


class Prepared(Struct, frozen=True, tag_field="end", tag="prepared"):
    """A dataset is prepared: the outcome of the job before its experiments.

    >>> outcome = Prepared({"phantom.dae.s0": {"schema": 2}}, {"phantom.ldm.s0": "takes 2 axes"})
    >>> parse_event(format_event(Ended(outcome))).outcome == outcome
    True
    """

    headers: dict[str, dict[str, Any]]  # the fields that every record has, by experiment
    incompatible: dict[str, str]  # why an experiment cannot be run


class Succeeded(Struct, frozen=True, tag_field="end", tag="ok"):
    """An experiment has its record: the outcome of one that ended well.

    >>> format_event(Ended(Succeeded({"status": "ok"}))).decode().strip()
    '{"kind": "ended", "outcome": {"end": "ok", "record": {"status": "ok"}}}'
    """

    record: dict[str, Any]


class Helped(Struct, frozen=True, tag_field="end", tag="helped"):
    """A helper predicted a number of samples of another job.

    >>> format_event(Ended(Helped(samples=32))).decode().strip()
    '{"kind": "ended", "outcome": {"end": "helped", "samples": 32}}'
    """

    samples: int


class Failed(Struct, frozen=True, tag_field="end", tag="failed"):
    """A job ended with an exception.

    >>> failure = Failed("train", "ValueError: no good")
    >>> failure.phase, failure.trace
    ('train', '')
    """

    phase: str  # prepare, train, predict or evaluate; none where it never started
    exception: str  # one line
    trace: str = ""


class Stopped(Struct, frozen=True, tag_field="end", tag="stopped"):
    """A job stopped on request, and keeps its unfinished work.

    >>> Ended(Stopped("at step 3")).outcome.reason
    'at step 3'
    """

    reason: str = ""


class NoData(Struct, frozen=True, tag_field="end", tag="no-data"):
    """A dataset is missing or damaged.

    >>> format_event(Ended(NoData("no folder brats"))).decode().strip()
    '{"kind": "ended", "outcome": {"end": "no-data", "reason": "no folder brats"}}'
    """

    reason: str


class DiskFull(Struct, frozen=True, tag_field="end", tag="full"):
    """A disk is full; the same job continues when it has room.

    >>> DiskFull("predict", "cannot write maps.h5: No space left on device").phase
    'predict'
    """

    phase: str
    reason: str


JobOutcome = Prepared | Succeeded | Helped | Failed | Stopped | NoData | DiskFull
"""How a job ended whose process ended well."""


class Ended(Struct, frozen=True, tag_field="kind", tag="ended"):
    """A job ended by itself, with an outcome.

    >>> parse_event(b'{"kind": "ended", "outcome": {"end": "helped", "samples": 32}}')
    Ended(outcome=Helped(samples=32))
    """

    outcome: JobOutcome


class Died(Struct, frozen=True, tag_field="kind", tag="died", omit_defaults=True):
    """The process of a job ended without an outcome.

    >>> format_event(Died(signal=9, out_of_memory=True)).decode().strip()
    '{"kind": "died", "signal": 9, "out_of_memory": true}'
    """

    signal: Code | None = None  # that killed it
    code: Code | None = None  # with which it ended
    reason: str = ""  # one line; empty where signal or code say it
    out_of_memory: bool = False  # whether the system killed it for want of memory
    lost: bool = False  # whether its host went away
    with_others: bool = False  # whether all jobs of its fork server died, because of any of them


Event = Started | Progress | Heartbeat | Output | Ended | Died


class JobEvent(NamedTuple):
    """An event, with the name of its job.

    >>> name, event = JobEvent("phantom.dae.s0", Died(code=1))
    >>> name, event.code
    ('phantom.dae.s0', 1)
    """

    job_name: str
    event: Event


def progress_event(event: str, facts: Mapping[str, Any]) -> Progress:
    """Return an event of the engine as a typed one; none of its facts if one has another type.

    >>> from adbench.benchmark.scheduling.events import progress_event
    >>> progress_event("train", {"step": 3, "of": 9, "loss": float("nan"), "lr": 1e-4})
    Progress(event='train', step=3.0, of=9.0, loss=None, part='', phase='', text='', fresh=True, \
micro=None, batch=None)
    """
    fields = {key: facts[key] for key in Progress.__struct_fields__ if key in facts}
    for key, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            fields[key] = None
    try:
        return msgspec.convert({**fields, "kind": "progress", "event": event}, Progress)
    except msgspec.ValidationError:  # a plugin's own
        return Progress(plain_text(event))


def format_event(event: Event) -> bytes:
    r"""Return an event as one line. A number of another library becomes a float, and half a
    surrogate pair, as in a file name that is not UTF-8, an escape.

    >>> from adbench.benchmark.scheduling.events import Ended, Stopped, format_event
    >>> format_event(Ended(Stopped("at step 3")))
    b'{"kind": "ended", "outcome": {"end": "stopped", "reason": "at step 3"}}\n'
    """
    value = msgspec.to_builtins(event, enc_hook=float)
    return escape_surrogates(json.dumps(value, ensure_ascii=False)).encode() + b"\n"


def parse_event(line: bytes) -> Event | None:
    """Return the event of a line, or None if it is no event.

    >>> from adbench.benchmark.scheduling.events import parse_event
    >>> parse_event(b'{"kind": "ended", "outcome": {"end": "stopped", "reason": ""}}')
    Ended(outcome=Stopped(reason=''))
    >>> parse_event(b'{"kind": "ended", "outcome": 3}') is parse_event(b"a print") is None
    True
    """
    try:
        return msgspec.json.decode(line, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
