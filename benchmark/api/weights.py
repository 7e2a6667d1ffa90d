"""Import of weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .storage import open_store


def import_weights(
    method: str,
    files: str | Path | Mapping[str, str | Path],
    *,
    name: str,
    channels: int = 1,
    axes: int = 2,
    profile: str = "paper",
    settings: Mapping[str, Any] | Sequence[str] = (),
    key: str | None = None,
    registry: Sequence[str | Path] = (),
    store: str | Path | None = None,
) -> dict[str, Any]:
    """Import weights that were trained elsewhere; `adbench.run("METHOD@NAME", ...)` loads them.

    Returns the method, the name, the key in the store, the number of tensors, and for each part
    its format and the SHA-256 of its file; the settings that a run will have; and the weights in
    the files that were not read. Files are read as tensors alone: nothing in them runs.

    method: of the registry
    files: a checkpoint file or a folder of diffusers; or several by part: denoiser, codec,
        classifier, encoder, coder
    name: letters, digits, `.`, `-`, `_` and `+`
    channels, axes: of the samples that the network takes
    profile, settings: the arguments of the method whose network it is
    key: of the state dict in the file; the averaged weights if there are any
    registry: further registry files
    store: as for open_store
    Raises CheckpointError on a file that does not fit, with what is missing, left over or of
    another shape; RegistryError on an unknown method or argument.

    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> import adbench
    >>> from adbench.benchmark.registry.registry import Registry
    >>> anoddpm = Registry.read().method("anoddpm")
    >>> method = anoddpm.build(adbench.Spec(1, (64, 64)), **anoddpm.arguments("check"))
    >>> with TemporaryDirectory() as folder:
    ...     torch.save(method.denoiser.net.state_dict(), f"{folder}/theirs.pt")
    ...     imported = adbench.import_weights("anoddpm", f"{folder}/theirs.pt", name="theirs",
    ...                                       profile="check", store=f"{folder}/store")
    >>> imported["tensors"] == len(method.denoiser.net.state_dict()), list(imported["formats"])
    (True, ['denoiser'])
    """
    from ..experiments.run_config import parse_settings
    from ..registry.registry import Registry
    from ..sharing.imported_weights import import_weights as import_to_store

    entries = Registry.read(*map(Path, registry))
    overrides = parse_settings(settings)
    arguments = {**overrides.get("", {}), **overrides.get(method, {})}
    by_part = files if isinstance(files, Mapping) else {"": files}
    artifact = import_to_store(
        entries, open_store(store), method, {part: Path(path) for part, path in by_part.items()},
        name=name, channels=channels, axes=axes, profile=profile, settings=arguments, key=key,
    )  # fmt: skip
    metadata = artifact.metadata
    return {
        "method": method, "name": name, "key": artifact.key,
        "tensors": len(artifact.key_inputs["names"]),
        "formats": metadata["formats"], "files": metadata["files"],
        "settings": metadata["settings"], "unread": metadata["unread"],
    }  # fmt: skip
