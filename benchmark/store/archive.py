"""Artefacts in one file, to take to another machine; nothing is taken in that does not verify.

A .tar whose first member, manifest.json, tells size and sha256 of every other; these are
<kind>/<key>/<file>, the two files of each artefact after one another. Checksums say that all is
whole and what it says it is a result of, not who made it: import from those you trust.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...datasets.io.fsync import fsync_path
from .artifact import Artifact, DamagedArtifact, read_artifact
from .artifact_store import Store
from .atomic_files import StoreError, atomic_path, describe_write_errors, file_sha256
from .cache_key import canonical_json
from .inventory import NON_ARTIFACT_KINDS

MANIFEST, MOST, BLOCK = "manifest.json", 256 << 20, 1 << 20
"""The manifest's name, its largest size, and how much is copied at a time."""

NAME = re.compile(r"(?P<kind>[a-z][a-z-]{0,30})/(?P<key>[0-9a-f]{32})/(?P<file>\w[\w.-]{0,99})")


class ImportReport(NamedTuple):
    """What an import did. new, present: artefacts taken, and those that were there already
    problems: what was not taken and why, one line each"""

    imported: list[str]
    present: list[str]
    problems: list[str]


def export_archive(store: Store, artifacts: Iterable[tuple[str, str]], path: Path) -> list[str]:
    """Write the artefacts, by (kind, key), to a file; their names. Each is verified first.

    Raises StoreError that names every one that is missing or damaged; nothing is written then.
    """
    found, problems = list[Artifact](), list[str]()
    for kind, key in sorted(set(artifacts)):
        try:
            found.append(read_artifact(kind, store.folder(kind, key), verify=True))
        except DamagedArtifact as damage:
            problems.append(str(damage))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise StoreError(f"nothing is exported (adbench cache verify):\n{lines}")
    if not found:
        raise StoreError("there is nothing to export (adbench cache ls)")
    files = [(f"{a.kind}/{a.key}/{p.name}", p) for a in found for p in _artifact_files(a)]
    table = {name: {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for name, p in files}
    manifest = canonical_json({"schema": 1, "files": table}).encode()
    with atomic_path(path) as part, describe_write_errors(path), tarfile.open(part, "w") as tar:
        tar.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
        for name, place in files:
            with place.open("rb") as file:
                tar.addfile(_member(name, place.stat().st_size), file)
    return [f"{a.kind}/{a.key}" for a in found]


def import_archive(store: Store, path: Path) -> ImportReport:
    """Take in what a file of `export` holds: each artefact whole, or not at all.

    Raises StoreError if the file is none, or the store cannot be written.
    """
    taken = ImportReport([], [], [])
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            _import_members(store, tar, taken)
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}") from None
    except (tarfile.TarError, EOFError) as error:
        taken.problems.append(f"{path.name} breaks off or is no tar: {error}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be imported: {error}") from error
    return taken


class Listed(NamedTuple):
    """A file as the manifest has it."""

    kind: str
    key: str
    file: str
    bytes: int
    sha256: str


def _import_members(store: Store, tar: tarfile.TarFile, taken: ImportReport) -> None:
    wanted = _manifest(tar)
    whole = {(f.kind, f.key): 0 for f in wanted.values()}
    for file in wanted.values():
        whole[file.kind, file.key] += 1
    seen = set[str]()
    group, members = ("", ""), list[tuple[tarfile.TarInfo, Listed]]()
    for member in islice(tar, 1, None):
        listed = wanted.get(member.name)
        if problem := _unfit(member, listed, seen):
            taken.problems.append(problem)
        if listed is None or problem:
            continue
        seen.add(member.name)
        if group != (listed.kind, listed.key):
            group, members = (listed.kind, listed.key), []
        members.append((member, listed))
        if len(members) == whole[group]:
            _import_artifact(store, tar, members, taken)
    settled = {name for names in taken[:2] for name in names}
    for kind, key in whole:
        name = f"{kind}/{key}"
        if name not in settled and not any(name in problem for problem in taken.problems):
            taken.problems.append(f"{name} is not all there")


