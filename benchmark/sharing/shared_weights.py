"""Weights of a record as files that others run: written beside a site, and taken into a store.

A file holds the trained networks of a method as tensors alone (safetensors). The site's index says
of each which method it is of, its arguments, and its SHA-256. Who takes one gets `METHOD@NAME`,
which loads it in place of a training; thresholds and other statistics are measured anew.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...datasets.base import Spec
from ...engine.checkpoints.formats import require_finite
from ...engine.checkpoints.monai_generative import TRAINING_ONLY
from ...engine.checkpoints.reading import CheckpointError
from ...methods.base import Method
from ..leaderboard.records import Record, read_record
from ..registry.registry import Registry
from ..store.artifact_store import Artifact, Store
from ..store.atomic_files import file_sha256
from ..store.partial_state import separate_tensors
from .hub import INDEX
from .redaction import redact_record
from .site import PublishError

FILE = re.compile(r"weights/[\w.+@-]{1,180}\.safetensors")
RECORD = re.compile(r"records/[\w.+@-]{1,180}\.json")


@dataclass(frozen=True)
class WeightsEntry:
    """What a site's index says of a file of weights.

    method: of the registry            args: of its constructor
    channels, shape: of its samples    sha256: of the file
    record: path of the record that it belongs to

    >>> WeightsEntry("dae", {}, 1, (16, 16), "weights/a.safetensors", "0f", 9, "").name
    'a'
    """

    method: str
    args: Mapping[str, Any]
    channels: int
    shape: tuple[int, ...]
    file: str
    sha256: str
    bytes: int
    record: str

    @property
    def name(self) -> str:
        """The name of its file, without folder and ending."""
        return Path(self.file).stem

    def as_dict(self) -> dict[str, Any]:
        """JSON values, as the index holds them."""
        return {**vars(self), "shape": list(self.shape)}


def export_weights(
    record: Record, spec: Spec, store: Store, registry: Registry, folder: Path
) -> WeightsEntry:
    """Write the trained networks of a record's checkpoint to a site's `weights`.

    record: with a result, with the name of its `file`        spec: of its samples
    Raises PublishError where the checkpoint is not in the store, or has no network that can be
    shared.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> export_weights(example_record(), Spec(1, (8, 8)), Store(Path("none")), Registry.read(),
    ...     Path("site"))
    Traceback (most recent call last):
    adbench.benchmark.sharing.site.PublishError: the weights of anoddpm-brats-0 are not in the ...
    """
    name = str(record["file"]).removesuffix(".json")
    method, key = record["method"]["name"], (record.get("keys") or {}).get("checkpoint", "")
    artifact = store.read_metadata("checkpoint", key) if key else None
    if artifact is None:
        raise PublishError(
            f"the weights of {name} are not in the store {store.root}: the same `adbench run` "
            "trains them again"
        )
    entry = registry.method(method.partition("@")[0])
    parts = _trained_parts(entry.build(spec, **record["method"]["args"]))
    weights = {
        tensor: value
        for tensor, value in load_file(artifact.path).items()
        if tensor.partition(".")[0] in parts
        and not tensor.partition(".")[2].startswith(TRAINING_ONLY)
    }
    if not weights:
        raise PublishError(f"{method} has no trained network: it has no weights to publish")
    path = folder / "weights" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(separate_tensors(weights), path)
    return WeightsEntry(
        entry.name,
        redact_record(record)["method"]["args"],
        spec.channels,
        tuple(spec.shape),
        f"weights/{path.name}",
        file_sha256(path),
        path.stat().st_size,
        f"records/{record['file']}",
    )


def read_index(folder: Path) -> list[WeightsEntry]:
    """The weights that a site's index lists.

    Raises CheckpointError where the folder holds no index, or one that is not sound.

    >>> from pathlib import Path
    >>> read_index(Path("no/such/site"))
    Traceback (most recent call last):
    adbench.engine.checkpoints.reading.CheckpointError: no/such/site holds no adbench.json: ...
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema") != 1:
            raise ValueError(f"it has schema {content.get('schema')!r}, and this adbench reads 1")
        return [_parse_entry(entry) for entry in content["weights"]]
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} holds no {INDEX}: name what `adbench publish --weights` wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is no index of a site: {error}") from error


