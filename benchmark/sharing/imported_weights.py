"""Weights that were trained elsewhere, as artifacts of the store that a run loads in place of a
training: `adbench import anoddpm FILE --as NAME`, then `adbench run -m anoddpm@NAME`.

A file is read as tensors alone and converted to our names, checked by name and shape against the
method as it is built. What a method measures on normal samples after its training (thresholds,
means, a latent's scale) is measured as ever.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ...datasets.base import Spec
from ...engine.checkpoints.formats import convert_file, require_finite, untouched_parts
from ...engine.checkpoints.monai_generative import TRAINING_ONLY
from ...engine.checkpoints.reading import CheckpointError
from ...methods.base import Method
from ..registry.registry import Entry, Registry, RegistryError
from ..store.artifact_store import Artifact, Store
from ..store.partial_state import separate_tensors

NAME = re.compile(r"[\w.+-]{1,64}")
PARTS = ("denoiser", "codec", "classifier")
"""Attributes of methods whose network can be imported, the one that is meant by default first."""

QUERIES_FIRST = {"PDDPM", "MDDPM", "CDDPM"}
"""Methods whose authors set guided-diffusion's `use_new_attention_order`."""


def import_weights(
    registry: Registry,
    store: Store,
    method: str,
    files: Mapping[str, Path],
    *,
    name: str,
    channels: int = 1,
    axes: int = 2,
    profile: str = "paper",
    settings: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> Artifact:
    """Convert the weights in files for a method and store them under a name; return the artifact.

    method: of the registry
    files: by the part of the method that each holds: denoiser, codec or classifier
    name: letters, digits, `.`, `-`, `_` and `+`
    channels, axes: of the samples that the network takes
    profile, settings: the arguments that the method is built with, as for a run
    key: of the state dict in the files; the averaged weights if there are any
    Raises CheckpointError where a file does not fit, or the name is taken by other weights;
    RegistryError on an unknown method or argument.

    >>> import tempfile
    >>> registry = Registry.read()
    >>> entry = registry.method("anoddpm")
    >>> method = entry.build(Spec(1, (16, 16)), **entry.arguments("check"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "weights.safetensors")
    ...     save_file(method.denoiser.net.state_dict(), file)
    ...     store = Store(Path(folder, "store"))
    ...     artifact = import_weights(
    ...         registry, store, "anoddpm", {"denoiser": file}, name="mine", profile="check"
    ...     )
    >>> artifact.metadata["method"], artifact.metadata["name"], artifact.metadata["sources"]
    ('anoddpm', 'mine', {'denoiser': 'weights.safetensors'})
    """
    if not NAME.fullmatch(name):
        raise CheckpointError(f"--as takes letters, digits and . - _ +, not {name!r}")
    entry = registry.method(method)
    arguments = entry.arguments(profile, settings or {})
    size = arguments.get("size")
    side = max(size) if isinstance(size, list) else size or 64
    built: Method = entry.build(Spec(channels, (side,) * axes), **arguments)
    weights, formats = dict[str, Tensor](), dict[str, str]()
    for part, path in files.items():
        module = getattr(built, part, None)
        if part not in PARTS or not isinstance(module, nn.Module):
            parts = [p for p in PARTS if isinstance(getattr(built, p, None), nn.Module)]
            raise CheckpointError(
                f"{method} has no {part}; weights can be imported for {' and '.join(parts)}"
            )
        converted, formats[part] = _convert_part(module, path, type(built), key)
        require_finite(converted, path)
        weights |= {f"{part}.{name}": value for name, value in converted.items()}
    digests = {part: _digest(path) for part, path in files.items()}
    _require_free_name(store, method, name, digests)
    inputs = {"method": entry.class_path, "files": digests, "key": key, "names": sorted(weights)}

    def create(path: Path) -> Mapping[str, Any]:
        save_file(separate_tensors(weights), path)
        sources = {part: path.name for part, path in files.items()}
        return {"name": name, "method": method, "sources": sources, "formats": formats,
            "files": digests}  # fmt: skip

    return store.get_or_create("weights", {**inputs, "name": name}, create, name="weights.st")


def find_imported(store: Store, entry: Entry) -> Entry:
    """Return the entry of `method@NAME` with the key of its weights in the store.

    entry: as `Registry.method` returns it; one without imported weights stays
    Raises RegistryError where the store has no weights of this name.

    >>> entry = Registry.read().method("anoddpm@mine")
    >>> find_imported(Store(Path("/no/such/store")), entry)
    Traceback (most recent call last):
    adbench...RegistryError: no weights 'mine' of anoddpm are in the store (it has none): ...
    """
    if not entry.weights:
        return entry
    method, _, name = entry.name.partition("@")
    names = list[str]()
    for artifact in store.artifacts("weights"):
        if artifact.metadata.get("method") == method:
            names.append(str(artifact.metadata["name"]))
            if names[-1] == name:
                return replace(entry, weights=artifact.key)
    stored = f"it has {', '.join(sorted(names))}" if names else "it has none"
    raise RegistryError(
        f"no weights {name!r} of {method} are in the store ({stored}): "
        f"adbench import {method} FILE --as {name}"
    )


def _convert_part(
    module: nn.Module, path: Path, method_class: type[Method], key: str | None
) -> tuple[dict[str, Tensor], str]:
    """The weights for a denoiser, codec or classifier, whose network is its `net`."""
    net = getattr(module, "net", module)
    prefix = "net." if net is not module else ""
    classes = {parent.__name__ for parent in method_class.__mro__}
    heads_first = not classes & QUERIES_FIRST
    source = module if prefix and hasattr(module, "codebook") else net
    weights, format_name = convert_file(source, path, part=key, heads_first=heads_first)
    if source is net:
        weights = {f"{prefix}{name}": value for name, value in weights.items()}
    untouched = [p for p in untouched_parts(module, weights) if f"{p}." not in TRAINING_ONLY]
    if untouched:
        raise CheckpointError(f"{path} lacks the weights of {', '.join(untouched)}")
    return weights, format_name


def _require_free_name(store: Store, method: str, name: str, digests: Mapping[str, str]) -> None:
    for artifact in store.artifacts("weights"):
        metadata = artifact.metadata
        is_taken = (metadata.get("method"), metadata.get("name")) == (method, name)
        if is_taken and metadata.get("files") != dict(digests):
            raise CheckpointError(
                f"{method}@{name} is taken by other weights ({artifact.key[:12]}): "
                "choose another --as"
            )


def _digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files by name."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.is_file())
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
