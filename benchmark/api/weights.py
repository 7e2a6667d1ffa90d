"""Import of weights that were trained elsewhere, and export of networks to other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .storage import open_store

if TYPE_CHECKING:
    from ...methods.base import Method


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
    from ..sharing.imported_weights import parts_of

    entries = Registry.read(*map(Path, registry))
    overrides = parse_settings(settings)
    arguments = {**overrides.get("", {}), **overrides.get(method, {})}
    artifact = import_to_store(
        entries, open_store(store), method, parts_of(files),
        name=name, channels=channels, axes=axes, profile=profile, settings=arguments, key=key,
    )  # fmt: skip
    metadata = artifact.metadata
    return {
        "method": method, "name": name, "key": artifact.key,
        "tensors": len(artifact.key_inputs["names"]),
        "formats": metadata["formats"], "files": metadata["files"],
        "settings": metadata["settings"], "unread": metadata["unread"],
    }  # fmt: skip


def export_network(
    source: str | Path,
    folder: str | Path,
    *,
    to: Literal["diffusers"] = "diffusers",
    parts: Sequence[str] = (),
    out: str | Path = "results",
    registry: Sequence[str | Path] = (),
    store: str | Path | None = None,
) -> dict[str, str]:
    """Write a method's networks as a folder that another library opens.

    Returns the class of each network by its folder: unet, vae or vqvae. diffusers'
    `UNet2DModel.from_pretrained(folder, subfolder="unet")` opens one of them.

    source: a record file; "METHOD@NAME" of imported weights; or a method's name, where `out` has
        one result of it alone
    folder: must not exist yet
    parts: denoiser or codec; all that the method has if none is named
    out: where adbench run wrote its records
    registry: further registry files
    store: as for open_store
    Raises CheckpointError with the reason where a network is none of diffusers' classes;
    DetectorError where the source is not to be had.

    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> import adbench
    >>> from adbench.benchmark.registry.registry import Registry
    >>> anoddpm = Registry.read().method("anoddpm")
    >>> method = anoddpm.build(adbench.Spec(1, (64, 64)), **anoddpm.arguments("check"))
    >>> with TemporaryDirectory() as folder:
    ...     store = f"{folder}/store"
    ...     torch.save(method.denoiser.net.state_dict(), f"{folder}/theirs.pt")
    ...     imported = adbench.import_weights("anoddpm", f"{folder}/theirs.pt", name="theirs",
    ...                                       profile="check", store=store)
    ...     adbench.export_network("anoddpm@theirs", f"{folder}/pipeline", store=store)
    {'unet': 'UNet2DModel'}
    """
    from ..sharing.exported_networks import export_to_diffusers

    if to != "diffusers":
        raise ValueError(f"networks can be written for diffusers, not for {to}")
    name = str(source)
    if "@" in name and not Path(name).is_file():
        method = _imported_method(name, registry, store)
    else:
        from .load import load

        path = Path(name) if Path(name).is_file() else _only_record(name, Path(out))
        detector = load(path, store=store, registry=registry, device="cpu")
        method, name = detector.method, detector.name
    return export_to_diffusers(method, Path(folder), name=name, parts=parts)


def _imported_method(name: str, registry: Sequence[str | Path], store: str | Path | None) -> Method:
    """The method of imported weights, with these and what it has before training."""
    from ...datasets.base import Spec
    from ...engine.training.loop import load_imported
    from ..experiments.imported_weights import load_imported_weights
    from ..experiments.resolve import build_method
    from ..registry.registry import Registry
    from ..sharing.imported_weights import find_imported, sample_shape
    from .weights_detector import experiment_of

    opened = open_store(store)
    entry = find_imported(opened, Registry.read(*map(Path, registry)).method(name))
    artifact = opened.read_metadata("weights", entry.weights)
    assert artifact is not None
    facts = artifact.metadata
    experiment = experiment_of(entry, {}, facts["profile"], None)
    spec: Spec = sample_shape(experiment.method_args, facts["channels"], facts["axes"])
    method = build_method(experiment, spec)
    for module, weights in load_imported_weights(experiment, opened, method).items():
        load_imported(module, weights)
    return method.eval()


def _only_record(method: str, out: Path) -> Path:
    """The record of a method in a results folder that has one."""
    from ..leaderboard.records import read_record
    from .detector import DetectorError

    records = list[Path]()
    for path in sorted((out / "records").glob("*.json")):
        record = read_record(path)
        if record["status"] == "ok" and record["method"]["name"] == method:
            records.append(path)
    if len(records) == 1:
        return records[0]
    if not records:
        raise DetectorError(
            f"{out} has no result of {method!r}: name a record file, or METHOD@NAME of imported "
            "weights"
        )
    listed = ", ".join(str(path) for path in records[:3])
    raise DetectorError(
        f"{out} has {len(records)} results of {method!r}: name the record, such as {listed}"
    )
