"""One artefact: a file, and beside it a JSON file that says what it is and seals it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.io.fsync import fsync_path
from .atomic_files import file_sha256
from .cache_key import canonical_json, encode_json, hash_text, to_jsonable


@dataclass(frozen=True)
class Artifact:
    """A whole, verified file.

    metadata: how it came about, as its maker told. created: made just now, by this call
    size: of the file, bytes
    seconds: seconds that its maker worked on it, in the attempt that made it whole; None if not
    known
    """

    kind: str
    key: str
    path: Path
    key_inputs: Mapping[str, Any]
    metadata: Mapping[str, Any]
    created: bool = False
    size: int = 0
    seconds: float | None = None


class DamagedArtifact(Exception):
    """What stands in an artefact's folder is not the artefact; the text says why."""


def write_metadata(
    path: Path, key_inputs: Mapping[str, Any], metadata: Mapping[str, Any], seconds: float
) -> None:
    """Write what belongs beside the file at `path`, which is whole."""
    told = {
        "identity": key_inputs,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "took": seconds,
        "meta": metadata,
    }
    sealed = {**told, "seal": _sha256(canonical_json(told))}
    beside = path.with_name(f"{path.name}.json")
    beside.write_text(json.dumps(to_jsonable(sealed), indent=1, allow_nan=False))
    path.chmod(beside.stat().st_mode)  # safetensors lets nobody else read what it writes
    fsync_path(beside)


def read_artifact(kind: str, folder: Path, *, verify: bool) -> Artifact:
    """The artefact in a folder. Raises Damaged if it is not the one that was put there.

    verify: read the file too, to its last byte, not only what stands beside it
    """
    try:
        names = set(os.listdir(folder))
        besides = [n for n in names if n.endswith(".json") and n.removesuffix(".json") in names]
        if len(besides) != 1:
            raise DamagedArtifact(f"{folder} holds no file with another that describes it")
        beside = folder / besides[0]
        told = json.loads(beside.read_bytes())
        sealed = told.pop("seal")
        if _sha256(encode_json(told)) != sealed:
            raise DamagedArtifact(f"{beside} is damaged")
        if hash_text(encode_json(told["identity"])) != folder.name:
            raise DamagedArtifact(f"{folder} holds something else than its name says")
        path = beside.with_suffix("")
        size = path.stat().st_size
        if size != told["bytes"]:
            raise DamagedArtifact(f"{path} has {size} bytes instead of {told['bytes']}")
        if verify and file_sha256(path) != told["sha256"]:
            raise DamagedArtifact(f"{path} is damaged")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifact(
            f"{folder} cannot be read: {type(error).__name__}: {error}"
        ) from error
    identity, meta, took = told["identity"], told["meta"], told.get("took")
    return Artifact(kind, folder.name, path, identity, meta, size=size, seconds=took)


def quick_check(folder: Path, key_inputs: Mapping[str, Any]) -> bool:
    """Whether an artefact of this identity stands there, and its file is as long as it should be:
    a fraction of a millisecond, and no proof."""
    try:
        names = os.listdir(folder)
        beside = next(n for n in names if n.endswith(".json") and n.removesuffix(".json") in names)
        with open(f"{folder}/{beside}", "rb") as file:
            told = json.loads(file.read())
        size = os.stat(f"{folder}/{beside.removesuffix('.json')}").st_size
        return told["identity"] == key_inputs and told["bytes"] == size
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
