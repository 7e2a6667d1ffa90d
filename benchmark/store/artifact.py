"""One artifact: a payload file, and beside it a JSON file that identifies and verifies it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.io.fsync import fsync_path
from .atomic_files import file_sha256
from .cache_key import canonical_json, encode_json, hash_text, to_jsonable

UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
)  # fmt: skip
"""What reading a JSON file that anybody may have written can raise."""

FOLDER = re.compile(
    r"(?P<kind>[a-z][a-z-]{0,30})/(?P<two>[0-9a-f]{2})/(?P<key>(?P=two)[0-9a-f]{30})"
)
"""Where an artifact lies below the root of a store."""

NON_ARTIFACT_KINDS = {"resume", "corrupt", "half-made", "locks"}
"""Names that are no kinds of artifacts, because folders of a store or kinds of items have them."""


@dataclass(frozen=True)
class Artifact:
    """A complete, verified artifact.

    path: of the payload
    key_inputs: everything it was made from; the key is their hash
    metadata: what the function that created it returned, such as costs and versions
    created: whether this call created it
    size: of the payload, bytes
    seconds: how long its creation took, in the attempt that completed it; None if not recorded

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact import Artifact
    >>> Artifact("maps", "ab12", Path("maps.h5"), {"seed": 0}, {}, created=True).key_inputs
    {'seed': 0}
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
    """The files in an artifact's folder are missing or altered; the text says how.

    >>> read_artifact("maps", Path("/no/such/folder"), verify=False)
    Traceback (most recent call last):
    adbench...DamagedArtifact: /no/such/folder cannot be read: FileNotFoundError: ...
    """


def metadata_path(payload: Path) -> Path:
    """Return the path of the metadata file that belongs to a payload.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact import metadata_path
    >>> metadata_path(Path("maps.h5")).name
    'maps.h5.json'
    """
    return payload.with_name(f"{payload.name}.json")


def write_metadata(
    path: Path, key_inputs: Mapping[str, Any], metadata: Mapping[str, Any], seconds: float
) -> None:
    """Write the metadata file of a complete payload: key inputs, checksums, size and `metadata`.

    path: of the payload
    seconds: how long its creation took
    Raises ValueError or TypeError on values that JSON cannot hold, such as NaN.

    >>> import tempfile
    >>> from adbench.benchmark.store.cache_key import cache_key
    >>> inputs = {"seed": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "maps.h5")
    ...     _ = path.write_bytes(b"scores")
    ...     write_metadata(path, inputs, {"device": "cpu"}, seconds=2.5)
    ...     artifact = read_artifact("maps", Path(folder), verify=True, key=cache_key(inputs))
    >>> artifact.size, artifact.seconds, artifact.metadata
    (6, 2.5, {'device': 'cpu'})
    """
    fields = {
        "identity": key_inputs,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "took": seconds,
        "meta": metadata,
    }
    content = {**fields, "seal": _sha256(canonical_json(fields))}
    target = metadata_path(path)
    target.write_text(json.dumps(to_jsonable(content), indent=1, allow_nan=False))
    path.chmod(target.stat().st_mode)  # safetensors writes files that only their owner can read
    fsync_path(target)


def read_artifact(kind: str, folder: Path, *, verify: bool, key: str = "") -> Artifact:
    """Return the artifact in a folder.

    verify: check the SHA-256 of the payload too, not only its size and the metadata
    key: what the key inputs must hash to; the name of the folder if empty
    Raises DamagedArtifact if anything differs from what was written.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact import DamagedArtifact, read_artifact
    >>> try:
    ...     read_artifact("maps", Path("/no/such/folder"), verify=False)
    ... except DamagedArtifact:
    ...     print("damaged")
    damaged
    """
    key = key or folder.name
    try:
        name = _metadata_name(folder)
        with open(f"{folder}/{name}", "rb") as file:
            fields = json.loads(file.read())
        seal, key_inputs = fields.pop("seal"), fields["identity"]
        inputs_text = encode_json(key_inputs)
        if _sha256(_encode_around(fields, "identity", inputs_text)) != seal:
            raise DamagedArtifact(f"{folder}/{name} is damaged")
        if hash_text(inputs_text) != key:
            raise DamagedArtifact(f"{folder} holds another artifact than its name says")
        path = folder / name.removesuffix(".json")
        size = os.stat(path).st_size
        if size != fields["bytes"]:
            raise DamagedArtifact(f"{path} has {size} bytes instead of {fields['bytes']}")
        if verify and file_sha256(path) != fields["sha256"]:
            raise DamagedArtifact(f"{path} is damaged")
        metadata, seconds = fields["meta"], fields.get("took")
    except UNREADABLE as error:
        raise DamagedArtifact(
            f"{folder} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return Artifact(kind, key, path, key_inputs, metadata, size=size, seconds=seconds)


def _encode_around(fields: Mapping[str, Any], name: str, text: str) -> str:
    """`encode_json` of fields, of which one is encoded already: it is by far the largest."""
    texts = {key: text if key == name else encode_json(value) for key, value in fields.items()}
    return "{" + ",".join(f"{encode_json(key)}:{texts[key]}" for key in sorted(texts)) + "}"


def quick_check(folder: Path, key_inputs: Mapping[str, Any]) -> bool:
    """Return whether a folder holds an artifact with these key inputs and the right size.

    It takes a fraction of a millisecond and verifies no checksum.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.artifact import quick_check
    >>> quick_check(Path("/no/such/folder"), {"seed": 0})
    False
    """
    try:
        name = _metadata_name(folder)
        with open(f"{folder}/{name}", "rb") as file:
            fields = json.loads(file.read())
        size = os.stat(f"{folder}/{name.removesuffix('.json')}").st_size
        return fields["identity"] == key_inputs and fields["bytes"] == size
    except (OSError, ValueError, KeyError, TypeError, DamagedArtifact):
        return False


def _metadata_name(folder: Path) -> str:
    """The file that ends in .json beside one of the same name without it; a payload may be JSON."""
    names = set(os.listdir(folder))
    sidecars = [n for n in names if n.endswith(".json") and n.removesuffix(".json") in names]
    if len(sidecars) != 1:
        raise DamagedArtifact(f"{folder} does not hold one file and its metadata")
    return sidecars[0]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
