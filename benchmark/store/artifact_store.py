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

from ...datasets.io.fsync import sync
from .artifact import Artefact, Damaged, read, seal
from .atomic_files import StoreError, atomic_path, atomic_write, said
from .cache_key import MOST, NOTHING_LIKE, canonical_json, explained, key_of, leaves
from .leases import attend
from .partial_state import Resume, StoreWarning

__all__ = [
    "MOST", "NOTHING_LIKE", "Artefact", "Resume", "Store", "StoreError", "StoreWarning",
    "atomic_path", "atomic_write", "canonical_json", "key_of",
]  # fmt: skip

Make = Callable[[Path], Mapping[str, Any]]
"""Writes an artefact's file to the path it is given, and returns what is worth telling of it."""


class Store:
    """A folder of artefacts. Nothing is created before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def once(
        self,
        kind: str,
        identity: Mapping[str, Any],
        make: Make,
        *,
        name: str,
        waiting: Callable[[str], None] | None = None,
    ) -> Artefact:
        """What was made under this identity before, or what `make` makes now.

        make is given a path whose file name is `name`. If it raises, nothing stays. While another
        process makes the same, this one waits; `waiting` is told so once.
        """
        attend(self.root)
        if found := self.find(kind, identity):
            return found
        with self.locked(kind, key_of(identity), waiting):
            if found := self.find(kind, identity, owned=True):
                return found
            return self._make(kind, identity, make, name)

    def find(
        self, kind: str, identity: Mapping[str, Any], *, owned: bool = False
    ) -> Artefact | None:
        """The artefact if it is there and whole. A damaged one is set aside, with a warning.

        owned: the caller holds its lock
        """
        key = key_of(identity)
        folder = self.folder(kind, key)
        if owned:  # over NFS, what another host has just made is seen once the folder is listed
            with suppress(OSError):
                os.listdir(folder.parent)
        if not folder.is_dir():
            return None
        try:
            found = read(kind, folder, verify=True)
        except Damaged as damage:
            reason = str(damage)
        else:
            return found if _used(folder) else None
        if owned:
            self.set_aside(folder, f"{kind}-{key}", reason)
        else:
            with suppress(StoreError, TimeoutError), self.locked(kind, key, patience=0):
                return self.find(kind, identity, owned=True)
        return None

    def peek(self, kind: str, key: str) -> Artefact | None:
        """The artefact as far as what stands beside it tells: its file is not read, only measured,
        and nothing is set aside. This is no use of it."""
        with suppress(Damaged):
            return read(kind, self.folder(kind, key), verify=False)
        return None

    def folders(self, kind: str | None = None) -> list[Path]:
        """Of every artefact of a kind or of all, in the order of their keys, damaged ones too."""
        found = sorted(self.root.glob(f"{kind or '*'}/??/*"))
        return [path for path in found if not path.name.startswith(".")]

    def each(self, kind: str | None = None, *, verify: bool = False) -> Iterator[Artefact]:
        """Every artefact, of a kind or of all, in the order of their keys; damaged ones left out.

        verify: read the payloads too, not only what stands beside them
        """
        for folder in self.folders(kind):
            with suppress(Damaged):
                yield read(folder.parents[1].name, folder, verify=verify)

    def explain(self, kind: str, identity: Mapping[str, Any]) -> list[str]:
        """Why `find` finds nothing: how the nearest identity of this kind differs from this one.

        Lines such as "train.args.lr: 0.0001 -> 2e-05", stored to asked for. Empty when it is there.
        """
        return explained(identity, (leaves(dict(a.identity)) for a in self.each(kind)))

    def resume(self, kind: str, identity: Mapping[str, Any]) -> Resume:
        """Where the half-finished work on an artefact is kept."""
        return Resume(self.root / "resume" / f"{kind}-{key_of(identity)}")

    def folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def lock_file(self, kind: str, key: str) -> Path:
        return self.root / "locks" / f"{kind}-{key}.lock"

    @contextmanager
    def locked(
        self,
        kind: str,
        key: str,
        waiting: Callable[[str], None] | None = None,
        *,
        patience: float = -1,
    ) -> Iterator[None]:
        """Hold an artefact's lock; a process that dies lets go of it. TimeoutError after
        `patience` seconds, never if negative."""
        from filelock import FileLock

        path = self.lock_file(kind, key)
        with said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                if waiting is not None:
                    waiting(f"another process is making {kind} {key[:8]}; waiting for it")
                lock.acquire(timeout=patience, poll_interval=0.2)
        try:
            yield
        finally:
            lock.release()

    def set_aside(self, folder: Path, name: str, reason: str) -> Path:
        """Move what is damaged to corrupt/, with a warning; the caller holds its lock."""
        aside = self.root / "corrupt" / f"{name}.{uuid4().hex[:8]}"
        with said(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.replace(aside)
        _used(aside)
        warnings.warn(f"{reason}; set aside as {aside}", StoreWarning, stacklevel=4)
        return aside

    @contextmanager
    def part(self, kind: str, key: str) -> Iterator[Path]:
        """A folder to make an artefact in, which holds its lock; at the end it gets its name, and
        if the block raises, nothing stays. What a killed process left of it is swept away."""
        folder = self.folder(kind, key)
        for left in folder.parent.glob(f".{key}.*"):
            shutil.rmtree(left, ignore_errors=True)
        part = folder.with_name(f".{key}.{uuid4().hex[:8]}")
        try:
            with said(folder):
                part.mkdir(parents=True)
            yield part
            with said(folder):
                sync(part)
                try:
                    part.replace(folder)
                except OSError:
                    if not folder.is_dir():  # else another host without our locks was faster
                        raise
                sync(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _make(self, kind: str, identity: Mapping[str, Any], make: Make, name: str) -> Artefact:
        key = key_of(identity)
        folder = self.folder(kind, key)
        with self.part(kind, key) as part:
            start = time.perf_counter()
            with said(folder, only_full=True):
                meta = make(part / name)
            took = time.perf_counter() - start
            if not (part / name).is_file():
                raise ValueError(f"the maker of {kind} {key[:8]} wrote no {name}")
            with said(folder):
                sync(part / name)
                seal(part / name, identity, meta, took)
        try:
            return replace(read(kind, folder, verify=False), fresh=True)
        except Damaged as damage:
            raise StoreError(
                f"{damage}, just after it was written; the disk is not sound"
            ) from None


def _used(folder: Path) -> bool:
    """Note that it was used just now; false if it is gone."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # of a store that others may only read, nobody removes what is old
    return True
