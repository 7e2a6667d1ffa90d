"""Results on disk, found by what they are results of.

An artefact is one file. It lies in <root>/<kind>/<2 of key>/<key>/ beside a JSON file that holds
its identity, its checksum and how it came about; key is a hash of the identity. The folder gets
its name when both are whole and on disk, so a run may be killed at any time. What does not verify
is set aside and made anew. The time of the folder says when it was last used.

Locks are flock's: of this machine, and over NFS of all that mount it, where the server keeps locks
(not with `nolock` or `local_lock=flock`). Without them work may be done twice; nothing is lost.
"""

from __future__ import annotations

import os
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
from .artifact import Artifact, DamagedArtifact, read_artifact, write_metadata
from .atomic_files import StoreError, atomic_path, atomic_write, describe_write_errors
from .cache_key import (
    MAX_DIFFERENCES,
    NO_SIMILAR_ARTIFACT,
    cache_key,
    canonical_json,
    explain_miss,
    flatten,
)
from .leases import hold_lease
from .partial_state import PartialState, StoreWarning

__all__ = [
    "MAX_DIFFERENCES",
    "NO_SIMILAR_ARTIFACT",
    "Artifact",
    "PartialState",
    "Store",
    "StoreError",
    "StoreWarning",
    "atomic_path",
    "atomic_write",
    "cache_key",
    "canonical_json",
]  # fmt: skip

CreateFile = Callable[[Path], Mapping[str, Any]]
"""Writes an artefact's file to the path it is given, and returns what is worth telling of it."""


class Store:
    """A folder of artefacts. Nothing is created before something is written."""

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
        """What was made under this identity before, or what `create` makes now.

        make is given a path whose file name is `name`. If it raises, nothing stays. While another
        process makes the same, this one waits; `on_wait` is told so once.
        """
        hold_lease(self.root)
        if found := self.find(kind, key_inputs):
            return found
        with self.lock(kind, cache_key(key_inputs), on_wait):
            if found := self.find(kind, key_inputs, has_lock=True):
                return found
            return self._create(kind, key_inputs, create, name)

    def find(
        self, kind: str, key_inputs: Mapping[str, Any], *, has_lock: bool = False
    ) -> Artifact | None:
        """The artefact if it is there and whole. A damaged one is set aside, with a warning.

        has_lock: the caller holds its lock
        """
        key = cache_key(key_inputs)
        folder = self.folder(kind, key)
        if has_lock:  # over NFS, what another host has just made is seen once the folder is listed
            with suppress(OSError):
                os.listdir(folder.parent)
        if not folder.is_dir():
            return None
        try:
            found = read_artifact(kind, folder, verify=True)
        except DamagedArtifact as damage:
            reason = str(damage)
        else:
            return found if _mark_used(folder) else None
        if has_lock:
            self.move_to_corrupt(folder, f"{kind}-{key}", reason)
        else:
            with suppress(StoreError, TimeoutError), self.lock(kind, key, timeout=0):
                return self.find(kind, key_inputs, has_lock=True)
        return None

    def read_metadata(self, kind: str, key: str) -> Artifact | None:
        """The artefact as far as what stands beside it tells: its file is not read, only measured,
        and nothing is set aside. This is no use of it."""
        with suppress(DamagedArtifact):
            return read_artifact(kind, self.folder(kind, key), verify=False)
        return None

    def folders(self, kind: str | None = None) -> list[Path]:
        """Of every artefact of a kind or of all, in the order of their keys, damaged ones too."""
        found = sorted(self.root.glob(f"{kind or '*'}/??/*"))
        return [path for path in found if not path.name.startswith(".")]

    def artifacts(self, kind: str | None = None, *, verify: bool = False) -> Iterator[Artifact]:
        """Every artefact, of a kind or of all, in the order of their keys; damaged ones left out.

        verify: read the payloads too, not only what stands beside them
        """
        for folder in self.folders(kind):
            with suppress(DamagedArtifact):
                yield read_artifact(folder.parents[1].name, folder, verify=verify)

    def explain_miss(self, kind: str, key_inputs: Mapping[str, Any]) -> list[str]:
        """Why `find` finds nothing: how the nearest identity of this kind differs from this one.

        Lines such as "train.args.lr: 0.0001 -> 2e-05", stored to asked for. Empty when it is there.
        """
        return explain_miss(key_inputs, (flatten(dict(a.key_inputs)) for a in self.artifacts(kind)))

    def partial_state(self, kind: str, key_inputs: Mapping[str, Any]) -> PartialState:
        """Where the half-finished work on an artefact is kept."""
        return PartialState(self.root / "resume" / f"{kind}-{cache_key(key_inputs)}")

    def folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def lock_file(self, kind: str, key: str) -> Path:
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
        """Hold an artefact's lock; a process that dies lets go of it. TimeoutError after
        `timeout` seconds, never if negative."""
        from filelock import FileLock

        path = self.lock_file(kind, key)
        with describe_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                if on_wait is not None:
                    on_wait(f"another process is making {kind} {key[:8]}; waiting for it")
                lock.acquire(timeout=timeout, poll_interval=0.2)
        try:
            yield
        finally:
            lock.release()

    def move_to_corrupt(self, folder: Path, name: str, reason: str) -> Path:
        """Move what is damaged to corrupt/, with a warning; the caller holds its lock."""
        aside = self.root / "corrupt" / f"{name}.{uuid4().hex[:8]}"
        with describe_write_errors(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.replace(aside)
        _mark_used(aside)
        warnings.warn(f"{reason}; set aside as {aside}", StoreWarning, stacklevel=4)
        return aside

    @contextmanager
    def staging_folder(self, kind: str, key: str) -> Iterator[Path]:
        """A folder to make an artefact in, which holds its lock; at the end it gets its name, and
        if the block raises, nothing stays. What a killed process left of it is swept away."""
        folder = self.folder(kind, key)
        for left in folder.parent.glob(f".{key}.*"):
            shutil.rmtree(left, ignore_errors=True)
        part = folder.with_name(f".{key}.{uuid4().hex[:8]}")
        try:
            with describe_write_errors(folder):
                part.mkdir(parents=True)
            yield part
            with describe_write_errors(folder):
                fsync_path(part)
                try:
                    part.replace(folder)
                except OSError:
                    if not folder.is_dir():  # else another host without our locks was faster
                        raise
                fsync_path(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _create(
        self, kind: str, key_inputs: Mapping[str, Any], create: CreateFile, name: str
    ) -> Artifact:
        key = cache_key(key_inputs)
        folder = self.folder(kind, key)
        with self.staging_folder(kind, key) as part:
            start = time.perf_counter()
            with describe_write_errors(folder, only_full_disk=True):
                meta = create(part / name)
            took = time.perf_counter() - start
            if not (part / name).is_file():
                raise ValueError(f"the maker of {kind} {key[:8]} wrote no {name}")
            with describe_write_errors(folder):
                fsync_path(part / name)
                write_metadata(part / name, key_inputs, meta, took)
        try:
            return replace(read_artifact(kind, folder, verify=False), created=True)
        except DamagedArtifact as damage:
            raise StoreError(
                f"{damage}, just after it was written; the disk is not sound"
            ) from None


def _mark_used(folder: Path) -> bool:
    """Note that it was used just now; false if it is gone."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # of a store that others may only read, nobody removes what is old
    return True
