"""One artefact: a file, and beside it a JSON file that says what it is and seals it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.io.fsync import sync
from .atomic_files import file_sha256
from .cache_key import canonical_json, jsonable, key_of_text, text_of


@dataclass(frozen=True)
class Artefact:
    """A whole, verified file.

    meta: how it came about, as its maker told. fresh: made just now, by this call
    size: of the file, bytes
    took: seconds that its maker worked on it, in the attempt that made it whole; None if not known
    """

    kind: str
    key: str
    path: Path
    identity: Mapping[str, Any]
    meta: Mapping[str, Any]
    fresh: bool = False
    size: int = 0
    took: float | None = None


class Damaged(Exception):
    """What stands in an artefact's folder is not the artefact; the text says why."""


def seal(path: Path, identity: Mapping[str, Any], meta: Mapping[str, Any], took: float) -> None:
    """Write what belongs beside the file at `path`, which is whole."""
    told = {
        "identity": identity,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "took": took,
        "meta": meta,
    }
    sealed = {**told, "seal": _sha256(canonical_json(told))}
    beside = path.with_name(f"{path.name}.json")
    beside.write_text(json.dumps(jsonable(sealed), indent=1, allow_nan=False))
    path.chmod(beside.stat().st_mode)  # safetensors lets nobody else read what it writes
    sync(beside)


def read(kind: str, folder: Path, *, verify: bool) -> Artefact:
    """The artefact in a folder. Raises Damaged if it is not the one that was put there.

    verify: read the file too, to its last byte, not only what stands beside it
    """
    try:
        names = set(os.listdir(folder))
        besides = [n for n in names if n.endswith(".json") and n.removesuffix(".json") in names]
        if len(besides) != 1:
            raise Damaged(f"{folder} holds no file with another that describes it")
        beside = folder / besides[0]
        told = json.loads(beside.read_bytes())
        sealed = told.pop("seal")
        if _sha256(text_of(told)) != sealed:
            raise Damaged(f"{beside} is damaged")
        if key_of_text(text_of(told["identity"])) != folder.name:
            raise Damaged(f"{folder} holds something else than its name says")
        path = beside.with_suffix("")
        size = path.stat().st_size
        if size != told["bytes"]:
            raise Damaged(f"{path} has {size} bytes instead of {told['bytes']}")
        if verify and file_sha256(path) != told["sha256"]:
            raise Damaged(f"{path} is damaged")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{folder} cannot be read: {type(error).__name__}: {error}") from error
    identity, meta, took = told["identity"], told["meta"], told.get("took")
    return Artefact(kind, folder.name, path, identity, meta, size=size, took=took)


def glance(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether an artefact of this identity stands there, and its file is as long as it should be:
    a fraction of a millisecond, and no proof."""
    try:
        names = os.listdir(folder)
        beside = next(n for n in names if n.endswith(".json") and n.removesuffix(".json") in names)
        with open(f"{folder}/{beside}", "rb") as file:
            told = json.loads(file.read())
        size = os.stat(f"{folder}/{beside.removesuffix('.json')}").st_size
        return told["identity"] == identity and told["bytes"] == size
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
