"""Results on disk, found by what they are results of.

An artefact is one file. It lies in <root>/<kind>/<2 of key>/<key>/ beside a JSON file that holds
its identity, its checksum and how it came about; key is a hash of the identity. The folder gets
its name when both are whole and on disk, so a run may be killed at any time. What does not verify
is set aside and made anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor

MOST = 12
"""Differing fields that an explanation tells of."""

FULL = {errno.ENOSPC, errno.EDQUOT}

NOTHING_LIKE = "nothing like it is stored"


class StoreError(RuntimeError):
    """The store cannot be written or read: one line, what and why and how to mend it."""


class StoreWarning(UserWarning):
    """Something stored was damaged; it was set aside, and is made anew when it is needed."""


@dataclass(frozen=True)
class Artefact:
    """A whole, verified file.

    meta: how it came about, as its maker told. fresh: made just now, by this call
    """

    kind: str
    key: str
    path: Path
    identity: Mapping[str, Any]
    meta: Mapping[str, Any]
    fresh: bool = False


class Store:
    """A folder of artefacts. Nothing is created before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def once(
        self,
        kind: str,
        identity: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any]],
        *,
        name: str,
        waiting: Callable[[str], None] | None = None,
    ) -> Artefact:
        """What was made under this identity before, or what `make` makes now.

        make writes its payload to the path it is given, whose file name is `name`, and returns
        what is worth telling of it. If it raises, nothing stays. While another process makes the
        same, this one waits; `waiting` is told so once.
        """
        if found := self.find(kind, identity):
            return found
        with self._locked(kind, key_of(identity), waiting):
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
        folder = self._folder(kind, key)
        if not folder.is_dir():
            return None
        try:
            return _read(kind, folder, verify=True)
        except _Damaged as damage:
            reason = str(damage)
        if owned:
            self._set_aside(folder, f"{kind}-{key}", reason)
        else:
            with suppress(StoreError, TimeoutError), self._locked(kind, key, patience=0):
                return self.find(kind, identity, owned=True)
        return None

    def each(self, kind: str | None = None, *, verify: bool = False) -> Iterator[Artefact]:
        """Every artefact, of a kind or of all, in the order of their keys; damaged ones left out.

        verify: read the payloads too, not only what stands beside them
        """
        for folder in sorted(self.root.glob(f"{kind or '*'}/??/*")):
            with suppress(_Damaged):
                if not folder.name.startswith("."):
                    yield _read(folder.parents[1].name, folder, verify=verify)

    def explain(self, kind: str, identity: Mapping[str, Any]) -> list[str]:
        """Why `find` finds nothing: how the nearest identity of this kind differs from this one.

        Lines such as "train.args.lr: 0.0001 -> 2e-05", stored to asked for. Empty when it is there.
        """
        asked = _leaves(json.loads(canonical_json(identity)))
        nearest: list[str] | None = None
        for artefact in self.each(kind):
            stored = _leaves(dict(artefact.identity))
            fields = [f for f in {**stored, **asked} if stored.get(f) != asked.get(f)]
            if nearest is None or len(fields) < len(nearest):
                nearest = [
                    f"{f}: {stored.get(f, 'absent')} -> {asked.get(f, 'absent')}" for f in fields
                ]
        if nearest is None or (nearest and len(nearest) >= len(asked)):
            return [NOTHING_LIKE]
        more = [f"and {len(nearest) - MOST} more"] if len(nearest) > MOST else []
        return nearest[:MOST] + more

    def resume(self, kind: str, identity: Mapping[str, Any]) -> Resume:
        """Where the half-finished work on an artefact is kept."""
        return Resume(self.root / "resume" / f"{kind}-{key_of(identity)}")

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def _make(
        self,
        kind: str,
        identity: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any]],
        name: str,
    ) -> Artefact:
        key = key_of(identity)
        folder = self._folder(kind, key)
        for left in folder.parent.glob(f".{key}.*"):  # by a killed process: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        part = folder.with_name(f".{key}.{uuid4().hex[:8]}")
        try:
            with _said(folder):
                part.mkdir(parents=True)
            with _said(folder, only_full=True):
                meta = make(part / name)
            if not (part / name).is_file():
                raise ValueError(f"the maker of {kind} {key[:8]} wrote no {name}")
            with _said(folder):
                _sync(part / name)
                _write_beside(part / name, identity, meta)
                _sync(part)
                part.replace(folder)
                _sync(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return replace(_read(kind, folder, verify=False), fresh=True)

    @contextmanager
    def _locked(
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

        path = self.root / "locks" / f"{kind}-{key}.lock"
        with _said(path):
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

    def _set_aside(self, folder: Path, name: str, reason: str) -> None:
        aside = self.root / "corrupt" / f"{name}.{uuid4().hex[:8]}"
        with _said(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.replace(aside)
        warnings.warn(f"{reason}; set aside as {aside}", StoreWarning, stacklevel=4)


class Resume:
    """A Keep (engine/run.py) in a folder: named states of tensors, each replaced as a whole.

    A state is a safetensors file under a new name, and a small file that points to it and is
    replaced last, so that there is always a whole state, the new or the old.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """The state saved last under this name; a damaged one counts as none, with a warning."""
        from safetensors.torch import load_file

        pointer = self._pointer(name)
        if not pointer.is_file():
            return None
        try:
            told = json.loads(pointer.read_bytes())
            path = self.folder / Path(told["file"]).name
            if _sha256(path) == told["sha256"]:
                return load_file(path)
            reason = "its checksum does not fit"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"cannot go on from {pointer}: {reason}", StoreWarning, stacklevel=2)
        return None

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save_file

        pointer = self._pointer(name)
        path = self.folder / f"{pointer.stem}.{uuid4().hex[:8]}.safetensors"
        try:
            with _said(path):
                self.folder.mkdir(parents=True, exist_ok=True)
                save_file(_apart(state), path)
                _sync(path)
            atomic_write(pointer, canonical_json({"file": path.name, "sha256": _sha256(path)}))
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        for old in self.folder.glob(f"{pointer.stem}.*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pointer(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='').replace('.', '%2E')}.json"


def canonical_json(value: Any) -> str:
    """`value` as JSON, the same text whatever the order of its keys. Refuses NaN, infinity, keys
    that are not text and whatever JSON does not know."""
    return json.dumps(_jsonable(value), sort_keys=True, allow_nan=False, separators=(",", ":"))


def key_of(identity: Mapping[str, Any]) -> str:
    """The name of an artefact: 32 hex digits."""
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:32]


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a small file so that it is there whole or not at all."""
    with atomic_path(path) as part, _said(path):
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to. What is there at the end takes the name `path`; if the
    block raises, nothing stays and what had the name keeps it."""
    part = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        with _said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with _said(path):
            _sync(part)
            part.replace(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


class _Damaged(Exception):
    """What stands in an artefact's folder is not the artefact; the text says why."""


def _write_beside(path: Path, identity: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    told = {
        "identity": identity,
        "sha256": _sha256(path),
        "bytes": path.stat().st_size,
        "meta": meta,
    }
    seal = hashlib.sha256(canonical_json(told).encode()).hexdigest()
    beside = path.with_name(f"{path.name}.json")
    beside.write_text(json.dumps(_jsonable({**told, "seal": seal}), indent=1, allow_nan=False))
    _sync(beside)


def _read(kind: str, folder: Path, *, verify: bool) -> Artefact:
    """The artefact in a folder. Raises _Damaged if it is not the one that was put there."""
    try:
        besides = [
            p for p in folder.iterdir() if p.suffix == ".json" and p.with_suffix("").exists()
        ]
        if len(besides) != 1:
            raise _Damaged(f"{folder} holds no file with another that describes it")
        told = json.loads(besides[0].read_bytes())
        seal = told.pop("seal")
        if hashlib.sha256(canonical_json(told).encode()).hexdigest() != seal:
            raise _Damaged(f"{besides[0]} is damaged")
        if key_of(told["identity"]) != folder.name:
            raise _Damaged(f"{folder} holds something else than its name says")
        path = besides[0].with_suffix("")
        if path.stat().st_size != told["bytes"]:
            raise _Damaged(f"{path} has {path.stat().st_size} bytes instead of {told['bytes']}")
        if verify and _sha256(path) != told["sha256"]:
            raise _Damaged(f"{path} is damaged")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(f"{folder} cannot be read: {type(error).__name__}: {error}") from error
    return Artefact(kind, folder.name, path, told["identity"], told["meta"])


@contextmanager
def _said(path: Path, *, only_full: bool = False) -> Iterator[None]:
    """Tell of an OSError (or of a full disk only) as a user needs it."""
    try:
        yield
    except (TimeoutError, StoreError):
        raise
    except Exception as error:  # of a full disk, safetensors and HDF5 tell in words of their own
        full = getattr(error, "errno", None) in FULL or "No space left" in str(error)
        if not full and (only_full or not isinstance(error, OSError)):
            raise
        why = os.strerror(errno.ENOSPC) if full else getattr(error, "strerror", None) or error
        cure = "free some space, or" if full else "to write elsewhere,"
        raise StoreError(f"cannot write {path}: {why} ({cure} set ADBENCH_STORE)") from error


def _sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"a key must be text, not {wrong[0]!r}")
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    """Every leaf of a JSON value by its dotted path."""
    inner: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list):
        inner = dict(enumerate(value))
    if not inner:
        return {path: canonical_json(value)}
    made: dict[str, str] = {}
    for key, item in inner.items():
        made |= _leaves(item, f"{path}.{key}" if path else str(key))
    return made


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, no two sharing memory."""
    made: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        made[key] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return made
