"""adbench cache export and import: what is taken along arrives whole, or does not arrive."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adbench.benchmark.cli.cache import app
from adbench.benchmark.store.archive import export_archive, import_archive
from adbench.benchmark.store.artifact_store import Store, StoreError, cache_key
from stored import fill_store, maps_inputs, training_inputs

Members = list[tuple[tarfile.TarInfo, bytes]]


def never(path: Path) -> Mapping[str, Any]:
    raise AssertionError("made again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    fill_store(made, tmp_path / "out", training_inputs(), "brats.anoddpm.s0")
    fill_store(made, tmp_path / "out", training_inputs(seed=1), "brats.anoddpm.s1")
    return made


@pytest.fixture
def packed(tmp_path: Path, store: Store) -> Path:
    """All of the store in a file."""
    path = tmp_path / "all.tar"
    assert cache(store, "export", str(path)).exit_code == 0
    return path


def cache(store: Store, *argv: str) -> Result:
    return CliRunner().invoke(app, [*argv, "--store", str(store.root)])


def tree(store: Store) -> dict[str, bytes]:
    files = (p for p in store.root.rglob("*") if p.is_file() and "locks" not in p.parts)
    return {p.relative_to(store.root).as_posix(): p.read_bytes() for p in files}


def members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(m, f.read() if (f := tar.extractfile(m)) else b"") for m in tar]


def packing(path: Path, changed: Members, *, listed: bool = False) -> None:
    """Write members to a file; listed: with a manifest that fits them."""
    if listed:
        table = {
            m.name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for m, data in changed[1:]
        }
        text = json.dumps({"schema": 1, "files": table}).encode()
        changed = [(member("manifest.json", text)), *changed[1:]]
    with tarfile.open(path, "w") as tar:
        for info, data in changed:
            tar.addfile(info, io.BytesIO(data))


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info, data


def test_what_was_exported_is_a_hit_elsewhere(tmp_path: Path, store: Store, packed: Path) -> None:
    other = Store(tmp_path / "other")
    made = cache(other, "import", str(packed))
    assert made.exit_code == 0 and made.stdout == "8 artefacts taken, 0 were there, 0 problems\n"
    assert tree(other) == tree(store)
    for seed in (0, 1):
        assert not other.get_or_create(
            "checkpoint", training_inputs(seed=seed), never, name="x"
        ).created
        assert not other.get_or_create(
            "maps", maps_inputs(training_inputs(seed=seed)), never, name="x"
        ).created
    again = cache(other, "import", str(packed), "--json")
    told = json.loads(again.stdout)
    assert not told["new"] and len(told["known"]) == 8 and not told["problems"]
    export_archive(other, [("checkpoint", cache_key(training_inputs()))], tmp_path / "a.tar")
    export_archive(store, [("checkpoint", cache_key(training_inputs()))], tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_only_what_named_cells_stand_on(tmp_path: Path, store: Store) -> None:
    path, out = tmp_path / "one.tar", str(tmp_path / "out")
    assert cache(store, "export", str(path), "brats.anoddpm.s1", "--out", out).exit_code == 0
    other = Store(tmp_path / "other")
    assert len(import_archive(other, path).imported) == 4
    assert {a.key for a in other.artifacts("checkpoint")} == {cache_key(training_inputs(seed=1))}
    (tmp_path / "out/records/brats.anoddpm.s0.json").unlink()
    assert cache(store, "export", str(path), "--out", out).exit_code == 0
    assert len(import_archive(Store(tmp_path / "third"), path).imported) == 4
    wrong = cache(store, "export", str(path), "brats.anodppm", "--out", out)
    assert wrong.exit_code == 2 and "no record begins with 'brats.anodppm'" in wrong.output


def test_nothing_is_exported_while_something_is_missing_or_damaged(
    tmp_path: Path, store: Store
) -> None:
    damaged, gone = [*store.artifacts()][:2]
    damaged.path.write_bytes(b"x" * damaged.size)
    for path in gone.path.parent.iterdir():
        path.unlink()
    path = tmp_path / "all.tar"
    with pytest.raises(StoreError, match="nothing is exported") as caught:
        export_archive(store, [(a.kind, a.key) for a in (damaged, gone)], path)
    assert str(damaged.path) in str(caught.value) and gone.key in str(caught.value)
    assert not path.exists() and not [*tmp_path.glob(".*")]
    with pytest.raises(StoreError, match="nothing to export"):
        export_archive(store, [], path)


def flipped(held: Members) -> Members:
    info, data = held[3]
    return [*held[:3], (info, data[:100] + bytes([data[100] ^ 1]) + data[101:]), *held[4:]]


def shortened(held: Members) -> Members:
    return [*held[:3], member(held[3][0].name, held[3][1][:-1]), *held[4:]]


BAD: dict[str, tuple[Callable[[Members], Members], int, str]] = {
    "a flipped bit": (flipped, 7, "does not fit its checksum"),
    "a shortened file": (shortened, 7, "the manifest says"),
    "a missing file": (lambda held: [*held[:3], *held[4:]], 7, "is not all there"),
    "one file twice": (lambda held: [*held, held[1]], 8, "is there twice"),
    "a stranger": (lambda held: [*held, member("x", b"x")], 8, "'x' is not in the manifest"),
    "a second manifest": (lambda held: [*held, held[0]], 8, "is not in the manifest"),
    "a way out": (lambda held: [*held, member("../x", b"x")], 8, "is not in the manifest"),
    "an absolute path": (lambda held: [*held, member("/x", b"x")], 8, "is not in the manifest"),
}


@pytest.mark.parametrize("change", BAD)
def test_what_does_not_verify_is_not_taken_and_the_rest_is(
    tmp_path: Path, store: Store, packed: Path, change: str
) -> None:
    how, whole, said = BAD[change]
    packing(packed, how(members(packed)))
    other = Store(tmp_path / "deep" / "other")
    made = cache(other, "import", str(packed))
    assert made.exit_code == 5 and said in made.stdout, made.output
    assert len([*other.artifacts(verify=True)]) == len(other.folders()) == whole
    assert tree(other).items() <= tree(store).items(), "and nothing else is there"
    assert not (tmp_path / "deep/x").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(
    tmp_path: Path, store: Store, packed: Path, kind: bytes
) -> None:
    held = members(packed)
    held[1][0].type, held[1][0].size, held[1][0].linkname = kind, 0, "/etc/hostname"
    packing(packed, [held[0], (held[1][0], b""), *held[2:]])
    other = Store(tmp_path / "other")
    found = import_archive(other, packed)
    assert any("is a link or a device" in problem for problem in found.problems)
    assert len(found.imported) == 7 and not any(p.is_symlink() for p in other.root.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "../../x/y", "/maps/x/y", "maps/../y", f"maps/{'a' * 32}/../../../y", f"maps/{'a' * 32}/.y",
        f"locks/{'a' * 32}/y", f"corrupt/{'a' * 32}/y", f"resume/{'a' * 32}/y", "maps/short/y",
        f"maps/{'a' * 32}/y/z", f"maps/{'A' * 32}/y", f"maps/{'a' * 32}/y\n",
    ],
)  # fmt: skip
def test_a_manifest_that_names_what_is_no_artefact_is_refused(
    tmp_path: Path, packed: Path, name: str
) -> None:
    packing(packed, [*members(packed), member(name, b"x")], listed=True)
    other = Store(tmp_path / "deep" / "other")
    with pytest.raises(StoreError, match="belongs to no artefact"):
        import_archive(other, packed)
    assert not other.root.exists()


def test_right_checksums_of_wrong_content_are_not_enough(tmp_path: Path, packed: Path) -> None:
    """Whoever writes a manifest can fit it to anything; the seal and the key are looked at too."""
    held = members(packed)
    place = next(i for i, (m, _) in enumerate(held) if m.name.endswith("bin.json"))
    told = json.loads(held[place][1])
    told["identity"]["seed"] = 5
    held[place] = member(held[place][0].name, json.dumps(told).encode())
    packing(packed, held, listed=True)
    other = Store(tmp_path / "other")
    found = import_archive(other, packed)
    assert len(found.imported) == 7 and "is damaged" in found.problems[0]
    assert len(other.folders()) == 7


def test_a_file_that_breaks_off_gives_what_it_has(tmp_path: Path, packed: Path) -> None:
    data = packed.read_bytes()
    for share in (0.3, 0.6, 0.95):
        packed.write_bytes(data[: int(len(data) * share)])
        other = Store(tmp_path / f"other{share}")
        found = import_archive(other, packed)
        assert found.problems and len(found.imported) == len([*other.artifacts(verify=True)]) < 9
        assert len(other.folders()) == len(found.imported)


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_what_is_no_bundle_is_told_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    other = Store(tmp_path / "other")
    made = cache(other, "import", str(tmp_path / "x.tar"))
    assert made.exit_code in (2, 5) and "Traceback" not in made.output
    packing(tmp_path / "x.tar", [member("readme", b"hello")])
    made = cache(other, "import", str(tmp_path / "x.tar"))
    assert made.exit_code == 2 and "does not begin with a manifest.json" in made.output
    assert cache(other, "import", str(tmp_path / "none.tar")).exit_code == 2
    assert not other.root.exists()


def test_what_is_damaged_here_is_replaced_by_what_comes(tmp_path: Path, packed: Path) -> None:
    other = Store(tmp_path / "other")
    import_archive(other, packed)
    first = next(iter(other.artifacts()))
    first.path.write_bytes(b"x" * first.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = import_archive(other, packed)
    assert found.imported == [f"{first.kind}/{first.key}"] and len(found.present) == 7
    assert len([*other.artifacts(verify=True)]) == 8


class Full(io.BytesIO):
    """A file on a disk that is full."""

    def write(self, *_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    tmp_path: Path, store: Store, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, whole = Store(tmp_path / "other"), Path.open

    def full(path: Path, mode: str = "r", **how: Any) -> Any:
        return Full() if "w" in mode else whole(path, mode, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(StoreError, match="No space left on device"):
            import_archive(other, packed)
    assert tree(other) == {} and other.folders() == []
    with monkeypatch.context() as patch:
        patch.setattr("adbench.benchmark.store.archive.tarfile.open", Full().write)
        with pytest.raises(StoreError, match="No space left on device"):
            export_archive(store, [("checkpoint", cache_key(training_inputs()))], packed)
    assert len(members(packed)) == 17, "what was there before is there still"
    assert not [*packed.parent.glob(".*")]
    assert len(import_archive(other, packed).imported) == 8


def test_what_is_being_made_here_is_left_to_its_maker(tmp_path: Path, packed: Path) -> None:
    other = Store(tmp_path / "other")
    with other.lock("checkpoint", cache_key(training_inputs())):
        found = import_archive(other, packed)
    assert len(found.imported) == 7 and "is being made here" in found.problems[0]
