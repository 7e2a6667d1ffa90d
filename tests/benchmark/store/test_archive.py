"""adbench cache export and import: an artifact arrives complete and verified, or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import hostile_archives
from adbench.benchmark.cli.cache import app
from adbench.benchmark.store.archive import export_archive, import_archive
from adbench.benchmark.store.artifact_store import Store, StoreError, cache_key
from stored import fill_store, maps_inputs, training_inputs
from stores import stored_files

Members = list[tuple[tarfile.TarInfo, bytes]]


def never(path: Path) -> Mapping[str, Any]:
    raise AssertionError("created again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    fill_store(store, tmp_path / "out", training_inputs(), "brats.anoddpm.s0")
    fill_store(store, tmp_path / "out", training_inputs(seed=1), "brats.anoddpm.s1")
    return store


@pytest.fixture
def archive(tmp_path: Path, store: Store) -> Path:
    """All of the store in a file."""
    path = tmp_path / "all.tar"
    assert cache(store, "export", str(path)).exit_code == 0
    return path


def cache(store: Store, *argv: str) -> Result:
    return CliRunner().invoke(app, [*argv, "--store", str(store.root)])


def tree(store: Store) -> dict[str, bytes]:
    return {name: (store.root / name).read_bytes() for name in stored_files(store.root)}


def read_members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(m, f.read() if (f := tar.extractfile(m)) else b"") for m in tar]


def write_members(path: Path, members: Members) -> None:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info, data


def test_what_was_exported_is_a_hit_elsewhere(tmp_path: Path, store: Store, archive: Path) -> None:
    other = Store(tmp_path / "other")
    result = cache(other, "import", str(archive))
    expected = "8 artifacts imported, 0 were there already, 0 problems\n"
    assert result.exit_code == 0 and result.stdout == expected
    assert tree(other) == tree(store)
    for seed in (0, 1):
        training = training_inputs(seed=seed)
        assert not other.get_or_create("checkpoint", training, never, name="x").created
        assert not other.get_or_create("maps", maps_inputs(training), never, name="x").created
    report = json.loads(cache(other, "import", str(archive), "--json").stdout)
    assert not report["imported"] and len(report["present"]) == 8 and not report["problems"]
    export_archive(other, [("checkpoint", cache_key(training_inputs()))], tmp_path / "a.tar")
    export_archive(store, [("checkpoint", cache_key(training_inputs()))], tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_only_the_artifacts_of_named_experiments(tmp_path: Path, store: Store) -> None:
    path, out = tmp_path / "one.tar", str(tmp_path / "out")
    assert cache(store, "export", str(path), "brats.anoddpm.s1", "--out", out).exit_code == 0
    other = Store(tmp_path / "other")
    assert len(import_archive(other, path).imported) == 4
    keys = {artifact.key for artifact in other.artifacts("checkpoint")}
    assert keys == {cache_key(training_inputs(seed=1))}
    (tmp_path / "out/records/brats.anoddpm.s0.json").unlink()
    assert cache(store, "export", str(path), "--out", out).exit_code == 0
    assert len(import_archive(Store(tmp_path / "third"), path).imported) == 4
    wrong = cache(store, "export", str(path), "brats.anodppm", "--out", out)
    assert wrong.exit_code == 2 and "no record begins with 'brats.anodppm'" in wrong.output


def test_nothing_is_exported_while_something_is_missing_or_damaged(
    tmp_path: Path, store: Store
) -> None:
    damaged, missing = [*store.artifacts()][:2]
    damaged.path.write_bytes(b"x" * damaged.size)
    for path in missing.path.parent.iterdir():
        path.unlink()
    path = tmp_path / "all.tar"
    with pytest.raises(StoreError, match="nothing is exported") as caught:
        export_archive(store, [(a.kind, a.key) for a in (damaged, missing)], path)
    assert str(damaged.path) in str(caught.value) and missing.key in str(caught.value)
    assert not path.exists() and not [*tmp_path.glob(".*")]
    with pytest.raises(StoreError, match="nothing to export"):
        export_archive(store, [], path)


def flipped(members: Members) -> Members:
    info, data = members[2]
    return [*members[:2], (info, data[:100] + bytes([data[100] ^ 1]) + data[101:]), *members[3:]]


def shortened(members: Members) -> Members:
    return [*members[:2], member(members[2][0].name, members[2][1][:-1]), *members[3:]]


def folder_of(members: Members) -> str:
    return members[0][0].name.rpartition("/")[0]


def joined_by(name: str) -> Callable[[Members], Members]:
    """A third file beside the two of the first artifact."""
    return lambda members: [
        *members[:2], member(f"{folder_of(members)}/{name}", b"x"), *members[2:]
    ]  # fmt: skip


BAD: dict[str, tuple[Callable[[Members], Members], int, str]] = {
    "a flipped bit": (flipped, 7, "is damaged"),
    "a shortened file": (shortened, 7, "has 999 bytes instead of 1000"),
    "a missing payload": (lambda m: [*m[:2], *m[3:]], 7, "needs one file and its metadata"),
    "missing metadata": (lambda m: [*m[:3], *m[4:]], 7, "needs one file and its metadata"),
    "one artifact twice": (lambda m: [*m, *m[:2]], 8, "is in the file twice"),
    "one file twice": (lambda m: [*m, m[1]], 8, "needs one file and its metadata"),
    "one file twice at once": (lambda m: [m[0], *m], 7, "needs one file and its metadata"),
    "a third file": (joined_by("other"), 7, "needs one file and its metadata"),
    "a hidden file": (joined_by(".hidden"), 7, "needs one file and its metadata"),
    "a stranger": (lambda m: [*m, member("x", b"x")], 8, "'x': belongs to no artifact"),
    "a manifest": (lambda m: [member("manifest.json", b"{}"), *m], 8, "belongs to no artifact"),
    "a way out": (lambda m: [*m, member("../x", b"x")], 8, "belongs to no artifact"),
    "an absolute path": (lambda m: [*m, member("/x", b"x")], 8, "belongs to no artifact"),
}


@pytest.mark.parametrize("change", BAD)
def test_what_does_not_verify_is_refused_and_the_rest_is_imported(
    tmp_path: Path, store: Store, archive: Path, change: str
) -> None:
    apply, complete, message = BAD[change]
    write_members(archive, apply(read_members(archive)))
    other = Store(tmp_path / "deep" / "other")
    result = cache(other, "import", str(archive))
    assert result.exit_code == 5 and message in result.stdout, result.output
    assert len([line for line in result.stdout.splitlines() if line.startswith("bad: ")]) == 1
    assert len([*other.artifacts(verify=True)]) == len(other.folders()) == complete
    assert tree(other).items() <= tree(store).items(), "and nothing else is there"
    assert not (tmp_path / "deep/x").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders_are_refused(
    tmp_path: Path, store: Store, archive: Path, kind: bytes
) -> None:
    members = read_members(archive)
    members[1][0].type, members[1][0].size, members[1][0].linkname = kind, 0, "/etc/hostname"
    write_members(archive, [members[0], (members[1][0], b""), *members[2:]])
    other = Store(tmp_path / "other")
    report = import_archive(other, archive)
    assert ["is a link or a device" in problem for problem in report.problems] == [True]
    assert len(report.imported) == 7 and not any(p.is_symlink() for p in other.root.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "../../x/y", "/maps/x/y", "maps/../y", f"maps/{'a' * 32}/../../../y", "maps/short/y",
        f"locks/{'a' * 32}/y", f"corrupt/{'a' * 32}/y", f"resume/{'a' * 32}/y",
        f"half-made/{'a' * 32}/y", f"maps/{'a' * 32}/y/z", f"maps/{'A' * 32}/y",
        f"maps/{'a' * 32}/.y", f"maps/{'a' * 32}/y\n", f"maps/{'a' * 32}/y",
        f"../maps/{'a' * 32}/y", f"/maps/{'a' * 32}/y",
    ],
)  # fmt: skip
def test_files_with_names_of_no_artifact_are_refused(
    tmp_path: Path, store: Store, archive: Path, name: str
) -> None:
    members = [member(name, b"x"), member(f"{name}.json", b"{}")]
    write_members(archive, [*read_members(archive), *members])
    other = Store(tmp_path / "deep" / "other")
    report = import_archive(other, archive)
    assert len(report.imported) == 8 and len(report.problems) == 1
    assert "\n" not in report.problems[0]
    assert tree(other) == tree(store)
    outside = [p for p in (tmp_path / "deep").rglob("*") if other.root not in (p, *p.parents)]
    assert outside == []


def test_correct_checksums_of_other_inputs_are_not_enough(tmp_path: Path, archive: Path) -> None:
    """Whoever changes the metadata can recompute its checksum; the key is compared too."""
    from adbench.benchmark.store.artifact import write_metadata

    members = read_members(archive)
    (tmp_path / "x").write_bytes(members[0][1])
    write_metadata(tmp_path / "x", {"other": "inputs"}, {}, 1.0)
    changed = member(members[1][0].name, (tmp_path / "x.json").read_bytes())
    write_members(archive, [members[0], changed, *members[2:]])
    other = Store(tmp_path / "other")
    report = import_archive(other, archive)
    assert len(report.imported) == 7 == len(other.folders())
    assert report.problems == [f"{folder_of(members)} holds another artifact than its name says"]


def test_changed_metadata_is_refused(tmp_path: Path, archive: Path) -> None:
    members = read_members(archive)
    fields = json.loads(members[1][1])
    fields["identity"]["seed"] = 5
    changed = member(members[1][0].name, json.dumps(fields).encode())
    write_members(archive, [members[0], changed, *members[2:]])
    other = Store(tmp_path / "other")
    report = import_archive(other, archive)
    assert len(report.imported) == 7 == len(other.folders())
    assert report.problems == [f"{members[1][0].name} is damaged"]


def test_an_archive_that_is_cut_off_gives_what_it_has(tmp_path: Path, archive: Path) -> None:
    data, ends = archive.read_bytes(), [512 * n for n in (1, 3, 5, 6, 8)]
    for length in (*(int(len(data) * share) for share in (0.3, 0.6, 0.95)), *ends):
        archive.write_bytes(data[:length])
        other = Store(tmp_path / f"other{length}")
        report = import_archive(other, archive)
        complete = [*other.artifacts(verify=True)]
        assert len(report.imported) == len(complete) == len(other.folders()) < 9
        if length < end_of_members(data):
            assert report.problems and "cut off" in report.problems[-1]


def end_of_members(data: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.getmembers()
        return tar.offset


def test_a_damaged_header_is_a_problem(tmp_path: Path, archive: Path) -> None:
    """tarfile ends there without an error."""
    with tarfile.open(archive) as tar:
        offset = tar.getmembers()[4].offset
    data = bytearray(archive.read_bytes())
    data[offset] ^= 1
    archive.write_bytes(data)
    report = import_archive(Store(tmp_path / "other"), archive)
    assert len(report.imported) == 2 and len(report.problems) == 1


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_other_files_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    other = Store(tmp_path / "other")
    result = cache(other, "import", str(tmp_path / "x.tar"))
    assert result.exit_code in (2, 5) and "Traceback" not in result.output
    write_members(tmp_path / "x.tar", [member("readme", b"hello")])
    result = cache(other, "import", str(tmp_path / "x.tar"))
    assert result.exit_code == 5 and "'readme': belongs to no artifact" in result.output
    assert cache(other, "import", str(tmp_path / "none.tar")).exit_code == 2
    assert not other.root.exists()


def test_a_damaged_artifact_is_replaced_by_the_imported_one(tmp_path: Path, archive: Path) -> None:
    other = Store(tmp_path / "other")
    import_archive(other, archive)
    first = next(iter(other.artifacts()))
    first.path.write_bytes(b"x" * first.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = import_archive(other, archive)
    assert report.imported == [f"{first.kind}/{first.key}"] and len(report.present) == 7
    assert len([*other.artifacts(verify=True)]) == 8


def test_an_artifact_that_is_being_created_is_left_alone(tmp_path: Path, archive: Path) -> None:
    other = Store(tmp_path / "other")
    with other.lock("checkpoint", cache_key(training_inputs())):
        report = import_archive(other, archive)
    assert len(report.imported) == 7
    assert report.problems[0].startswith("another process is creating checkpoint/")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_kill_during_the_import_leaves_nothing_half(
    tmp_path: Path, store: Store, archive: Path, written: int
) -> None:
    """Killed in the second artifact: before its first file, after one, and before its name."""
    script = f"""
