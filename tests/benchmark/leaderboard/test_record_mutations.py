"""Every field of a record set to what does not belong there: one entry each, and no end of a
report."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adbench import load_results
from adbench.benchmark.leaderboard.comparison import compare
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.metric_names import METRIC_RANGES
from adbench.benchmark.leaderboard.pairwise import PairError
from adbench.benchmark.leaderboard.records import parse_record, read_records
from adbench.benchmark.scheduling.status import read_status
from records import record
from reports import as_json, csv, latex, markdown, print_leaderboards

RAW = "@@@"
"""In a record's place, replaced by text that no Python value is written as."""

VALUES: dict[str, Any] = {
    "null": "null",
    "text": '"many"',
    "number": "7",
    "negative": "-3",
    "fraction": "1.5",
    "large": "1e300",
    "bool": "true",
    "list": "[1]",
    "empty list": "[]",
    "dict": '{"a": 1}',
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5000,
    "100 000 brackets": "[" * 100_000 + "]" * 100_000,
    "100 000 open brackets": "[" * 100_000,
    "40 deep": '{"a":' * 40 + "1" + "}" * 40,
    "lone surrogate": r'"\ud800"',
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e999": "1e999",
}


def whole() -> dict[str, Any]:
    """A record that has every part that there is."""
    built = record("A", 0.5, pixel_error=0.0, threads=2, device="cpu")
    built["sweep"] = {"250": {"test": {"pixel_ap": 0.5}, "val": {"pixel_ap": 0.4}}}
    built["strata"] = {"size=large": {"n": 3, "image_auroc": 0.7, "pixel_ap": None}}
    half = {"n": 9, "n_abnormal": 3, "n_groups": 9, "metrics": {"pixel_ap": {"value": 0.5}}}
    gap = {"higher": "F", "lower": "M", "value": 0.1, "pairs": 1, "low": 0.0, "high": 0.2}
    built["metadata"] = {"sex": {"subgroups": {"F": half}, "gaps": {"pixel_ap": gap}}}
    built["at_published"] = {"pixel_ap": 0.4}
    built["keys"], built["versions"] = {"record": "ab"}, {"torch": "2"}
    built["method"]["args"], built["dataset"]["args"] = {"width": 4}, {"size": [8, 8]}
    built["lesions"] = {
        "n": 3,
        "unit": "pixels",
        "bins": [{"low": 0.0, "high": None, "n": 3, "found": 1, "sensitivity": 0.3}],
        "froc": [{"threshold": 0.5, "false_per_sample": 1.0, "sensitivity": 0.5}],
        "false_size": 2.0,
    }
    built["samples"] = {
        "key": ["a", "b"],
        "group": ["a", "b"],
        "label": [0, 1],
        "score": [0.1, 0.7],
        "pixels": [9, 9],
        "abnormal_pixels": [0, 3],
        "positive_pixels": [1, 2],
        "true_positive_pixels": [0, 1],
    }
    return built


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value within another, the outer ones first."""
    if place:
        yield place
    keys = value if isinstance(value, dict) else range(isinstance(value, list) and len(value[:1]))
    for key in keys:
        yield from places(value[key], (*place, key))


def mutated(place: tuple[Any, ...], text: str) -> str:
    changed = deepcopy(whole())
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = RAW
    return json.dumps(changed).replace(json.dumps(RAW), text)


PLACES = list(places(whole()))


def test_the_record_itself_is_sound() -> None:
    assert parse_record(json.dumps(whole())) == whole()


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_every_mutation_of_every_field_is_one_entry_everywhere(tmp_path: Path, value: str) -> None:
    """One folder for each kind of value, with a file for each field."""
    folder = tmp_path / "records"
    folder.mkdir()
    for k, place in enumerate(PLACES):
        (folder / f"m{k:03d}.json").write_text(mutated(place, value))
    records = read_records(folder)
    assert [each["file"] for each in records] == [f"m{k:03d}.json" for k in range(len(PLACES))]
    files = [row.record["file"] for board in build_leaderboards(records) for row in board.entries]
    assert sorted(files) == [each["file"] for each in records]
    for broken in (each for each in records if each["status"] == "broken"):
        assert len(broken["reason"]) < 300 and broken["reason"].isprintable()
    texts = [show(records) for show in (markdown, csv, as_json, latex)]
    console = Console(file=io.StringIO(), width=120)
    print_leaderboards(records, console)
    for text in (*texts, json.dumps(read_status(tmp_path, tmp_path / "store").as_dict())):
        text.encode()
        assert all(each["file"].removesuffix(".json") in text for each in records[:2])
    assert len(load_results(tmp_path).to_frame()) == len(records)
    with pytest.raises(PairError):
        compare("a", "m000", tmp_path)


WRONG = {
    str: ("number", "bool", "list", "dict"),
    int: ("text", "bool", "list", "dict"),
    float: ("text", "bool", "list", "dict"),
    bool: ("text", "number", "list", "dict"),
    dict: ("text", "number", "bool"),
    list: ("text", "number", "bool"),
    type(None): ("bool", "list", "dict"),
}
"""By the type of a field, kinds of values that it does not take."""

TYPED = [place for place in PLACES if not {"args", "versions"} & {*place[:-1]}]
TYPED.remove(("protocol", "threshold"))  # checked by Protocol, which knows its fields
"""Places of fields that do not take any value that can be shown."""


@pytest.mark.parametrize("place", TYPED, ids=lambda place: ".".join(map(str, place)))
def test_a_field_takes_no_other_type(place: tuple[Any, ...]) -> None:
    inner: Any = whole()
    for key in place:
        inner = inner[key]
    for name in WRONG[type(inner)]:
        with pytest.raises(ValueError):
            parse_record(mutated(place, VALUES[name]))


@pytest.mark.parametrize("metric", METRIC_RANGES)
def test_a_metric_outside_its_range_is_no_record(metric: str) -> None:
    low, high = METRIC_RANGES[metric]
    for value, sound in ((low, True), (high, True), (low - 0.5, False), (high + 0.5, False)):
        for part in ("metrics", "at_published", "sweep"):
            changed = whole()
            if part == "metrics":
                changed["metrics"][metric] = {"value": value, "low": low, "high": high}
            elif part == "sweep":
                changed["sweep"]["250"]["test"][metric] = value
            else:
                changed[part][metric] = value
            if sound:
                parse_record(json.dumps(changed))
            else:
                with pytest.raises(ValueError, match=rf"{part}.*{metric}.* and lies in"):
                    parse_record(json.dumps(changed))


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics__pixel_ap": {"value": 0.5, "low": 0.6, "high": 0.4}},
        {"metrics__pixel_ap": {"value": 0.5, "low": None, "high": 0.4}},
        {"counts__test_abnormal": 201},
        {"counts__test_groups": 201},
        {"level__chosen": 1001},
        {"partial": 0},
        {"dataset__fingerprint": ""},
        {"sweep": {"1001": {"test": {}}}},
        {"sweep": {"250": {"val": {}}}},
        {"samples": {"key": ["a"], "group": ["a"], "label": [1], "score": []}},
        {"samples": {"key": ["a"], "group": ["a"], "label": [2], "score": [0.5]}},
        {"samples": {"key": ["a"], "group": ["a"], "label": [1], "score": [0.5], "pixels": [1]}},
    ],
)
def test_values_that_contradict_each_other_are_no_record(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_record(json.dumps(record("A", **changes)))


def test_a_name_that_is_no_text_and_a_pipe_are_broken_entries(tmp_path: Path) -> None:
    (tmp_path / "\udcff.json").write_text(json.dumps(whole()))
    os.mkfifo(tmp_path / "pipe.json")
    pipe, odd = read_records(tmp_path)
    assert (pipe["status"], odd["status"]) == ("broken", "broken")
    assert "it is no file" in pipe["reason"] and odd["file"] == r"\udcff.json"
    markdown([pipe, odd]).encode()
