"""The record: its types and their JSON schema, records of schema 1, and files that hold none."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.record_schema import json_schema
from adbench.benchmark.leaderboard.records import (
    SCHEMA_1_NAMES,
    parse_record,
    read_records,
    record_seal,
    record_text,
)
from records import missing, record


def schema_1(changed: dict[str, Any]) -> dict[str, Any]:
    old = changed | {"schema": 1}
    for part, names in SCHEMA_1_NAMES.items():
        back = {new: former for former, new in names.items()}
        old[part] = {back.get(key, key): value for key, value in changed[part].items()}
    return old


def test_the_exported_json_schema_is_that_of_the_types() -> None:
    text = (files("adbench.benchmark.leaderboard") / "record.schema.json").read_text()
    assert json.loads(text) == json_schema()


def test_a_record_of_schema_1_reads_as_the_same_record_of_schema_2() -> None:
    names = ("pixels", "abnormal_pixels", "positive_pixels", "true_positive_pixels")
    new = record("A", keys={"maps/calibration": "k", "record": "r"}) | {
        "samples": {"key": ["a"], "group": ["g"], "label": [1], "score": [0.5]}
        | {name: [k] for k, name in enumerate(names)}
    }
    old = schema_1(new)
    assert old["counts"]["held_out"] == 30 and old["samples"]["found"] == [2]
    assert "maps/held_out" in old["keys"]
    assert parse_record(json.dumps(old)) == parse_record(json.dumps(new)) == new


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_record_without_a_result_is_sound(status: str) -> None:
    whole = missing("A", status=status)
    assert parse_record(json.dumps(whole)) == whole


WHOLE = json.dumps(record("A"))
BAD = {
    "schema 3": json.dumps(record("A", schema=3)),
    "no schema": "{}",
    "null schema": json.dumps(record("A", schema=None)),
    "true schema": json.dumps(record("A", schema=True)),
    "text schema": json.dumps(record("A", schema="2")),
    "null": "null",
    "empty": "",
    "cut": WHOLE[:99],
    "null method": json.dumps(record("A", method=None)),
    "list for method": json.dumps(record("A", method=[])),
    "null metric": json.dumps(record("A", metrics__pixel_ap=None)),
    "text for a count": json.dumps(record("A", counts__test="many")),
    "text for a seed": json.dumps(record("A", seed="0")),
    "text for a cost": json.dumps(record("A", cost__parameters="1")),
    "true for a metric": json.dumps(record("A", metrics__pixel_ap={"value": True})),
    "negative count": json.dumps(record("A", counts__test=-1)),
    "unknown status": json.dumps(record("A", status="fine")),
    "list for status": json.dumps(record("A", status=[])),
    "no level": json.dumps({k: v for k, v in record("A").items() if k != "level"}),
    "deep": "[" * 100_000,
    "deep arguments": WHOLE.replace('"args": {}', '"args": ' + '{"a": ' * 400 + "1" + "}" * 400),
    "400 digits": WHOLE.replace('"seed": 0', f'"seed": {"9" * 400}'),
    "400 digits of a cost": WHOLE.replace("690000", "9" * 400),
    "400 digits in arguments": WHOLE.replace('"args": {}', f'"args": {{"a": {"9" * 400}}}'),
    "5000 digits": WHOLE.replace('"seed": 0', f'"seed": {"9" * 5000}'),
    "infinity": WHOLE.replace("690000", "1e999"),
    "not a number in arguments": WHOLE.replace('"args": {}', '"args": {"a": NaN}'),
    "half a surrogate pair": WHOLE.replace('"A"', r'"\ud800"'),
    "level of superscripts": json.dumps(record("A", sweep={"²": {}})),
    "list in the sweep": json.dumps(record("A", sweep={"50": {"val": []}})),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_record_is_one_entry_that_says_why(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text(WHOLE)
    broken, sound = read_records(tmp_path)
    assert (broken["status"], sound["status"]) == ("broken", "ok")
    assert broken["reason"].startswith("a.json is no record: ")
    assert len(broken["reason"]) < 300 and "\n" not in broken["reason"]
    assert [len(each.entries) for each in build_leaderboards([broken, sound])] == [1, 1]


def test_bytes_that_are_no_text_and_a_folder_are_entries_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{}")
    (tmp_path / "b.json").mkdir()
    (tmp_path / "c.json").symlink_to(tmp_path / "nowhere")
    assert [each["status"] for each in read_records(tmp_path)] == ["broken"] * 3


def test_a_copy_of_a_record_counts_once(tmp_path: Path) -> None:
    text = json.dumps(record("A"))
    for name in ("copy of a.json", "a.json", "a (1).json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "b.json").write_text(json.dumps(record("B")))
    by_file = {entry["file"]: entry for entry in read_records(tmp_path)}
    assert {name: entry["status"] for name, entry in by_file.items()} == {
        "a.json": "ok",
        "a (1).json": "broken",
        "copy of a.json": "broken",
        "b.json": "ok",
    }
    assert by_file["a (1).json"]["reason"] == "a (1).json is a copy of a.json: remove one of them"


def test_a_name_twice_is_no_record() -> None:
    text = json.dumps(record("A")).replace('"seed": 0', '"seed": 0, "seed": 7', 1)
    with pytest.raises(ValueError, match="it holds 'seed' twice"):
        parse_record(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_the_text_of_a_record_has_a_line_a_field_and_the_same_content_and_seal(
    content: dict[str, Any],
) -> None:
    text = record_text(content)
    assert json.loads(text) == content
    assert record_seal(json.loads(text)) == record_seal(content)
    assert text.count("\n") == max(len(content), 1) + 2
    assert len(text) - 3 <= len(json.dumps(content, indent=1, sort_keys=True)) + 2


def test_records_of_both_layouts_are_read_alike(tmp_path: Path) -> None:
    built = {k: v for k, v in record("A").items() if k != "file"}
    built["seal"] = record_seal(built)
    texts = {"old": json.dumps(built, indent=1, sort_keys=True) + "\n", "new": record_text(built)}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "A.json").write_text(text)
    old, new = (read_records(tmp_path / name) for name in texts)
    assert old == new and old[0]["status"] == "ok"
    assert len(texts["new"]) < len(texts["old"])
