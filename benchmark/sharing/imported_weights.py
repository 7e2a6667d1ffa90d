"""Weights that were trained elsewhere, as artifacts of the store that a run loads in place of a
training: `adbench import anoddpm FILE --as NAME`, then `adbench run -m anoddpm@NAME`.

A file is read as tensors alone and converted to our names, checked by name and shape against the
method as it is built. A folder of diffusers says its architecture too, which then takes the place
of the method's. What a method measures on normal samples after its training (thresholds, means, a
latent's scale unless the weights have one) is measured as ever.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor, nn

from ...datasets.base import Spec
from ...engine.checkpoints.diffusers_folder import network_folder
from ...engine.checkpoints.formats import (
    Conversion,
    as_folder,
    convert_file,
    require_finite,
    untouched_parts,
)
from ...engine.checkpoints.imported_networks import apply_networks, read_network
from ...engine.checkpoints.monai_generative import TRAINING_ONLY
from ...engine.checkpoints.reading import CheckpointError
from ...methods.base import Method
from ..registry.registry import Entry, Registry, RegistryError
from ..store.artifact_store import Artifact, Store
from ..store.partial_state import separate_tensors

NAME = re.compile(r"[\w.+-]{1,64}")
PARTS = ("denoiser", "codec", "classifier", "encoder", "coder")
"""Attributes of methods whose network can be imported, the one that is meant by default first."""

TRAINED_WITH_DENOISER = ("encoder",)
"""Parts that are trained in one with the denoiser, and stored in its file."""


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
    files: by the part of the method that each holds, see PARTS; "" for its main network
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
        raise CheckpointError(
            f"--as takes up to 64 letters, digits and . - _ +, not {name!r}: it is the NAME of "
            f"{method}@NAME"
        )
    entry, settings = registry.method(method), dict(settings or {})
    arguments = entry.arguments(profile, settings)
    spec = sample_shape(arguments, channels, axes)
    built: Method = entry.build(spec, **arguments)
    sources = _sources(built, method, files)
    networks = {part: read_network(path, part) for part, path in sources.items() if path.is_dir()}
    if networks:
        settings = _network_settings(entry, profile, settings, networks, spec)
        built = entry.build(spec, **entry.arguments(profile, settings))
        apply_networks(built, networks)
    parts = dict[str, Conversion]()
    for part, path in sources.items():
        try:
            parts[part] = _convert_part(getattr(built, part), part, path, key)
        except CheckpointError as error:
            if str(path) in str(error):
                raise
            raise CheckpointError(
                f"{path} as the {part} of {method} (profile {profile}): {error}"
            ) from None
    weights: dict[str, Tensor] = {}
    for part, conversion in parts.items():
        require_finite(conversion.weights, sources[part])
        weights |= {f"{part}.{name}": value for name, value in conversion.weights.items()}
    digests = {part: _digest(path) for part, path in sources.items()}
    facts: dict[str, Any] = {
        "files": digests, "profile": profile, "settings": settings, "key": key or "",
        "networks": networks,
    }  # fmt: skip
    _require_free_name(store, method, name, facts)
    inputs = {"method": entry.class_path, "names": sorted(weights), "name": name, **facts}

    def create(path: Path) -> Mapping[str, Any]:
        save_file(separate_tensors(weights), path)
        return {
            "name": name, "method": method, "channels": channels, "axes": axes,
            "sources": {part: path.name for part, path in sources.items()},
            "formats": {part: conversion.format for part, conversion in parts.items()},
            "unread": _unread(sources, parts), **facts,
        }  # fmt: skip

    return store.get_or_create("weights", inputs, create, name="weights.st")


def resolve_imported(registry: Registry, store: Store, names: Iterable[str]) -> Registry:
    """Return the registry with an entry for each `method@NAME` among names.

    Raises RegistryError where the store has no weights of this name.

    >>> import tempfile
    >>> registry = Registry.read()
    >>> entry = registry.method("anoddpm")
    >>> method = entry.build(Spec(1, (16, 16)), **entry.arguments("check"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file, store = Path(folder, "weights.safetensors"), Store(Path(folder, "store"))
    ...     save_file(method.denoiser.net.state_dict(), file)
    ...     artifact = import_weights(
    ...         registry, store, "anoddpm", {"": file}, name="mine", profile="check"
    ...     )
    ...     resolved = resolve_imported(registry, store, ["pca", "anoddpm@mine"])
    >>> resolved.methods["anoddpm@mine"].weights == artifact.key, "pca@mine" in resolved.methods
    (True, False)
    """
    methods = dict(registry.methods)
    for name in names:
        if "@" in name and name not in methods:
            methods[name] = find_imported(store, registry.method(name))
    return replace(registry, methods=methods)


def find_imported(store: Store, entry: Entry) -> Entry:
    """Return the entry of `method@NAME` with its weights in the store, and what they are for.

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
        metadata = artifact.metadata
        if metadata.get("method") == method:
            names.append(str(metadata["name"]))
            if names[-1] == name:
                return replace(
                    entry, weights=artifact.key, weights_args=metadata.get("settings", {}),
                    networks=metadata.get("networks", {}),
                )  # fmt: skip
    stored = f"it has {', '.join(sorted(names))}" if names else "it has none"
    raise RegistryError(
        f"no weights {name!r} of {method} are in the store ({stored}): "
        f"adbench import {method} FILE --as {name}"
    )


def parts_of(files: str | Path | Mapping[str, str | Path]) -> dict[str, Path]:
    """Return the files of weights by part; "" for a method's main network.

    >>> from adbench.benchmark.sharing.imported_weights import parts_of
    >>> parts_of("model.pt")[""].name
    'model.pt'
    """
    by_part = files if isinstance(files, Mapping) else {"": files}
    return {part: Path(path) for part, path in by_part.items()}


class _Candidate(NamedTuple):
    """Settings of a codec, of which those count that a method takes."""

    coder: str
    coder_widths: Sequence[int]
    latent_channels: int


def sample_shape(arguments: Mapping[str, Any], channels: int, axes: int) -> Spec:
    """Return the shape of samples that a method is built for where no dataset says it: its size.

    >>> from adbench.benchmark.sharing.imported_weights import sample_shape
    >>> sample_shape({"size": 32}, channels=1, axes=2).shape
    (32, 32)
    """
    size = arguments.get("size")
    side = max(size) if isinstance(size, list) else size or 64
    return Spec(channels, (side,) * axes)


def _sources(built: Method, method: str, files: Mapping[str, Path]) -> dict[str, Path]:
    """The file or folder of each part, every part checked."""
    available = [p for p in PARTS if isinstance(getattr(built, p, None), nn.Module)]
    if not available:
        raise CheckpointError(f"{method} has no network whose weights can be imported")
    sources = {part or available[0]: as_folder(path) for part, path in files.items()}
    for part in sources:
        if part not in available:
            raise CheckpointError(
                f"{method} has no {part}; weights can be imported for {' and '.join(available)}"
            )
    for part in TRAINED_WITH_DENOISER:
        if part in available and "denoiser" in sources and part not in sources:
            sources[part] = sources["denoiser"]
    pipeline = sources.get("denoiser")
    if pipeline is not None and "codec" in available and "codec" not in sources:
        inner = network_folder(pipeline, "codec")
        if inner != pipeline:  # a pipeline of diffusers has both
            sources["codec"] = pipeline
    for part, path in sources.items():
        sources[part] = network_folder(path, part) if path.is_dir() else path
    return sources


def _convert_part(module: nn.Module, part: str, path: Path, key: str | None) -> Conversion:
    """The weights for a denoiser, codec or another part, whose network is its `net`."""
    net = getattr(module, "net", module)
    prefix = "net." if net is not module else ""
    whole = path.is_dir() and part == "codec"
    source = module if whole or (prefix and hasattr(module, "codebook")) else net
    conversion = convert_file(source, path, part=key)
    weights = conversion.weights
    if source is net:
        weights = {f"{prefix}{name}": value for name, value in weights.items()}
    untouched = [p for p in untouched_parts(module, weights) if f"{p}." not in TRAINING_ONLY]
    if untouched:
        raise CheckpointError(f"{path} lacks the weights of {', '.join(untouched)}")
    return conversion._replace(weights=weights)


def _network_settings(
    entry: Entry,
    profile: str,
    settings: Mapping[str, Any],
    networks: Mapping[str, Mapping[str, Any]],
    spec: Spec,
) -> dict[str, Any]:
    """The settings, and those that follow from the networks of folders.

    They make the sides of samples and codes fit; the networks themselves are built from the folder.
    """
    taken, derived = entry.parameters(), dict[str, Any]()
    if "denoiser" in networks:
        derived |= _unet_settings(taken, networks["denoiser"]["unet"])
    derived = {k: v for k, v in derived.items() if k in taken and k not in settings}
    if "codec" not in networks:
        return {**settings, **derived}
    arguments = networks["codec"]["arguments"]
    widths = arguments["widths"]
    error: Exception | None = None
    # a codec that halves before its first resolution needs one width less for the same sides
    for candidate in (widths, widths[:-1]):
        codec = _Candidate("kl", candidate, arguments["latent_channels"])._asdict()
        tried = {**settings, **derived, **{k: v for k, v in codec.items() if k in taken}}
        try:
            apply_networks(entry.build(spec, **entry.arguments(profile, tried)), networks)
            return tried
        except (CheckpointError, ValueError, RuntimeError, IndexError) as reason:
            error = error or reason
    raise CheckpointError(f"this codec does not fit {entry.name}: {error}") from error


def _unet_settings(taken: Mapping[str, Any], unet: Mapping[str, Any]) -> dict[str, Any]:
    widths, heads = unet["widths"], unet["head_channels"]
    settings: dict[str, Any] = {
        "widths": widths, "width": widths[0], "mults": [w / widths[0] for w in widths],
        "res_blocks": unet["res_blocks"], "fold": 1, "groups": unet["groups"],
    }  # fmt: skip
    attention = getattr(taken.get("attention"), "default", None)
    if attention is None or all(isinstance(value, bool) for value in attention):
        settings["attention"] = unet["attention"]
    if len(set(heads)) == 1:
        settings["head_channels"] = heads[0]
    return settings


def _unread(sources: Mapping[str, Path], parts: Mapping[str, Conversion]) -> dict[str, list[str]]:
    """For each file's name, the names of its weights that no part took."""
    unread = dict[str, list[str]]()
    for path in dict.fromkeys(sources.values()):
        lists = [parts[part].unread for part, other in sources.items() if other == path]
        names = [name for name in lists[0] if all(name in other for other in lists[1:])]
        if names:
            unread[path.name] = names
    return unread


def _require_free_name(store: Store, method: str, name: str, facts: Mapping[str, Any]) -> None:
    for artifact in store.artifacts("weights"):
        metadata = artifact.metadata
        is_taken = (metadata.get("method"), metadata.get("name")) == (method, name)
        if not is_taken or all(metadata.get(fact) == value for fact, value in facts.items()):
            continue
        other = "files" if metadata.get("files") != facts["files"] else "settings"
        raise CheckpointError(
            f"{method}@{name} is taken by other weights ({artifact.key[:12]}, other {other}): "
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