def _manifest(tar: tarfile.TarFile) -> dict[str, Listed]:
    """The files to come. Raises ValueError if the first member is no manifest, or a bad one."""
    first = tar.next()
    file = tar.extractfile(first) if first and first.isreg() else None
    if first is None or file is None or first.name != MANIFEST or first.size > MOST:
        raise ValueError(f"it does not begin with a {MANIFEST}; adbench cache export writes one")
    told = json.loads(file.read())
    if told["schema"] != 1:
        raise ValueError(f"its schema is {told['schema']!r}, this adbench knows 1")
    wanted = {}
    for name, facts in told["files"].items():
        found = NAME.fullmatch(name)
        if not found or found["kind"] in NON_ARTIFACT_KINDS | {"locks"}:
            raise ValueError(f"its manifest names {name!r}, which belongs to no artefact")
        wanted[name] = Listed(
            found["kind"], found["key"], found["file"], int(facts["bytes"]), str(facts["sha256"])
        )
    return wanted


def _unfit(member: tarfile.TarInfo, listed: Listed | None, seen: set[str]) -> str:
    """Why a member is not taken; empty if it is."""
    if listed is None:
        return f"{member.name!r} is not in the manifest"
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return f"{member.name} is a link or a device, not a file"
    if member.name in seen:
        return f"{member.name} is there twice"
    if member.size != listed.bytes:
        return f"{member.name} has {member.size} bytes, the manifest says {listed.bytes}"
    return ""


def _import_artifact(
    store: Store,
    tar: tarfile.TarFile,
    members: list[tuple[tarfile.TarInfo, Listed]],
    taken: ImportReport,
) -> None:
    kind, key = members[0][1].kind, members[0][1].key
    name, folder = f"{kind}/{key}", store.folder(kind, key)
    with ExitStack() as stack:
        try:
            stack.enter_context(store.lock(kind, key, timeout=0))
        except TimeoutError:
            taken.problems.append(f"{name} is being made here at this moment; import it again")
            return
        with suppress(DamagedArtifact):
            read_artifact(kind, folder, verify=True)
            taken.present.append(name)
            return
        if folder.exists():
            store.move_to_corrupt(folder, f"{kind}-{key}", f"{folder} is damaged")
        try:
            with store.staging_folder(kind, key) as part:
                whole = part / key
                whole.mkdir()
                for member, listed in members:
                    _copy(tar, member, listed, whole / listed.file)
                read_artifact(kind, whole, verify=True)
                for path in [*whole.iterdir()]:
                    path.replace(part / path.name)
                whole.rmdir()
        except (DamagedArtifact, _Bad) as error:
            taken.problems.append(f"{name}: {str(error).replace(str(store.root), '').strip()}")
            return
    taken.imported.append(name)


class _Bad(Exception):
    """A member is not what the manifest says."""


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, listed: Listed, path: Path) -> None:
    source = tar.extractfile(member)
    digest = hashlib.sha256()
    with describe_write_errors(path), path.open("wb") as file:
        for block in _blocks(source):
            digest.update(block)
            file.write(block)
    fsync_path(path)
    if digest.hexdigest() != listed.sha256:
        raise _Bad(f"{listed.file} does not fit its checksum")


def _blocks(source: IO[bytes] | None) -> Iterator[bytes]:
    while source is not None and (block := source.read(BLOCK)):
        yield block


def _artifact_files(artefact: Artifact) -> tuple[Path, Path]:
    return artefact.path, artefact.path.with_name(f"{artefact.path.name}.json")


def _member(name: str, length: int) -> tarfile.TarInfo:
    """The same bytes whoever exports, and when."""
    made = tarfile.TarInfo(name)
    made.size, made.mode = length, 0o644
    return made


def select_artifacts(
    experiments: Iterable[str], records: dict[str, dict[str, Any]]
) -> set[tuple[str, str]]:
    """The artefacts that cells stand on, by their names or what they begin with; all if none is
    named. Raises StoreError on a name of no cell, and where a record's artefacts are gone."""
    named = list(experiments)
    keep = set[str]()
    for cell in named:
        found = {name for name in records if name.startswith(cell)}
        if not found:
            raise StoreError(f"no record begins with {cell!r} (--out says where records are)")
        keep |= {cell} & found or found
    made = set[tuple[str, str]]()
    for name in keep if named else records:
        for kind, key in (records[name].get("keys") or {}).items():
            if not kind.startswith("stage/"):  # in the checkpoint; it may have been removed since
                made.add((kind.partition("/")[0], key))
    return made
