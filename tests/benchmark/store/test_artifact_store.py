"""What is stored is whole and what it says it is, whatever is killed, damaged or done at once."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from adbench.benchmark.store.artifact_store import (
    NO_SIMILAR_ARTIFACT,
    Store,
    StoreError,
    StoreWarning,
    atomic_path,
    atomic_write,
    cache_key,
    canonical_json,
)
from adbench.benchmark.store.atomic_files import ANOTHER_STORE
from stores import KEY_INPUTS, flip_bit, start_process, stored_files, truncate, wait_for_mark


def maker(text: str = "payload", calls: list[Path] | None = None) -> Callable[[Path], Any]:
    def make(path: Path) -> Mapping[str, Any]:
        if calls is not None:
            calls.append(path)
        path.write_text(text)
        return {"seconds": 1.5}

    return make


def never(path: Path) -> Mapping[str, Any]:
    raise AssertionError("created again")


def test_made_once_and_found_ever_after(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.find("checkpoint", KEY_INPUTS) is None
    assert not store.root.exists()
    stored = store.get_or_create("checkpoint", KEY_INPUTS, maker(), name="weights.bin")
    key = cache_key(KEY_INPUTS)
    assert stored.path == store.root / "checkpoint" / key[:2] / key / "weights.bin"
    assert (stored.kind, stored.key, stored.created) == ("checkpoint", key, True)
    assert stored.metadata == {"seconds": 1.5}
    again = Store(store.root)
    hit = again.get_or_create("checkpoint", KEY_INPUTS, never, name="weights.bin")
    assert not hit.created and hit.path.read_text() == "payload"
    assert hit.key_inputs == KEY_INPUTS
    beside = json.loads(hit.path.with_name("weights.bin.json").read_text())
    assert (
        beside["identity"] == KEY_INPUTS
        and beside["bytes"] == 7
        and beside["meta"] == stored.metadata
    )
    assert len(stored_files(store.root)) == 2
    assert [a.key for a in store.artifacts()] == [key]
    assert [*store.artifacts("maps")] == []


def test_another_identity_or_kind_is_another_artifact(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    store.get_or_create("checkpoint", KEY_INPUTS, maker("a", calls), name="x")
    store.get_or_create("checkpoint", {**KEY_INPUTS, "data": "abd"}, maker("b", calls), name="x")
    store.get_or_create("maps", KEY_INPUTS, maker("c", calls), name="x")
    assert len(calls) == 3
    assert store.get_or_create("maps", KEY_INPUTS, never, name="x").path.read_text() == "c"


@pytest.mark.parametrize("name", ["x", "result.json", "x.json.json"])
def test_a_payload_may_be_json_itself(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    store.get_or_create("record", KEY_INPUTS, maker("{}"), name=name)
    hit = store.get_or_create("record", KEY_INPUTS, never, name=name)
    assert hit.path.name == name and hit.path.read_text() == "{}"


def test_when_making_fails_nothing_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(path: Path) -> Mapping[str, Any]:
        path.write_text("half")
        raise KeyError("the maker's own")

    with pytest.raises(KeyError, match="the maker's own"):
        store.get_or_create("maps", KEY_INPUTS, fails, name="x")
    assert stored_files(tmp_path) == set()
    assert store.get_or_create("maps", KEY_INPUTS, maker(), name="x").created


def test_a_maker_that_writes_nothing_or_tells_nonsense_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="wrote no x"):
        store.get_or_create("maps", KEY_INPUTS, lambda path: {}, name="x")

    def tells_nan(path: Path) -> Mapping[str, Any]:
        path.touch()
        return {"loss": float("nan")}

    with pytest.raises(ValueError, match="Out of range"):
        store.get_or_create("maps", KEY_INPUTS, tells_nan, name="x")
    assert stored_files(tmp_path) == set()


@pytest.mark.parametrize(
    "damage",
    [
        lambda payload, beside: flip_bit(payload, 2),
        lambda payload, beside: truncate(payload),
        lambda payload, beside: payload.unlink(),
        lambda payload, beside: beside.unlink(),
        lambda payload, beside: truncate(beside),
        lambda payload, beside: beside.write_text("null"),
        lambda payload, beside: flip_bit(beside, beside.read_bytes().index(b"seconds") + 1),
        lambda payload, beside: flip_bit(beside, beside.read_bytes().index(b"lr")),
    ],
)
def test_what_is_damaged_is_set_aside_and_made_anew(
    tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    store = Store(tmp_path)
    path = store.get_or_create("maps", KEY_INPUTS, maker(), name="x").path
    damage(path, path.with_name("x.json"))
    with pytest.warns(StoreWarning, match="moved to"):
        anew = store.get_or_create("maps", KEY_INPUTS, maker("anew"), name="x")
    assert anew.created and anew.path.read_text() == "anew"
    assert len(list((tmp_path / "corrupt").iterdir())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.find("maps", KEY_INPUTS) is not None


def test_every_flipped_bit_of_the_sidecar_is_found_or_means_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = store.get_or_create("maps", KEY_INPUTS, maker(), name="x")
    beside = artifact.path.with_name("x.json")
    whole = beside.read_bytes()
    for at in range(len(whole)):
        flip_bit(beside, at)
        stored = [*store.artifacts("maps", verify=True)]
        contents = [(a.key_inputs, a.metadata) for a in stored]
        assert contents in ([], [(KEY_INPUTS, {"seconds": 1.5})])
        beside.write_bytes(whole)
    assert len([*store.artifacts("maps", verify=True)]) == 1


def test_finding_sets_aside_too_unless_somebody_is_at_work(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.get_or_create("maps", KEY_INPUTS, maker(), name="x").path
    flip_bit(path, 0)
    assert len([*store.artifacts("maps")]) == 1  # which looks at names and sizes only
    with store.lock("maps", cache_key(KEY_INPUTS)):
        assert store.find("maps", KEY_INPUTS) is None
        assert path.exists()
    with pytest.warns(StoreWarning):
        assert store.find("maps", KEY_INPUTS) is None
    assert not path.exists()


@pytest.mark.parametrize("moment", ["while it is written", "before it gets its name"])
def test_a_kill_while_making_leaves_nothing_whole_and_no_lock(tmp_path: Path, moment: str) -> None:
    process = start_process(
        tmp_path,
        f"""
