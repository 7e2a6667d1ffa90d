"""Export artifacts to one tar file and import them from one; only verified artifacts are imported.

The members are <kind>/<key>/<file>, the two files of each artifact after one another. There is no
list of contents: the metadata file of an artifact holds the size and the SHA-256 of its payload and
a checksum of itself, and its key is the hash of what it was made from. Checksums prove that an
artifact is whole, not who made it: import from sources that you trust.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ...datasets.io.fsync import fsync_path
from .artifact import (
    Artifact,
    DamagedArtifact,
    metadata_path,
    read_artifact,
)
from .artifact_store import Store
from .atomic_files import ANOTHER_STORE, StoreError, atomic_path, describe_write_errors

KINDS = {"stage", "checkpoint", "maps", "record", "weights"}
FOLDER = re.compile(r"(?P<kind>[a-z][a-z-]{0,30})/(?P<key>[0-9a-f]{32})")
FILE = re.compile(r"\w[\w.-]{0,99}")
MAX_METADATA_BYTES = 64 << 20
MAX_PROBLEMS = 100
UNREADABLE_TAR = (ValueError, RecursionError, OverflowError)
"""What tarfile raises on some damaged headers, beside its own errors."""


class _BoundedFile(io.FileIO):
    """A tar file of which no read is larger than a part of a payload or a header needs.

    tarfile reads the extra data of a header at once, however many bytes the header declares.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_METADATA_BYTES:
            raise tarfile.ReadError(f"a header declares {size} bytes")
        return super().read(size)


class ImportReport(NamedTuple):
    """What an import did, each artifact as kind/key.

    imported: artifacts that are new in the store
    present: artifacts that were in the store already
    problems: one line for everything that was refused

    >>> from adbench.benchmark.store.archive import ImportReport
    >>> len(ImportReport(["maps/0123"], [], []).imported)
    1
    """

    imported: list[str]
    present: list[str]
    problems: list[str]


def export_archive(store: Store, artifacts: Iterable[tuple[str, str]], path: Path) -> list[str]:
    """Write artifacts to a tar file and return their names, kind/key; each is verified first.

    The same artifacts give the same bytes, on any machine and at any time.

    artifacts: by (kind, key)
    Raises StoreError that names every missing or damaged artifact; nothing is written then.

    >>> import tempfile
    >>> def create(path):
    ...     path.write_bytes(b"scores")
    ...     return {}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder, "store"))
    ...     artifact = store.get_or_create("maps", {"seed": 0}, create, name="maps.h5")
    ...     names = export_archive(store, [("maps", artifact.key)], Path(folder, "maps.tar"))
    >>> names == [f"maps/{artifact.key}"]
    True
    """
    verified, problems = list[Artifact](), list[str]()
    for kind, key in sorted(set(artifacts)):
        try:
            verified.append(read_artifact(kind, store.folder(kind, key), verify=True))
        except DamagedArtifact as damage:
            problems.append(f"  {damage}")
    if problems:
        raise StoreError("\n".join(["nothing is exported (adbench cache verify):", *problems]))
    if not verified:
        raise StoreError("there is nothing to export (adbench cache ls)")
    with atomic_path(path) as part, describe_write_errors(path), tarfile.open(part, "w") as tar:
        for artifact in verified:
            for source in (artifact.path, metadata_path(artifact.path)):
                member = tarfile.TarInfo(f"{artifact.kind}/{artifact.key}/{source.name}")
                member.size, member.mode = source.stat().st_size, 0o644
                with source.open("rb") as file:
                    tar.addfile(member, file)
    return [f"{artifact.kind}/{artifact.key}" for artifact in verified]


def import_archive(store: Store, path: Path) -> ImportReport:
    """Copy the artifacts of a tar file into the store, each as a whole or not at all.

    Links, devices, paths that leave the store and files that belong to no artifact are refused.

    Raises StoreError if the file cannot be read, or the store cannot be written.

    >>> import tempfile
    >>> def create(path):
    ...     path.write_bytes(b"scores")
    ...     return {}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store, archive = Store(Path(folder, "store")), Path(folder, "maps.tar")
    ...     artifact = store.get_or_create("maps", {"seed": 0}, create, name="maps.h5")
    ...     _ = export_archive(store, [("maps", artifact.key)], archive)
    ...     reports = [import_archive(Store(Path(folder, "other")), archive) for _ in range(2)]
    >>> [(len(report.imported), len(report.present), report.problems) for report in reports]
    [(1, 0, []), (0, 1, [])]
    """
    report = ImportReport([], [], [])
    try:
        with _BoundedFile(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for folder, group in groupby(tar, lambda member: member.name.rpartition("/")[0]):
                members = [*islice(group, 3)]  # of many files in one folder no list is made
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] or all stay in memory
                if problem := _find_problem(folder, members, report):
                    _add_problem(report, problem)
                else:
                    _import_artifact(store, tar, folder, members, report)
            file.seek(tar.offset)  # tarfile stops without an error at a damaged header
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end after byte {tar.offset}")
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}") from None
    except (tarfile.TarError, EOFError, *UNREADABLE_TAR) as error:
        report.problems.append(f"{path.name} is cut off or is not a tar file: {error}")
    except OSError as error:
        raise StoreError(f"{path} cannot be imported: {error}") from error
    if not any(report):
        report.problems.append(f"{path.name} holds no artifact")
    return report


