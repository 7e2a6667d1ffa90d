"""The formats of checkpoints that are recognised, and the conversion of each to our names.

The format is told by the names of the weights: guided-diffusion's UNet and its copies, MONAI's and
monai-generative's networks, diffusers', and networks that one repository has of its own. What
cannot be told from names (the order within an attention) the network says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..runtime.weight_names import abbreviate
from .authors_networks import CONVERTERS, convert_resnet
from .conversion import split_prefix
from .diffusers_autoencoder import convert_autoencoder
from .diffusers_folder import WEIGHTS, read_json
from .diffusers_unet import convert_diffusers, convert_diffusers_state
from .guided_diffusion import ANODDPM, GuidedDiffusionNames, convert_guided_diffusion
from .monai_generative import convert_monai_generative
from .reading import CheckpointError, read_checkpoint, select_state

AVERAGED = ("ema", "ema_state_dict")
"""Keys of averaged weights, which come before all others: the authors of AnoDDPM judge them."""

MONAI_ANCHORS = ("conv_in.conv.weight", "encoder.blocks.0.conv.weight")
"""A name in a UNet of MONAI, and one in an autoencoder."""


class Conversion(NamedTuple):
    """The weights in a file under the names of a network.

    weights: every one of the network
    format: the name of the format
    unread: names of weights in the file that are not the network's

    >>> import torch
    >>> from adbench.engine.checkpoints.formats import Conversion
    >>> Conversion({"w": torch.ones(1)}, "MONAI", ["discriminator.w"]).unread
    ['discriminator.w']
    """

    weights: dict[str, Tensor]
    format: str
    unread: list[str]


def convert_file(module: nn.Module, path: Path, *, part: str | None = None) -> Conversion:
    """Return the weights in a file or folder under the names of a network.

    module: with the architecture that was trained; of a codec with a codebook, all of it
    path: a checkpoint file, or a folder of diffusers
    part: the key of the state dict in the file; the averaged weights if there are any
    Raises CheckpointError that says what does not fit.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from adbench.engine.checkpoints.formats import convert_file
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(1, 1, (8,), res_blocks=1, head_channels=8)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "epoch-3.pt")
    ...     torch.save({"epoch": 3, "model": net.state_dict()}, path)
    ...     weights, name, _ = convert_file(net, path)
    >>> name, weights.keys() == net.state_dict().keys()
    ('MONAI', True)
    """
    if path.is_dir():
        return _convert_folder(module, path)
    content = read_checkpoint(path)
    if part is None:
        part = next((name for name in AVERAGED if isinstance(content.get(name), Mapping)), None)
    return _convert_state(module, select_state(content, part))


def as_folder(path: Path) -> Path:
    """Return the folder of diffusers that a file of weights is in, else the path itself.

    >>> from adbench.engine.checkpoints.formats import as_folder
    >>> as_folder(Path("model.pt")).name
    'model.pt'
    """
    in_folder = path.name in WEIGHTS and (path.parent / "config.json").is_file()
    return path.parent if in_folder else path


def _convert_folder(module: nn.Module, folder: Path) -> Conversion:
    kind = read_json(folder / "config.json").get("_class_name")
    if kind in ("AutoencoderKL", "VQModel"):
        weights, unread = convert_autoencoder(module, folder)
        return Conversion(weights, f"diffusers {kind}", unread)
    return Conversion(convert_diffusers(module, folder), "diffusers UNet2DModel", [])


def _convert_state(module: nn.Module, state: Mapping[str, Tensor]) -> Conversion:
    if hasattr(module, "layer1"):
        return Conversion(*_with_format(convert_resnet(module, state), "ResNet"))
    anchors = {"input_blocks.0.0.weight": ("guided-diffusion", GuidedDiffusionNames(
        heads_first=not getattr(module, "queries_first", False)))}  # fmt: skip
    if _has(state, "time_embedding.1.weight"):
        anchors["down.0.0.weight"] = ("AnoDDPM", ANODDPM)
    for anchor, (name, names) in anchors.items():
        if _has(state, anchor):
            inside, unread = split_prefix(state, anchor)
            return Conversion(convert_guided_diffusion(module, inside, names), name, unread)
    for anchor, (name, converter) in CONVERTERS.items():
        if _has(state, anchor):
            return Conversion(*_with_format(converter(module, state), name))
    if _has(state, "time_embedding.linear_1.weight"):
        inside, unread = split_prefix(state, "time_embedding.linear_1.weight")
        return Conversion(convert_diffusers_state(module, inside), "diffusers names", unread)
    own = {key.removeprefix("net.") for key in module.state_dict()}
    anchor = next((a for a in MONAI_ANCHORS if a in own and _has(state, a)), None)
    inside, unread = split_prefix(state, anchor) if anchor else (dict(state), [])
    return Conversion(convert_monai_generative(module, inside), "MONAI", unread)


def _with_format(
    converted: tuple[dict[str, Tensor], list[str]], name: str
) -> tuple[dict[str, Tensor], str, list[str]]:
    weights, unread = converted
    return weights, name, unread


def _has(state: Mapping[str, Tensor], anchor: str) -> bool:
    return any(key == anchor or key.endswith(f".{anchor}") for key in state)


def untouched_parts(module: nn.Module, weights: Mapping[str, Any]) -> list[str]:
    """Return the children of a module that have parameters and none among the weights.

    >>> from adbench.engine.checkpoints.formats import untouched_parts
    >>> from torch import nn
    >>> untouched_parts(nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()}), {})
    ['a']
    """
    covered = {key.partition(".")[0] for key in weights}
    return [
        name
        for name, part in module.named_children()
        if name not in covered and any(True for _ in part.parameters())
    ]


def require_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError where a weight is NaN or infinite.

    >>> import torch
    >>> from pathlib import Path
    >>> from adbench.engine.checkpoints.formats import require_finite
    >>> require_finite({"w": torch.ones(1)}, Path("x.pt"))
    """
    names = [key for key, value in weights.items() if not value.isfinite().all()]
    if names:
        raise CheckpointError(f"{path} holds {abbreviate(names, 'weights that are not finite')}")
