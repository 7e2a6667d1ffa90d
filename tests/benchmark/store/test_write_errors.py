"""An error of writing names the file and the folder to choose instead: the store's or another."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from adbench.benchmark.store.artifact_store import Store
from adbench.benchmark.store.atomic_files import StoreError, atomic_path, atomic_write


def full_disk(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_folder_that_a_command_names_is_not_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results" / "leaderboard.csv"
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(StoreError) as caught:
        atomic_write(path, "method\n")
    remedy = "(free some space, or name another folder)"
    assert str(caught.value) == f"cannot write {path}: No space left on device {remedy}"
    assert not list(path.parent.iterdir())


def test_a_full_store_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr(Path, "mkdir", full_disk)
    with pytest.raises(StoreError, match=r"No space left .*or set ADBENCH_STORE\)"):
        store.get_or_create("maps", {"a": 1}, lambda folder: {}, name="a")


@pytest.mark.parametrize(
    "full",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("safetensors: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_in_the_block_of_a_file_names_the_file(tmp_path: Path, full: Exception) -> None:
    path = tmp_path / "pictures" / "a.png"
    with pytest.raises(StoreError) as caught, atomic_path(path):
        raise full
    assert str(caught.value).startswith(f"cannot write {path}: No space left on device (free")
    assert not list(path.parent.iterdir())


def test_another_error_in_the_block_of_a_file_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"), atomic_path(tmp_path / "a.png"):
        raise ValueError("no picture")
    assert not list(tmp_path.iterdir())