def select_weights(entries: Sequence[WeightsEntry], name: str, source: str) -> WeightsEntry:
    """The entry of a name: a method's, or the beginning of a record's; the only one without a name.

    source: what errors call it
    Raises CheckpointError, with the names there are, unless exactly one fits.

    >>> entry = WeightsEntry("dae", {}, 1, (8, 8), "weights/a.safetensors", "0f", 9, "")
    >>> select_weights([entry], "dae", "hub:lab/brains").file
    'weights/a.safetensors'
    """
    fitting = [e for e in entries if not name or name == e.method or e.name.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(entry.name for entry in entries) or "none"
    what = f"{len(fitting)} of its weights are {name!r}" if name else "it holds several"
    what = what if entries else "it holds no weights"
    raise CheckpointError(f"{source}: {what}; name one as {source}#NAME: {names}")


def import_shared(
    entry: WeightsEntry, folder: Path, name: str, store: Store, registry: Registry
) -> Artifact:
    """Take the weights of a site into a store under a name, and return the artifact.

    Everything is checked before: the SHA-256, the record, names and shapes.

    folder: of the site, or of what was fetched of it
    Raises CheckpointError on a file that is damaged, or does not fit the method; RegistryError on a
    method or argument that this adbench does not have.

    >>> entry = WeightsEntry("dae", {}, 1, (8, 8), "weights/a.safetensors", "0f", 9, "")
    >>> import_shared(entry, Path("site"), "mine", Store(Path("store")), Registry.read())
    Traceback (most recent call last):
    adbench.engine.checkpoints.reading.CheckpointError: site/weights/a.safetensors cannot be ...
    """
    path = folder / entry.file
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if digest != entry.sha256:
        raise CheckpointError(
            f"{path} is damaged or was exchanged: its SHA-256 is {digest[:12]}…, and the index "
            f"says {entry.sha256[:12]}…"
        )
    try:
        record = read_record(folder / entry.record)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / entry.record} is no sound record: {error}") from error
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no file of safetensors: {error}") from error
    require_finite(weights, path)
    registered = registry.method(entry.method)
    arguments = registered.arguments(None, entry.args)
    method: Method = registered.build(Spec(entry.channels, entry.shape), **arguments)
    _require_fit(method, weights, path)
    inputs = {
        "method": registered.class_path,
        "files": {"shared": digest},
        "key": None,
        "names": sorted(weights),
        "name": name,
    }

    def create(target: Path) -> Mapping[str, Any]:
        shutil.copyfile(path, target)
        return {
            "name": name,
            "method": entry.method,
            "sources": {"shared": entry.file},
            "formats": {"shared": "adbench"},
            "files": {"shared": digest},
            "record": {key: value for key, value in record.items() if key != "samples"},
        }

    return store.get_or_create("weights", inputs, create, name="weights.st")


def _trained_parts(method: Method) -> set[str]:
    """Names of a method's networks that are trained; those that are only read, such as features of
    ImageNet, are not its own to publish."""
    return {
        name
        for name, part in method.named_children()
        if any(parameter.requires_grad for parameter in part.parameters())
    }


def _require_fit(method: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError unless the weights are of the trained networks, by name and shape."""
    own = {key: v for key, v in method.state_dict().items() if isinstance(v, Tensor)}
    parts = {key.partition(".")[0] for key in weights}
    parameters = [
        key
        for key, _ in method.named_parameters()
        if key.partition(".")[0] in parts and not key.partition(".")[2].startswith(TRAINING_ONLY)
    ]
    problems = {
        "missing": [key for key in parameters if key not in weights],
        "unknown": [key for key in weights if key not in own],
        "of another shape": [k for k, v in weights.items() if k in own and own[k].shape != v.shape],
    }
    for what, names in problems.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{path} does not fit: {', '.join(names[:3])}{more} {what}")


def _parse_entry(entry: Any) -> WeightsEntry:
    """An entry of an index, which anybody may have written.

    Raises ValueError, KeyError or TypeError where it is not sound.
    """
    if not FILE.fullmatch(entry["file"]) or not RECORD.fullmatch(entry["record"]):
        raise ValueError(f"{entry['file']!r} is no file of safetensors in weights/")
    if not isinstance(entry["args"], dict) or not isinstance(entry["method"], str):
        raise ValueError("an entry names a method and its arguments")
    shape = tuple(int(side) for side in entry["shape"])
    if not 1 <= len(shape) <= 3 or not 1 <= int(entry["channels"]) <= 4096:
        raise ValueError(f"{entry['shape']!r} is no shape of samples")
    return WeightsEntry(
        entry["method"], entry["args"], int(entry["channels"]), shape, entry["file"],
        str(entry["sha256"]), int(entry["bytes"]), entry["record"],
    )  # fmt: skip
