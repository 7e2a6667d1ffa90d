"""Folders of diffusers: config.json beside diffusion_pytorch_model.safetensors (or .bin).

A pipeline has its networks in folders within it (unet, vae or vqvae, scheduler). Read as JSON and
tensors alone: diffusers itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .reading import CheckpointError, read_checkpoint, select_state

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

NETWORK_FOLDERS = {"denoiser": ("unet",), "codec": ("vae", "vqvae")}
"""Where a pipeline has the network of a part."""


def network_folder(folder: Path, part: str) -> Path:
    """Return the folder of a part's network: the folder itself, or one within a pipeline.

    >>> from adbench.engine.checkpoints.diffusers_folder import network_folder
    >>> network_folder(Path("unet"), "denoiser").name
    'unet'
    """
    inner = [folder / name for name in NETWORK_FOLDERS.get(part, ())]
    return next((path for path in inner if (path / "config.json").is_file()), folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration and return it; CheckpointError where it is no JSON object.

    >>> from adbench.engine.checkpoints.diffusers_folder import read_json
    >>> try:
    ...     read_json(Path("/no/such/config.json"))
    ... except CheckpointError as error:
    ...     print(str(error)[:44])
    /no/such holds no readable config.json: [Err
    """
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise TypeError("it is no object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path.parent} holds no readable {path.name}: {error}") from error
    return config


def require_equal(folder: Path, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a configuration has another value than one that is expected.

    expected: by key; a tuple holds the values that will do. A key that is absent will do too

    >>> from adbench.engine.checkpoints.diffusers_folder import require_equal
    >>> require_equal(Path("unet"), {"act_fn": "silu"}, {"act_fn": ("silu", "swish")})
    """
    wrong = []
    for key, value in expected.items():
        values = value if isinstance(value, tuple) else (value,)
        if key in config and config[key] not in values:
            wrong.append(f"{key}={config[key]!r} (here {' or '.join(map(repr, values))})")
    if wrong:
        raise CheckpointError(f"{folder} is another network: {', '.join(wrong)}")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights in a folder of diffusers and return them; CheckpointError without any.

    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from adbench.engine.checkpoints.diffusers_folder import read_weights
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "diffusion_pytorch_model.bin")
    ...     torch.save({"conv_in.bias": torch.ones(2)}, path)
    ...     read_weights(Path(folder))
    {'conv_in.bias': tensor([1., 1.])}
    """
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not files:
        parts = sorted(path.name for path in folder.glob("*.safetensors*"))
        split = f" in one file, but {', '.join(parts[:3])}" if parts else ""
        raise CheckpointError(f"{folder} holds no {' or '.join(WEIGHTS)}{split}")
    return select_state(read_checkpoint(files[0]))
