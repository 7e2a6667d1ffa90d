"""What a store does when the disk is full, read-only, shared without locks, or its clock jumps."""

from __future__ import annotations

import errno
import os
import stat
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from adbench.benchmark.store import artifact, artifact_store, atomic_files, partial_state
from adbench.benchmark.store.artifact import read_artifact
from adbench.benchmark.store.artifact_store import Store, StoreError, StoreWarning, cache_key
from adbench.benchmark.store.marker import MARKER

KEY_INPUTS = {"train": {"args": {"lr": 1e-4}, "seed": 0}, "data": "abc"}


def make(path: Path) -> Mapping[str, Any]:
    path.write_text("payload")
    return {"seconds": 1.5}


def dated(path: Path, when: float) -> None:
    os.utime(path, (when, when))


def never(path: Path) -> Mapping[str, Any]:
    raise AssertionError("created again")


def whole(root: Path) -> list[str]:
    """Whatever is in the store but locks and its marker."""
    names = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return sorted(name for name in names if not name.startswith(("locks/", MARKER)))


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


WRITES: dict[str, tuple[Any, str]] = {
    "the folder": (Path, "mkdir"),
    "the payload to the disk": (artifact_store, "fsync_path"),
    "the sidecar": (Path, "write_text"),
    "the sidecar to the disk": (artifact, "fsync_path"),
    "the name": (Path, "replace"),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_disk_that_is_full_at_any_write_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    store = Store(tmp_path / "store")
    store.get_or_create("maps", {**KEY_INPUTS, "seed": 1}, make, name="x")
    before = whole(store.root)

    def bytes_only(path: Path) -> Mapping[str, Any]:
        path.write_bytes(b"payload")
        return {"seconds": 1.5}

    with monkeypatch.context() as patch:
        patch.setattr(WRITES[write][0], WRITES[write][1], full)
        with pytest.raises(StoreError, match=r"No space left on device \(free") as caught:
            store.get_or_create("maps", KEY_INPUTS, bytes_only, name="x")
    assert "\n" not in str(caught.value)
    assert whole(store.root) == before
    assert store.get_or_create("maps", KEY_INPUTS, make, name="x").created, (
        "and with room the same call succeeds"
    )


@pytest.mark.parametrize(
    "write",
    [
        (Path, "mkdir"),
        (partial_state, "fsync_path"),
        (atomic_files, "fsync_path"),
        (Path, "write_bytes"),
        (Path, "replace"),
    ],
    ids=lambda write: f"{write[0].__name__}.{write[1]}",
)
def test_a_disk_that_is_full_while_keeping_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: tuple[Any, str]
) -> None:
    partial = Store(tmp_path).partial_state("checkpoint", KEY_INPUTS)
    partial.save("train", {"a": torch.ones(3)})
    before = whole(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(write[0], write[1], full)
        with pytest.raises(StoreError, match="No space left"):
            partial.save("train", {"a": torch.zeros(3)})
    state = partial.load("train")
    assert state is not None and state["a"].tolist() == [1, 1, 1]
    assert whole(tmp_path) == before


def denied(*_: object, **__: object) -> None:
    raise PermissionError(errno.EROFS, "Read-only file system")


def test_a_read_only_store_still_gives_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path / "store").get_or_create("maps", KEY_INPUTS, make, name="x")
    for owner, name in ((os, "utime"), (Path, "mkdir"), (Path, "write_text"), (os, "open")):
        monkeypatch.setattr(owner, name, denied)
    store = Store(tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hit = store.get_or_create("maps", KEY_INPUTS, never, name="x")
        assert hit.path.read_text() == "payload" and not hit.created
    with pytest.raises(StoreError, match=r"cannot write .*Read-only file system .*ADBENCH_STORE"):
        store.get_or_create("maps", {**KEY_INPUTS, "seed": 1}, make, name="x")


def test_a_read_only_store_with_something_damaged_says_so_once_it_is_retention_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.get_or_create("maps", KEY_INPUTS, make, name="x").path.write_text("pazload")
    for owner, name in ((os, "utime"), (Path, "mkdir"), (Path, "replace")):
        monkeypatch.setattr(owner, name, denied)
    assert store.find("maps", KEY_INPUTS) is None
    with pytest.raises(StoreError, match="Read-only file system"):
        store.get_or_create("maps", KEY_INPUTS, make, name="x")


def test_two_without_common_locks_make_it_twice_and_both_go_on(tmp_path: Path) -> None:
    """Two hosts on a server without locks: the slower one takes what the faster one stored."""
    store = Store(tmp_path)

    def slow(path: Path) -> Mapping[str, Any]:
        folder = store.folder("maps", cache_key(KEY_INPUTS))
        other = folder.with_name("other") / cache_key(KEY_INPUTS)
        other.mkdir(parents=True)
        (other / "x").write_text("the faster one's")
        artifact.write_metadata(other / "x", KEY_INPUTS, {}, 0.1)
        other.replace(folder)
        other.parent.rmdir()
        return make(path)

    stored = store.get_or_create("maps", KEY_INPUTS, slow, name="x")
    assert stored.path.read_text() == "the faster one's"
    assert whole(tmp_path) == sorted(
        stored.path.with_name(name).relative_to(tmp_path).as_posix() for name in ("x", "x.json")
    )


def test_what_was_deleted_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.get_or_create("maps", KEY_INPUTS, make, name="x").path
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get_or_create("maps", KEY_INPUTS, make, name="x").created


def test_a_hit_notes_when_it_was_used_and_changes_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored = store.get_or_create("maps", KEY_INPUTS, make, name="x")
    folder = stored.path.parent
    files = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    dated(folder, 1e9)
    assert read_artifact("maps", folder, verify=True) and store.read_metadata("maps", stored.key)
    assert [*store.artifacts(verify=True)] and store.explain_miss("maps", KEY_INPUTS) == []
    assert folder.stat().st_mtime == 1e9, "looking at it is no use of it"
    assert store.find("maps", KEY_INPUTS)
    assert abs(folder.stat().st_mtime - time.time()) < 60
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == files


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["into the past", "into the future"])
def test_a_clock_that_jumps_changes_no_hit(tmp_path: Path, jump: float) -> None:
    store = Store(tmp_path)
    stored = store.get_or_create("maps", KEY_INPUTS, make, name="x")
    partial = store.partial_state("maps", KEY_INPUTS)
    partial.save("train", {"a": torch.ones(3)})
    for path in tmp_path.rglob("*"):
        dated(path, time.time() + jump)
    again = store.get_or_create("maps", KEY_INPUTS, never, name="x")
    assert (again.key, again.key_inputs, again.metadata) == (
        stored.key,
        stored.key_inputs,
        stored.metadata,
    )
    assert partial.load("train") is not None


