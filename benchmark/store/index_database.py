"""What a store holds, remembered in a SQLite file, so that listing it reads no metadata again.

The files are the truth: every question looks at the folders, and an artifact is read anew unless
its two files have the size and the time of the last look. Without the database, or with a damaged
one, the answers are the same and take longer. Several processes may use it at once; where it cannot
be written (a read-only store, a network disk without locks), the files alone are read, and one line
says so.
"""

from __future__ import annotations

import gc
import os
import re
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .artifact import NON_ARTIFACT_KINDS, DamagedArtifact, read_artifact
from .cache_key import encode_json, hash_text
from .families import family
from .key_text import summarize_inputs
from .partial_state import StoreWarning

FILE_NAME = "index.sqlite"
VERSION = 1
"""Of the table, in its name."""

KIND = re.compile(r"[a-z][a-z-]{0,30}")
KEY = re.compile(r"[0-9a-f]{32}")

COMMIT_EVERY = 1000
"""Artifacts after which what was read is written: a process that is killed loses that many."""


class IndexEntry(NamedTuple):
    """An artifact as it was when it was last read.

    name: of the payload          size, changed: its bytes and time of last change, in ns
    metadata_size, metadata_changed: of the metadata file
    summary: of `summarize_inputs`, as JSON
    family: the hash of its `family`; empty of none
    seconds: how long its creation took; None if not recorded

    >>> entry = IndexEntry("maps", "ab", "maps.h5", 6, 0, 90, 10**9, '{"method": "PCA"}', "", None)
    >>> entry.bytes, entry.created, entry.facts
    (96, 1.0, {'method': 'PCA'})
    """

    kind: str
    key: str
    name: str
    size: int
    changed: int
    metadata_size: int
    metadata_changed: int
    summary: str
    family: str
    seconds: float | None

    @property
    def bytes(self) -> int:
        """Of both files."""
        return self.size + self.metadata_size

    @property
    def created(self) -> float:
        """When the metadata were written, in seconds since 1970."""
        return self.metadata_changed / 1e9

    @property
    def facts(self) -> dict[str, Any]:
        """The summary."""
        return msgspec.json.decode(self.summary)


class Folder(NamedTuple):
    """The folder of an artifact, and when it was last used, in seconds since 1970."""

    kind: str
    key: str
    path: str
    last_used: float


def scan_folders(root: Path, kind: str | None = None, *, times: bool = True) -> Iterator[Folder]:
    """The folders of all artifacts, in the order of kinds and keys; no links.

    kind: of this kind only        times: whether to ask when they were used; else that is 0

    >>> [*scan_folders(Path("/no/such/store"))]
    []
    """
    for name in sorted(_folders(root)) if kind is None else [kind]:
        if not KIND.fullmatch(name) or name in NON_ARTIFACT_KINDS:
            continue
        for two in sorted(_folders(root / name)):
            folders = list[Folder]()
            with suppress(OSError), os.scandir(root / name / two) as entries:
                for entry in entries:
                    key = entry.name
                    if key[:2] == two and KEY.fullmatch(key):
                        try:  # cheaper than `suppress`, of which there would be one an artifact
                            if entry.is_dir(follow_symlinks=False):
                                used = 0.0
                                if times:
                                    used = entry.stat(follow_symlinks=False).st_mtime
                                folders.append(Folder(name, key, entry.path, used))
                        except OSError:
                            pass
            yield from sorted(folders)


def _folders(path: Path) -> list[str]:
    with suppress(OSError), os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def read_entries(
    root: Path, kind: str | None = None, *, check: bool = True
) -> list[tuple[Folder, IndexEntry | None]]:
    """Every artifact of a store with its entry, which is None where it is damaged.

    What is new or changed is read, and remembered where that is possible.

    kind: of this kind only
    check: whether to look at every artifact's files, which takes longest. Without, an entry says
        what an artifact is, for its key inputs cannot change, but neither that it is sound nor when
        it was last used

    >>> read_entries(Path("/no/such/store"))
    []
    """
    with collector_paused():
        return _read_entries(root, kind, check=check)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's collector of cycles, for code that builds a long list and makes no cycle.

    It would look at all of the growing list again and again: of 100,000 artifacts, a fifth of the
    time.

    >>> import gc
    >>> with collector_paused():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_entries(
    root: Path, kind: str | None, *, check: bool
) -> list[tuple[Folder, IndexEntry | None]]:
    folders = [*scan_folders(root, kind, times=check)]
    if not folders:
        return []
    try:
        with closing(_open(root)) as database:
            return _refresh(database, folders, kind, check)
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        warnings.warn(
            f"{root / FILE_NAME} cannot be used ({error}); the store is read from its files",
            StoreWarning,
            stacklevel=2,
        )
    return [(folder, _read(folder)) for folder in folders]


