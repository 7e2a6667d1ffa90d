"""The index of a store: the same answers with it, without it, damaged, shared and read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from adbench.benchmark.store import index_database
from adbench.benchmark.store.artifact_store import Store
from adbench.benchmark.store.index import StoreIndex
from adbench.benchmark.store.index_database import FILE_NAME
from adbench.benchmark.store.inventory import list_items
from adbench.benchmark.store.partial_state import StoreWarning


def inputs(seed: int, steps: int = 5) -> dict[str, Any]:
    data = {"dataset": "brats", "args": {}, "samples": {}}
    return {
        "method": "pca:PCA",
        "supervision": "normal",
        "args": {"steps": steps},
        "data": data,
        "seed": seed,
        "numerics": "float32",
    }


def add(store: Store, seed: int) -> Path:
    def create(path: Path) -> dict[str, Any]:
        path.write_bytes(b"weights" * (1 + seed))
        return {"device": "cpu", "threads": 1}

    artifact = store.get_or_create("checkpoint", inputs(seed), create, name="weights.bin")
    return artifact.path.parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for seed in range(6):
        add(store, seed)
    return store


def listing(store: Store) -> list[dict[str, Any]]:
    return [item.as_dict(0.0) for item in list_items(store)]


def test_the_second_look_reads_no_metadata(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = listing(store)
    reads: list[object] = []
    original = index_database.read_artifact
    monkeypatch.setattr(
        index_database,
        "read_artifact",
        lambda *args, **kwargs: reads.append(args) or original(*args, **kwargs),
    )
    assert listing(store) == first and len(first) == 6 and reads == []
    folder = add(store, 9)
    assert len(listing(store)) == 7 and len(reads) == 1
    shutil.rmtree(folder)
    assert listing(store) == first and len(reads) == 1


@pytest.mark.parametrize("harm", ["delete", "garbage", "empty", "cut", "other table"])
def test_an_index_that_is_gone_or_damaged_changes_nothing(store: Store, harm: str) -> None:
    first, path = listing(store), store.root / FILE_NAME
    for suffix in ("-wal", "-shm"):
        path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
    if harm == "delete":
        path.unlink()
    elif harm == "other table":
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute(f"CREATE TABLE artifacts_{index_database.VERSION} (kind, x)")
        database.close()
    else:
        content = path.read_bytes()
        new = {"garbage": os.urandom(5000), "empty": b"", "cut": content[: len(content) // 2]}
        path.write_bytes(new[harm])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if harm in ("cut", "other table") else "error", StoreWarning)
        assert listing(store) == first


def test_damage_is_seen_though_the_index_knows_better(store: Store) -> None:
    listing(store)
    folder = store.folders("checkpoint")[2]
    (folder / "weights.bin").write_bytes(b"x")
    assert [item.damaged for item in list_items(store)] == [k == 2 for k in range(6)]
    metadata = folder / "weights.bin.json"
    text = metadata.read_text().replace('"device": "cpu"', '"device": "gpu"')
    other = store.folders("checkpoint")[4] / "weights.bin.json"
    other.write_text(text[: other.stat().st_size])
    assert [item.damaged for item in list_items(store)] == [k in (2, 4) for k in range(6)]


def test_a_store_where_no_index_can_be_written_is_read_from_its_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listing(store)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise sqlite3.OperationalError("locking protocol")

    monkeypatch.setattr(index_database.sqlite3, "connect", refuse)
    with pytest.warns(StoreWarning, match="read from its files") as caught:
        assert listing(store) == first
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_several_processes_share_one_index(store: Store) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from adbench.benchmark.store.index_database import read_entries\n"
        "print([len(read_entries(Path(sys.argv[1]))) for _ in range(5)])"
    )
    command = [sys.executable, "-c", code, str(store.root)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate()[0].strip() for worker in workers] == [str([6] * 5)] * 3
    with sqlite3.connect(store.root / FILE_NAME) as database:
        query = f"SELECT count(*) FROM artifacts_{index_database.VERSION}"
        assert database.execute(query).fetchone() == (6,)
    database.close()


def test_a_process_that_is_killed_while_it_writes_leaves_a_sound_index(store: Store) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from adbench.benchmark.store import index_database as index\n"
        "original = index._read\n"
        "index.COMMIT_EVERY, left = 2, [1] * 3\n"
        "def read(folder):\n"
        "    return original(folder) if left and left.pop() else os.kill(os.getpid(), 9)\n"
        "index._read = read\n"
        "index.read_entries(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert done.returncode == -9
    assert len(listing(store)) == 6 and not any(item.damaged for item in list_items(store))


def test_a_locked_index_is_read_and_not_waited_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listing(store)
    original: Any = sqlite3.connect

    def impatient(path: Path, **options: Any) -> sqlite3.Connection:
        return original(path, **options | {"timeout": 0})

    monkeypatch.setattr(index_database.sqlite3, "connect", impatient)
    holder = original(store.root / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    add(store, 7)
    assert len(listing(store)) == 7
    holder.execute("ROLLBACK")
    holder.close()
    assert len(listing(store)) == 7 > len(first)


def test_similar_artifacts_are_those_of_the_family_whatever_their_length(store: Store) -> None:
    index = StoreIndex(store)
    assert len(index.similar("checkpoint", inputs(99, steps=7))) == 6
    other = inputs(0) | {"numerics": "bfloat16"}
    assert index.similar("checkpoint", other) == []
    assert index.explain_miss("checkpoint", inputs(3, steps=7)) == ["args.steps: 5 -> 7"]


def test_what_is_similar_is_read_from_its_file_and_no_other_is_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {item.key: item.path for item in list_items(store)}
    damaged = min(paths)
    (metadata,) = paths[damaged].glob("*.json")
    metadata.write_text("{}")
    monkeypatch.setattr(index_database, "_is_current", lambda *_: pytest.fail("looked at a file"))
    similar = StoreIndex(store).similar("checkpoint", inputs(99))
    assert {artifact.key for artifact in similar} == paths.keys() - {damaged}