from unittest.mock import patch
def hang(*args):
    (marks / "hangs").touch()
    time.sleep(600)
def make(path):
    path.write_text("half")
    if {moment!r} == "while it is written":
        hang()
    return {{}}
with patch("adbench.benchmark.store.artifact_store.Path.replace", hang):
    store.get_or_create("maps", KEY_INPUTS, make, name="x")
""",
    )
    wait_for_mark(tmp_path, "hangs", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = Store(tmp_path / "store")
    assert (
        stored_files(store.root) and [*store.artifacts()] == []
    )  # something is left, under no name of ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.find("maps", KEY_INPUTS) is None
        assert store.get_or_create("maps", KEY_INPUTS, maker(), name="x").created
    assert len(stored_files(store.root)) == 2  # and what was left is swept away


def test_two_at_once_make_it_once_and_the_other_is_told_to_wait(tmp_path: Path) -> None:
    script = """
def make(path):
    with (marks / "made").open("a") as file:
        file.write("x")
    (marks / "first").touch()
    while not (marks / "waits").exists():
        time.sleep(0.01)
    path.write_text("payload")
    return {}
on_wait = lambda text: (marks / "waits").touch()
got = store.get_or_create("maps", KEY_INPUTS, make, name="x", on_wait=on_wait)
print(got.created, got.path.read_text())
"""
    first = start_process(tmp_path, script)
    wait_for_mark(tmp_path, "first", first)
    second = start_process(tmp_path, script)
    outputs = [process.communicate()[0].split() for process in (first, second)]
    assert outputs == [["True", "payload"], ["False", "payload"]]
    assert (tmp_path / "marks/made").read_text() == "x"


def test_a_root_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file")
    for act in (
        lambda: store.get_or_create("maps", KEY_INPUTS, maker(), name="x"),
        lambda: store.partial_state("maps", KEY_INPUTS).save("a", {"t": torch.zeros(1)}),
        lambda: atomic_write(tmp_path / "file" / "x", "text", elsewhere=ANOTHER_STORE),
    ):
        with pytest.raises(StoreError, match=r"cannot write .*ADBENCH_STORE") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert store.find("maps", KEY_INPUTS) is None
    assert store.partial_state("maps", KEY_INPUTS).load("a") is None
    assert store.explain_miss("maps", KEY_INPUTS) == [NO_SIMILAR_ARTIFACT]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError("write failed: errno = 28,\nNo space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_while_making_is_told_in_one_line(tmp_path: Path, error: Exception) -> None:
    def fails(path: Path) -> Mapping[str, Any]:
        raise error

    with pytest.raises(StoreError, match=r"No space left on device \(free some space") as caught:
        Store(tmp_path).get_or_create("maps", KEY_INPUTS, fails, name="x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no data"), StoreError("of another store")])
def test_other_errors_are_the_makers_own(tmp_path: Path, error: Exception) -> None:
    def fails(path: Path) -> Mapping[str, Any]:
        raise error

    with pytest.raises(type(error)) as caught:
        Store(tmp_path).get_or_create("maps", KEY_INPUTS, fails, name="x")
    assert caught.value is error


def test_a_miss_is_explained_by_the_nearest_there_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.explain_miss("maps", KEY_INPUTS) == [NO_SIMILAR_ARTIFACT]
    store.get_or_create("maps", KEY_INPUTS, maker(), name="x")
    store.get_or_create("maps", {"other": 1, "thing": [1, 2]}, maker(), name="x")
    assert store.explain_miss("maps", KEY_INPUTS) == []
    requested = {"train": {"args": {"lr": 2e-5, "width": 64}, "seed": 0}, "data": "abc"}
    assert store.explain_miss("maps", requested) == ["train.args.lr: 0.0001 -> 2e-05"]
    requested = {"train": {"args": {"lr": 1e-4}, "seed": 0, "levels": [5]}, "data": "abc"}
    assert store.explain_miss("maps", requested) == [
        "train.args.width: 64 -> absent",
        "train.levels.0: absent -> 5",
    ]
    assert store.explain_miss("maps", {"wholly": "different", "from": "all"}) == [
        NO_SIMILAR_ARTIFACT
    ]
    assert store.explain_miss("checkpoint", KEY_INPUTS) == [NO_SIMILAR_ARTIFACT]


def test_an_explanation_is_short(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_create("maps", {"n": list(range(100)), "m": list(range(100))}, maker(), name="x")
    lines = store.explain_miss("maps", {"n": list(range(100)), "m": list(range(1, 101))})
    assert lines[0] == "m.0: 0 -> 1" and lines[-1] == "and 88 more" and len(lines) == 13


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.npy"
    atomic_write(path, "old")
    with pytest.raises(KeyError), atomic_path(path) as part:
        assert part.parent == path.parent and part.suffix == ".npy"
        part.write_text("new")
        raise KeyError
    assert path.read_text() == "old"
    with atomic_path(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    atomic_write(path, b"\x00")
    assert path.read_bytes() == b"\x00" and stored_files(tmp_path) == {"deep/file.npy"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return tuple(map(reordered, value)) if isinstance(value, list) else value


@given(JSON)
def test_canonical_json_knows_no_order_of_keys_and_loses_nothing(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(reordered(value)) == text
    assert json.loads(text) == value
    assert "\n" not in text and text.isascii()


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {1: "a"}, {"a": {None: 1}}, {"a": Path("x")}, {1, 2}]
)
def test_canonical_json_refuses_what_json_does_not_know(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical_json(value)