def _open(root: Path) -> sqlite3.Connection:
    """The database, made anew where it is damaged. Raises sqlite3.Error or OSError."""
    try:
        return _connect(root)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # locked, or read-only
        for suffix in ("", "-wal", "-shm"):
            (root / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
        return _connect(root)


def _connect(root: Path) -> sqlite3.Connection:
    database = sqlite3.connect(root / FILE_NAME, timeout=5, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(IndexEntry._fields)
        database.execute(
            f"CREATE TABLE IF NOT EXISTS artifacts_{VERSION} ({columns}, PRIMARY KEY (kind, key))"
        )
        database.execute(f"SELECT * FROM artifacts_{VERSION} LIMIT 1").fetchall()
    except BaseException:
        database.close()
        raise
    return database


def _refresh(
    database: sqlite3.Connection, folders: list[Folder], kind: str | None, check: bool
) -> list[tuple[Folder, IndexEntry | None]]:
    table = f"artifacts_{VERSION}"
    query = f"SELECT * FROM {table}" + ("" if kind is None else " WHERE kind = ?")
    rows = database.execute(query, () if kind is None else (kind,))
    indexed = {(row[0], row[1]): IndexEntry._make(row) for row in rows}
    result, new = list[tuple[Folder, IndexEntry | None]](), list[IndexEntry]()
    for folder in folders:
        entry = indexed.pop((folder.kind, folder.key), None)
        if entry is None or (check and not _is_current(folder, entry)):
            entry = _read(folder)
            if entry is not None:
                new.append(entry)
        result.append((folder, entry))
        if len(new) >= COMMIT_EVERY:
            _write(database, new, ())
            new = []
    _write(database, new, indexed)
    return result


def _write(
    database: sqlite3.Connection, new: Iterable[IndexEntry], gone: Iterable[tuple[str, str]]
) -> None:
    """Remember entries and forget others; not where another process writes all the time."""
    table, marks = f"artifacts_{VERSION}", ", ".join("?" * len(IndexEntry._fields))
    new, gone = [*new], [*gone]
    if not new and not gone:
        return
    with suppress(sqlite3.OperationalError):
        database.execute("BEGIN IMMEDIATE")
        database.executemany(f"DELETE FROM {table} WHERE kind = ? AND key = ?", gone)
        database.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", new)
        database.execute("COMMIT")


def _is_current(folder: Folder, entry: IndexEntry) -> bool:
    """Whether both files are as they were when the entry was made."""
    try:
        payload = os.stat(f"{folder.path}/{entry.name}")
        metadata = os.stat(f"{folder.path}/{entry.name}.json")
    except (OSError, ValueError):
        return False
    return (payload.st_size, payload.st_mtime_ns, metadata.st_size, metadata.st_mtime_ns) == (
        entry.size,
        entry.changed,
        entry.metadata_size,
        entry.metadata_changed,
    )


def _read(folder: Folder) -> IndexEntry | None:
    """The entry of an artifact, from its metadata; None where it is damaged."""
    try:
        artifact = read_artifact(folder.kind, Path(folder.path), verify=False)
        payload, metadata = os.stat(artifact.path), os.stat(f"{artifact.path}.json")
    except (DamagedArtifact, OSError):
        return None
    name = family(folder.kind, artifact.key_inputs)
    return IndexEntry(
        folder.kind,
        folder.key,
        artifact.path.name,
        payload.st_size,
        payload.st_mtime_ns,
        metadata.st_size,
        metadata.st_mtime_ns,
        encode_json(summarize_inputs(folder.kind, artifact.key_inputs)),
        hash_text(name) if name else "",
        artifact.seconds,
    )