def test_an_artifact_is_readable_for_whoever_may_read_the_folder(tmp_path: Path) -> None:
    """safetensors writes files that only their owner can read; a store is shared."""

    def private(path: Path) -> Mapping[str, Any]:
        path.write_text("x")
        path.chmod(0o600)
        return {}

    stored = Store(tmp_path).get_or_create("checkpoint", KEY_INPUTS, private, name="x")
    (tmp_path / "plain").touch()
    plain = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE(stored.path.stat().st_mode) == plain


def test_how_long_it_took_is_sealed_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored = store.get_or_create("maps", KEY_INPUTS, make, name="x")
    assert stored.seconds is not None and 0 <= stored.seconds < 60 and stored.size == 7
    hit = store.find("maps", KEY_INPUTS)
    assert hit is not None and hit.seconds == stored.seconds
    beside = stored.path.with_name("x.json")
    beside.write_text(beside.read_text().replace('"took": ', '"took": 1'))
    with pytest.warns(StoreWarning, match="damaged"):
        assert store.find("maps", KEY_INPUTS) is None


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "a truncated checkpoint": lambda path: os.truncate(path, 60),
    "a flipped byte": lambda path: path.write_bytes(
        path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 1]) + path.read_bytes()[-8:]
    ),
    "another identity": lambda path: path.with_name("w.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_network_would_choke_on_never_reaches_it(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import load_file, save_file

    store = Store(tmp_path)

    def weights(path: Path) -> Mapping[str, Any]:
        save_file({"w": torch.arange(64.0)}, path)
        return {}

    path = store.get_or_create("checkpoint", KEY_INPUTS, weights, name="w").path
    DAMAGES[damage](path)
    with pytest.warns(StoreWarning):
        anew = store.get_or_create("checkpoint", KEY_INPUTS, weights, name="w")
    assert anew.created and torch.equal(load_file(anew.path)["w"], torch.arange(64.0))
