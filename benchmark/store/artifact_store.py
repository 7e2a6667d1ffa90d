"""The store of artifacts on disk, each found by the hash of everything it was made from.

An artifact is one payload file. It lies in <root>/<kind>/<2 of key>/<key>/ beside a JSON metadata
file with its key inputs, its checksum and how it was made. The folder gets its name when both files
are complete and on disk, so a run may be killed at any time. An artifact that does not verify is
moved to corrupt/ and created again. The modification time of the folder says when it was last used.

Locks are those of flock: of this machine, and over NFS of all hosts that mount it, if the server
keeps locks (not with `nolock` or `local_lock=flock`). Without them work may be done twice; nothing
is lost.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...datasets.io.fsync import fsync_path
from .artifact import (
    FOLDER,
    NON_ARTIFACT_KINDS,
    Artifact,
    DamagedArtifact,
    read_artifact,
    write_metadata,
)
from .atomic_files import (
    ANOTHER_STORE,
    StoreError,
    atomic_path,
    atomic_write,
    describe_write_errors,
)
from .cache_key import (
    MAX_DIFFERENCES,
    NO_SIMILAR_ARTIFACT,
    cache_key,
    canonical_json,
    explain_miss,
    flatten,
)
from .leases import hold_lease
from .marker import mark_store, register_result_folder
from .partial_state import PartialState, StoreWarning

__all__ = [
    "MAX_DIFFERENCES", "NO_SIMILAR_ARTIFACT", "Artifact", "PartialState", "Store", "StoreError",
    "StoreWarning", "atomic_path", "atomic_write", "cache_key", "canonical_json",
]  # fmt: skip

CreateFile = Callable[[Path], Mapping[str, Any]]
"""Writes an artifact's payload to the given path, and returns the metadata to store with it."""


MAX_REMOVALS = 3
"""Times that an artifact is created anew whose folder somebody removed meanwhile."""


class _StagingRemoved(Exception):
    """Somebody removed the folder in which an artifact was being created."""