import sys, time
from pathlib import Path
from adbench.benchmark.store import archive, artifact_store
root = Path(sys.argv[1])
calls = []
def hang(*args):
    (root / "hangs").touch()
    time.sleep(600)
def extract(*args, original=archive._extract):
    calls.append(args)
    if len(calls) == 2 + {written} + 1:
        hang()
    original(*args)
def replace(path, target, original=Path.replace):
    if len(calls) == 4:
        hang()
    return original(path, target)
archive._extract = extract
Path.replace = replace
archive.import_archive(artifact_store.Store(root / "other"), Path(sys.argv[2]))
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(archive)])
    while not (tmp_path / "hangs").exists():
        assert process.poll() is None, "ended before it got there"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    other = Store(tmp_path / "other")
    assert len([*other.artifacts(verify=True)]) == len(other.folders()) == 1
    report = import_archive(other, archive)
    assert (len(report.imported), len(report.present), report.problems) == (7, 1, [])
    assert tree(other) == tree(store), "and what was left is removed"


def test_hostile_archives_are_refused_and_leave_nothing_behind(
    tmp_path: Path, archive: Path
) -> None:
    """All but the largest of them (hostile_archives.py tries all)."""
    slow = ("ten thousand", "large metadata", "bomb", "three thousand")
    cases = {
        name: data
        for name, data in hostile_archives.archives(archive.read_bytes()).items()
        if not any(word in name for word in slow)
    }
    source = Store(tmp_path / "source")
    import_archive(source, archive)
    assert hostile_archives.wrong_imports(tmp_path / "cases", source, cases) == []
    assert len(cases) > 70


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, *_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_reported_and_leaves_nothing(
    tmp_path: Path, store: Store, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, original = Store(tmp_path / "other"), Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        return Full() if "w" in mode else original(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(StoreError, match="No space left on device"):
            import_archive(other, archive)
    assert tree(other) == {} and other.folders() == []
    with monkeypatch.context() as patch:
        patch.setattr("adbench.benchmark.store.archive.tarfile.open", Full().write)
        with pytest.raises(StoreError, match="No space left on device"):
            export_archive(store, [("checkpoint", cache_key(training_inputs()))], archive)
    assert len(read_members(archive)) == 16, "the earlier file is still there"
    assert not [*archive.parent.glob(".*")]
    assert len(import_archive(other, archive).imported) == 8
