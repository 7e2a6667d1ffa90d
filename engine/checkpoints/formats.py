"""The formats of checkpoints that are recognised, and the conversion of each to our names.

The format is told by the names of the weights: guided-diffusion's UNet and its copies, MONAI's and
monai-generative's networks, and folders of diffusers. What cannot be told from names (the order
within an attention) is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .diffusers_folder import convert_diffusers
from .guided_diffusion import ANODDPM, GuidedDiffusionNames, convert_guided_diffusion
from .monai_generative import convert_monai_generative
from .reading import CheckpointError, abbreviate, read_checkpoint, select_state

AVERAGED = ("ema", "ema_state_dict")
"""Keys of averaged weights, which come before all others: the authors of AnoDDPM judge them."""


def convert_file(
    net: nn.Module, path: Path, *, part: str | None = None, heads_first: bool = True
) -> tuple[dict[str, Tensor], str]:
    """Return the weights in a file or folder under the names of a network, and their format.

    net: with the architecture that was trained
    path: a checkpoint file, or a folder of diffusers
    part: the key of the state dict in the file; the averaged weights if there are any
    heads_first: the order of guided-diffusion's attention, as its `use_new_attention_order` not set
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
    ...     weights, name = convert_file(net, path)
    >>> name, weights.keys() == net.state_dict().keys()
    ('MONAI', True)
    """
    if path.is_dir():
        return convert_diffusers(net, path), "diffusers"
    content = read_checkpoint(path)
    if part is None:
        part = next((name for name in AVERAGED if isinstance(content.get(name), Mapping)), None)
    state = select_state(content, part)
    if any(key.endswith("input_blocks.0.0.weight") for key in state):
        names = GuidedDiffusionNames(heads_first=heads_first)
        return convert_guided_diffusion(net, state, names), "guided-diffusion"
    if any(key.endswith("time_embedding.1.weight") for key in state) and any(
        key.endswith("down.0.0.weight") for key in state
    ):
        return convert_guided_diffusion(net, state, ANODDPM), "AnoDDPM"
    return convert_monai_generative(net, state), "MONAI"


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