class Store:
    """A folder of artifacts. Nothing is created on disk before the first artifact is written.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> Store(Path("/no/such/store")).find("maps", {"seed": 0}) is None
    True
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get_or_create(
        self,
        kind: str,
        key_inputs: Mapping[str, Any],
        create: CreateFile,
        *,
        name: str,
        on_wait: Callable[[str], None] | None = None,
    ) -> Artifact:
        """The artifact that was made from these key inputs; it is created if there is none.

        create: writes the payload to a path whose file name is `name`; if it raises, nothing stays
        on_wait: called once with a message if another process is creating the same artifact
        Raises StoreError if the store cannot be written, ValueError if `create` wrote no file.
        """
        hold_lease(self.root)
        if artifact := self.find(kind, key_inputs):
            return artifact
        with self.lock(kind, cache_key(key_inputs), on_wait):
            if artifact := self.find(kind, key_inputs, has_lock=True):
                return artifact
            return self._create(kind, key_inputs, create, name)

    def find(
        self, kind: str, key_inputs: Mapping[str, Any], *, has_lock: bool = False
    ) -> Artifact | None:
        """The verified artifact, marked as used now, or None.

        A damaged one is moved to corrupt/ with a warning, and counts as none.

        has_lock: whether the caller holds the artifact's lock
        """
        key = cache_key(key_inputs)
        folder = self.folder(kind, key)
        if has_lock:  # over NFS, what another host just created is seen once the folder is listed
            with suppress(OSError):
                os.listdir(folder.parent)
        if not folder.is_dir():
            return None
        try:
            artifact = read_artifact(kind, folder, verify=True)
        except DamagedArtifact as damage:
            reason = str(damage)
        else:
            return artifact if _mark_used(folder) else None
        if has_lock:
            self.move_to_corrupt(folder, f"{kind}-{key}", reason)
        else:
            with suppress(StoreError, TimeoutError), self.lock(kind, key, timeout=0):
                return self.find(kind, key_inputs, has_lock=True)
        return None

    def register_results(self, out: Path) -> None:
        """Remember that a run writes its records to a folder, so that what they use is kept."""
        with suppress(StoreError):  # of a read-only store nothing is ever removed
            mark_store(self.root, lambda: not self.folders())
            register_result_folder(self.root, out)

    def read_metadata(self, kind: str, key: str) -> Artifact | None:
        """The artifact of a key by its metadata and the size of its payload, which is not read.

        It is not marked as used; a damaged one is None and stays where it is.
        """
        with suppress(DamagedArtifact):
            return read_artifact(kind, self.folder(kind, key), verify=False)
        return None

    def folders(self, kind: str | None = None) -> list[Path]:
        """The folders of all artifacts, damaged ones too, in the order of their keys.

        kind: of this kind only
        """
        return [path for path in self._glob(f"{kind or '*'}/??/*") if path.name[0] != "."]

    def staging_folders(self) -> list[Path]:
        """The folders of artifacts that are being created, or were when a process was killed."""
        return self._glob(f"*/??/.{'?' * 32}.*")

    def _glob(self, pattern: str) -> list[Path]:
        """The folders of artifacts that match; nothing else in the root, and no links."""

        def is_artifact(path: Path) -> bool:
            name = path.relative_to(self.root).as_posix()
            match = FOLDER.fullmatch(re.sub(r"/\.(\w+)\.\w+$", r"/\1", name))
            if not match or match["kind"] in NON_ARTIFACT_KINDS:
                return False
            return path.is_dir() and not any(p.is_symlink() for p in (path, *path.parents[:2]))

        return [path for path in sorted(self.root.glob(pattern)) if is_artifact(path)]

    def artifacts(self, kind: str | None = None, *, verify: bool = False) -> Iterator[Artifact]:
        """All artifacts but damaged ones, in the order of their keys.

        kind: of this kind only
        verify: check the SHA-256 of the payloads too
        """
        for folder in self.folders(kind):
            with suppress(DamagedArtifact):
                yield read_artifact(folder.parents[1].name, folder, verify=verify)

    def explain_miss(self, kind: str, key_inputs: Mapping[str, Any]) -> list[str]:
        """Why `find` returns None: how the most similar stored key inputs differ from these.

        Lines such as "train.args.lr: 0.0001 -> 2e-05", stored and requested. No line on a hit.
        """
        stored = (flatten(dict(artifact.key_inputs)) for artifact in self.artifacts(kind))
        return explain_miss(key_inputs, stored)

    def partial_state(self, kind: str, key_inputs: Mapping[str, Any]) -> PartialState:
        """The checkpointed state of unfinished work on an artifact."""
        return PartialState(self.root / "resume" / f"{kind}-{cache_key(key_inputs)}")

    def folder(self, kind: str, key: str) -> Path:
        """The folder of an artifact, whether it exists or not."""
        return self.root / kind / key[:2] / key

    def lock_file(self, kind: str, key: str) -> Path:
        """The file that is locked while an artifact is created or removed."""
        return self.root / "locks" / f"{kind}-{key}.lock"

    @contextmanager
    def lock(
        self,
        kind: str,
        key: str,
        on_wait: Callable[[str], None] | None = None,
        *,
        timeout: float = -1,
    ) -> Iterator[None]:
        """Hold the lock of an artifact; the system releases it when the process ends.

        on_wait: called once with a message if another process holds the lock
        timeout: seconds to wait for it, without limit if negative
        Raises TimeoutError when they are over, StoreError if the lock file cannot be written.
        """
        from filelock import FileLock

        path = self.lock_file(kind, key)
        with describe_write_errors(path, elsewhere=ANOTHER_STORE):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                if on_wait is not None:
                    on_wait(f"another process is creating {kind} {key[:8]}; waiting for it")
                lock.acquire(timeout=timeout, poll_interval=0.2)
        try:
            yield
        finally:
            lock.release()

    def move_to_corrupt(self, folder: Path, name: str, reason: str) -> Path:
        """Move a damaged artifact to corrupt/ with a warning, and return its new folder.

        name: of the new folder, without a suffix that makes it unique
        reason: what is wrong with it, for the warning
        The caller holds the artifact's lock. Raises StoreError if it cannot be moved.
        """
        target = self.root / "corrupt" / f"{name}.{uuid4().hex[:8]}"
        with describe_write_errors(target, elsewhere=ANOTHER_STORE):
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.replace(target)
        _mark_used(target)
        warnings.warn(f"{reason}; moved to {target}", StoreWarning, stacklevel=4)
        return target

    @contextmanager
    def staging_folder(self, kind: str, key: str) -> Iterator[Path]:
        """A folder to create an artifact in, which becomes the artifact's folder at the end.

        If the block raises, nothing stays. What killed processes left is removed first. The caller
        holds the artifact's lock. Raises StoreError if the store cannot be written.
        """
        mark_store(self.root, lambda: not self.folders())
        folder = self.folder(kind, key)
        for leftover in folder.parent.glob(f".{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = folder.with_name(f".{key}.{uuid4().hex[:8]}")
        try:
            with describe_write_errors(folder, elsewhere=ANOTHER_STORE):
                staging.mkdir(parents=True)
            yield staging
            with describe_write_errors(folder, elsewhere=ANOTHER_STORE):
                fsync_path(staging)
                try:
                    staging.replace(folder)
                except OSError:
                    if not folder.is_dir():  # else a host without common locks was faster
                        raise
                fsync_path(folder.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _create(
        self, kind: str, key_inputs: Mapping[str, Any], create: CreateFile, name: str
    ) -> Artifact:
        for _ in range(MAX_REMOVALS):
            with suppress(_StagingRemoved):
                return self._create_once(kind, key_inputs, create, name)
        raise StoreError(
            f"{self.folder(kind, cache_key(key_inputs))} was removed {MAX_REMOVALS} times while it "
            "was written: something else removes files of this store"
        )

    def _create_once(
        self, kind: str, key_inputs: Mapping[str, Any], create: CreateFile, name: str
    ) -> Artifact:
        key = cache_key(key_inputs)
        folder = self.folder(kind, key)
        with self.staging_folder(kind, key) as staging:
            start = time.perf_counter()
            try:
                with describe_write_errors(folder, only_full_disk=True, elsewhere=ANOTHER_STORE):
                    metadata = create(staging / name)
            except Exception as error:
                if staging.is_dir():
                    raise
                raise _StagingRemoved from error
            if not staging.is_dir():
                raise _StagingRemoved
            seconds = time.perf_counter() - start
            if not (staging / name).is_file():
                raise ValueError(f"the function that creates {kind} {key[:8]} wrote no {name}")
            with describe_write_errors(folder, elsewhere=ANOTHER_STORE):
                fsync_path(staging / name)
                write_metadata(staging / name, key_inputs, metadata, seconds)
        try:
            return replace(read_artifact(kind, folder, verify=False), created=True)
        except DamagedArtifact as damage:
            raise StoreError(
                f"{damage}, immediately after it was written; the disk may be defective"
            ) from None


def _mark_used(folder: Path) -> bool:
    """Set the time of last use to now; false if the folder no longer exists."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # in a read-only store nothing is ever removed for being old
    return True