def _add_problem(report: ImportReport, problem: str) -> None:
    """Add a problem; of a file with very many, the rest is one line."""
    if len(report.problems) < MAX_PROBLEMS:
        report.problems.append(problem)
    elif len(report.problems) == MAX_PROBLEMS:
        report.problems.append("and more that belongs to no artifact")


def _find_problem(folder: str, members: list[tarfile.TarInfo], report: ImportReport) -> str:
    """Why the members in one folder are not the two files of an artifact; empty if they are."""
    match = FOLDER.fullmatch(folder)
    names = sorted((PurePosixPath(member.name).name for member in members), key=len)
    if not match or match["kind"] not in KINDS:
        return f"{', '.join(repr(m.name)[:100] for m in members)}: belongs to no artifact"
    if irregular := [m.name for m in members if not m.isreg() or m.issparse()]:
        return f"{irregular[0]!r} is a link or a device, not a file"
    if len(names) != 2 or names[1] != f"{names[0]}.json" or not FILE.fullmatch(names[0]):
        return f"{folder} needs one file and its metadata, and has {', '.join(map(repr, names))}"
    if any(m.size > MAX_METADATA_BYTES for m in members if m.name.endswith(f"/{names[1]}")):
        return f"{folder} has metadata of more than {MAX_METADATA_BYTES} bytes"
    if folder in (*report.imported, *report.present):
        return f"{folder} is in the file twice"
    return ""


def _import_artifact(
    store: Store,
    tar: tarfile.TarFile,
    name: str,
    members: list[tarfile.TarInfo],
    report: ImportReport,
) -> None:
    kind, _, key = name.partition("/")
    folder = store.folder(kind, key)
    try:
        with store.lock(kind, key, timeout=0):
            with suppress(DamagedArtifact):
                read_artifact(kind, folder, verify=True)
                report.present.append(name)
                return
            if folder.exists():
                store.move_to_corrupt(folder, f"{kind}-{key}", f"{folder} is damaged")
            with store.staging_folder(kind, key) as staging:
                for member in members:
                    _extract(tar, member, staging / PurePosixPath(member.name).name)
                try:
                    read_artifact(kind, staging, key=key, verify=True)
                except DamagedArtifact as damage:
                    raise DamagedArtifact(str(damage).replace(str(staging), name)) from None
    except TimeoutError:
        report.problems.append(f"another process is creating {name}; import it again later")
    except DamagedArtifact as damage:
        report.problems.append(str(damage))
    else:
        report.imported.append(name)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    with describe_write_errors(path, elsewhere=ANOTHER_STORE), path.open("wb") as file:
        shutil.copyfileobj(source, file)
    fsync_path(path)


def select_artifacts(
    experiments: Iterable[str], records: Mapping[str, Mapping[str, Any]]
) -> set[tuple[str, str]]:
    """Return the artifacts, by (kind, key), that experiments were computed from.

    experiments: names, or beginnings of names; all records if there are none
    records: what each experiment's record says, by its name
    Raises StoreError on a name of no experiment.

    >>> from adbench.benchmark.store.archive import select_artifacts
    >>> records = {"brats.thor.s0": {"keys": {"checkpoint": "ab", "maps/val": "cd"}}}
    >>> sorted(select_artifacts(["brats.thor"], records))
    [('checkpoint', 'ab'), ('maps', 'cd')]
    """
    names = set[str]()
    for name in experiments:
        matches = {record for record in records if record.startswith(name)}
        if not matches:
            raise StoreError(f"no record begins with {name!r} (--out says where records are)")
        names |= {name} & matches or matches
    return {
        (kind.partition("/")[0], key)
        for name in names or records
        for kind, key in (records[name].get("keys") or {}).items()
        if not kind.startswith("stage/")  # its weights are in the checkpoint too
    }
