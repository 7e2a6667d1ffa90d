"""A method's networks written for other libraries: folders that diffusers opens.

One folder has what a pipeline has: unet, vae or vqvae, scheduler, and model_index.json where
diffusers has such a pipeline; beside them adbench.json, with the range of the images, which a
pipeline does not write.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors.torch import save_file

from ...engine.checkpoints.diffusers_export import (
    DiffusersNetwork,
    export_codec,
    export_unet,
    exportable,
    network_range,
)
from ...engine.checkpoints.diffusers_folder import WEIGHTS
from ...engine.checkpoints.diffusers_scheduler import FILE, describe_scheduler
from ...engine.checkpoints.imported_networks import OWN_FILE
from ...engine.checkpoints.reading import CheckpointError
from ...methods.base import Method
from ..store.atomic_files import describe_write_errors
from ..store.partial_state import separate_tensors


def export_to_diffusers(
    method: Method, folder: Path, *, name: str, parts: Sequence[str] = ()
) -> dict[str, str]:
    """Write a method's networks as a folder of diffusers; return the class of each, by its folder.

    folder: must not exist yet; it appears whole or not at all
    name: of the method, for adbench.json
    parts: of the method to be written, denoiser or codec; all that it has if none is named
    Raises CheckpointError where a network is none of diffusers' classes, with the reason.

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.registry.registry import Registry
    >>> from adbench.datasets.base import Spec
    >>> anoddpm = Registry.read().method("anoddpm")
    >>> method = anoddpm.build(Spec(1, (16, 16)), **anoddpm.arguments("check"))
    >>> with TemporaryDirectory() as folder:
    ...     classes = export_to_diffusers(method, Path(folder, "pipeline"), name="anoddpm")
    ...     files = sorted(path.name for path in Path(folder, "pipeline").iterdir())
    >>> classes, files
    ({'unet': 'UNet2DModel'}, ['model_index.json', 'scheduler', 'unet'])
    """
    available = exportable(method)
    chosen = list(parts) or list(available)
    if unknown := [part for part in chosen if part not in available]:
        raise CheckpointError(
            f"{name} has no {unknown[0]} to write; it has {' and '.join(available) or 'no network'}"
        )
    if not chosen:
        raise CheckpointError(f"{name} has no network that diffusers has a class for")
    if folder.exists():
        raise CheckpointError(f"{folder} exists already: name a new folder")
    networks = dict[str, DiffusersNetwork]()
    scheduler: dict[str, Any] | None = None
    for part in chosen:
        module: Any = available[part]
        try:
            if part == "denoiser":
                codec: Any = available.get("codec")
                sides = codec.latent[1:] if codec is not None else _sides(method)
                networks["unet"] = export_unet(module, tuple(sides))
                scheduler = describe_scheduler(module)
            else:
                network = export_codec(module)
                kind = "vae" if network.config["_class_name"] == "AutoencoderKL" else "vqvae"
                networks[kind] = network
        except CheckpointError as error:
            rest = [p for p in chosen if p != part]
            advice = f" (--part {rest[0]} writes the other alone)" if rest and not parts else ""
            raise CheckpointError(f"the {part} of {name}: {error}{advice}") from None
    own = {"method": name, "range": network_range(method), "adbench": version("diffusion-adbench")}
    with describe_write_errors(folder), _staging_folder(folder) as staging:
        for kind, network in networks.items():
            _write_network(staging / kind, network, own)
        if scheduler is not None:
            (staging / "scheduler").mkdir()
            _write_json(staging / "scheduler" / FILE, scheduler)
        if list(networks) == ["unet"] and "codec" not in available:
            index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"],
                "scheduler": ["diffusers", "DDPMScheduler"]}  # fmt: skip
            _write_json(staging / "model_index.json", index)
    return {kind: network.config["_class_name"] for kind, network in networks.items()}


@contextmanager
def _staging_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the name `folder` at the end, or is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{uuid4().hex[:8]}.{folder.name}")
    staging.mkdir()
    try:
        yield staging
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sides(method: Any) -> Sequence[int]:
    return method.canvas.padded_shape


def _write_network(folder: Path, network: DiffusersNetwork, own: dict[str, Any]) -> None:
    folder.mkdir()
    tensors = {key: value.detach().cpu() for key, value in network.weights.items()}
    save_file(separate_tensors(tensors), folder / WEIGHTS[0], metadata={"format": "pt"})
    _write_json(folder / "config.json", network.config)
    _write_json(folder / OWN_FILE, own)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
