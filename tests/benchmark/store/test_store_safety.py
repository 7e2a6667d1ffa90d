"""What is no artifact stays as it is, and hostile files are one line each."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adbench.benchmark.cli.cache import app
from adbench.benchmark.store.archive import MAX_PROBLEMS, import_archive
from adbench.benchmark.store.artifact_store import Store, StoreError, cache_key
from adbench.benchmark.store.garbage_collection import RemovalCriteria, collect_garbage
from adbench.benchmark.store.integrity import verify_store
from adbench.benchmark.store.inventory import list_items
from adbench.benchmark.store.marker import MARKER, result_folders
from stored import fill_store, training_inputs

KEY = cache_key({"seed": 0})


def payload(path: Path) -> Mapping[str, Any]:
    path.write_bytes(b"x" * 100)
    return {}


def store_in(root: Path) -> Store:
    store = Store(root)
    store.get_or_create("checkpoint", {"seed": 0}, payload, name="x")
    return store


def cache(*argv: object) -> Result:
    return CliRunner().invoke(app, list(map(str, argv)))


FOREIGN = [
    "src/go/pkg/main.go", "photos/eu/rome/a.jpg", "project/v1/thesis.txt", "maps/ab/notes/x",
    f"maps/00/{KEY}/x", f"Maps/{KEY[:2]}/{KEY}/x", f"checkpoint/{KEY[:2]}/{KEY}.old/x",
    "maps/ab/.hidden/x", "corrupt/mine/x", "resume/mine/x.json", f"locks/{KEY[:2]}/{KEY}/x",
]  # fmt: skip


def test_what_is_no_artifact_is_neither_listed_nor_removed(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    for name in FOREIGN:
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    verify_store(store, repair=True)
    assert [item.key for item in list_items(store)] == [KEY]
    report = collect_garbage(store, RemovalCriteria(max_bytes=0), now=4e9)
    assert [removal.item.key for removal in report.removed] == [KEY]
    assert [name for name in FOREIGN if not (store.root / name).is_file()] == []


@pytest.mark.parametrize("at", ["kind", "two", "key"])
def test_links_in_a_store_are_not_followed(tmp_path: Path, at: str) -> None:
    store, other = store_in(tmp_path / "store"), store_in(tmp_path / "other")
    path = {
        "kind": store.root / "maps",
        "two": store.root / "maps" / KEY[:2],
        "key": store.root / "maps" / KEY[:2] / KEY,
    }[at]
    target = {"kind": "", "two": KEY[:2], "key": f"{KEY[:2]}/{KEY}"}[at]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(other.root / "checkpoint" / target)
    verify_store(store, repair=True)
    assert len(list_items(store)) == 1
    assert len(collect_garbage(store, RemovalCriteria(max_bytes=0)).removed) == 1
    assert len([*other.artifacts(verify=True)]) == 1 and path.is_symlink()


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    artifact = tmp_path / "maps" / KEY[:2] / KEY
    artifact.mkdir(parents=True)
    for argv in (["gc", "--max-size", "0"], ["gc", "--older", "1s"], ["verify", "--repair"]):
        result = cache(*argv, "--store", tmp_path)
        assert result.exit_code == 2 and MARKER in result.output, result.output
        assert "--store" in result.output and artifact.is_dir()
    assert cache("gc", "--max-size", "0", "--store", tmp_path / "none").exit_code == 0


def test_unused_knows_every_result_folder_that_used_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for seed, out in enumerate(("a", "b")):
        fill_store(store, tmp_path / out, training_inputs(seed=seed), f"brats.anoddpm.s{seed}")
        store.register_results(tmp_path / out)
    argv = ["gc", "--unused", "--store", store.root, "--json"]
    result = cache(*argv, "--out", tmp_path / "a")
    assert result.exit_code == 0 and json.loads(result.stdout)["removed"] == []
    (tmp_path / "b").rename(tmp_path / "moved")
    result = cache(*argv, "--out", tmp_path / "a")
    assert result.exit_code == 2 and str(tmp_path / "b") in result.output
    assert "--forget" in result.output and len(store.folders()) == 8
    result = cache(*argv, "--forget", tmp_path / "b")
    assert result.exit_code == 0 and len(json.loads(result.stdout)["removed"]) == 4
    result = cache(*argv, "--forget", tmp_path / "b")
    assert result.exit_code == 2 and "no run of this store" in result.output


def test_unused_refuses_where_a_record_cannot_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill_store(store, tmp_path / "a", training_inputs(), "brats.anoddpm.s0")
    store.register_results(tmp_path / "a")
    (tmp_path / "a/records/x.json").write_text("[" * 100_000)
    result = cache("gc", "--unused", "--store", store.root)
    assert result.exit_code == 2 and "x.json cannot be read" in result.output
    assert len(store.folders()) == 4


def test_a_store_of_an_older_version_does_not_know_its_result_folders(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    (store.root / MARKER).unlink()
    store.get_or_create("checkpoint", {"seed": 1}, payload, name="x")
    with pytest.raises(StoreError, match="name all of them with --out"):
        result_folders(store.root)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000, '{"a":' * 200_000, "null", "[]", '"x"', "1e999", '{"seal": []}', "\ud800",
        '{"seal": "x", "identity": {}, "bytes": Infinity, "sha256": 1, "meta": 0}',
        '{"seal": "x", "identity": {}, "bytes": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_any_metadata_is_at_worst_a_damaged_artifact(tmp_path: Path, text: str) -> None:
    store = store_in(tmp_path / "store")
    sidecar = next(store.root.glob("checkpoint/*/*/x.json"))
    sidecar.write_bytes(text.encode(errors="surrogatepass"))
    assert [item.damaged for item in list_items(store)] == [True]
    assert len(verify_store(store).problems) == 1
    assert collect_garbage(store, RemovalCriteria(max_idle_seconds=1e9)).removed == []
    assert cache("ls", "--store", store.root).exit_code == 0
    with pytest.warns(UserWarning, match="moved to"):
        assert store.find("checkpoint", {"seed": 0}) is None


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def deep(tar: tarfile.TarFile) -> None:
    for n in range(2):
        folder = f"maps/{f'a{n}' * 16}"
        add(tar, f"{folder}/x", b"x")
        add(tar, f"{folder}/x.json", b"[" * 200_000)


def infinite(tar: tarfile.TarFile) -> None:
    add(tar, f"maps/{'ab' * 16}/x", b"x")
    text = {"seal": "", "identity": {}, "bytes": float("inf"), "sha256": "", "meta": {}}
    add(tar, f"maps/{'ab' * 16}/x.json", json.dumps(text).encode())


def long_names(tar: tarfile.TarFile) -> None:
    """Many headers of long names after one another, which tarfile reads by recursion."""
    assert tar.fileobj is not None
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    for _ in range(3000):
        tar.fileobj.write(header.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0"))


def sparse(tar: tarfile.TarFile) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "300000000"}
    blocks = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    for name in ("x", "x.json"):
        add(tar, f"maps/{'ab' * 16}/{name}", blocks, pax_headers=headers)


def strangers(tar: tarfile.TarFile) -> None:
    for n in range(20_000):
        add(tar, f"maps/{'ab' * 16}/{n}")


def unknown_kind(tar: tarfile.TarFile) -> None:
    for name in ("x", "x.json"):
        add(tar, f"plugins/{'ab' * 16}/{name}", b"{}")


def extra(tar: tarfile.TarFile) -> None:
    for n in range(1000):
        add(tar, f"evil{n}/{n}.py", b"print()")


@pytest.mark.parametrize(
    ("write", "lines"),
    [
        (deep, 2), (infinite, 1), (long_names, 1), (sparse, 1), (strangers, 1), (unknown_kind, 1),
        (extra, MAX_PROBLEMS + 1),
    ],
)  # fmt: skip
def test_hostile_archives_are_a_line_each_and_little_memory(
    tmp_path: Path, write: Callable[[tarfile.TarFile], None], lines: int
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        write(tar)
    store = Store(tmp_path / "store")
    tracemalloc.start()
    report = import_archive(store, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.imported == [] and len(report.problems) == lines, report.problems[:3]
    assert all("\n" not in problem and len(problem) < 400 for problem in report.problems)
    assert store.folders() == [] and peak < 30e6, peak
    assert cache("import", path, "--store", store.root).exit_code == 5
