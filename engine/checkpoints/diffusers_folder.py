"""Weights of diffusers' UNet2DModel, a folder with config.json, under the names of our network.

Both follow one design, so that the names differ by a few parts. A network with another computation
(another activation, time that scales and shifts, upsampling by other means) is refused by its
configuration, and the arguments of ours that match one are read from it.
Source: huggingface.co/docs/diffusers, `UNet2DModel`, names and shapes of its parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .guided_diffusion import Transform, convert, swap_halves
from .reading import CheckpointError, read_checkpoint

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
EXPECTED = {
    "_class_name": "UNet2DModel", "act_fn": "silu", "time_embedding_type": "positional",
    "resnet_time_scale_shift": "default", "center_input_sample": False, "freq_shift": 0,
    "mid_block_scale_factor": 1, "downsample_padding": 1, "add_attention": True,
    "class_embed_type": None, "num_class_embeds": None, "attn_norm_num_groups": None,
    "downsample_type": "conv", "upsample_type": "conv",
}  # fmt: skip
"""What of a configuration our network computes; a key that is absent has this value."""

DEFAULT_CONFIG = {"freq_shift": 0, "flip_sin_to_cos": True, "downsample_padding": 1}
BLOCKS = {"DownBlock2D": False, "UpBlock2D": False, "AttnDownBlock2D": True, "AttnUpBlock2D": True}


def read_diffusers_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a UNet2DModel and return it, checked.

    Raises CheckpointError where it is none, or one that our network does not compute.

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.engine.checkpoints.diffusers_folder import read_diffusers_config
    >>> config = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text(json.dumps(config))
    ...     read_diffusers_config(Path(folder))["flip_sin_to_cos"]  # a default of diffusers
    True
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if not isinstance(config, dict):
            raise TypeError("it is no object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder} holds no readable config.json: {error}") from error
    config = DEFAULT_CONFIG | config
    wrong = [
        f"{key}={config[key]!r} (here {value!r})"
        for key, value in EXPECTED.items()
        if key in config and config[key] != value
    ]
    blocks = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    wrong += [f"block {name}" for name in blocks if name not in BLOCKS]
    if not wrong and _attends(config, "down") != _attends(config, "up")[::-1]:
        wrong.append("attention at other resolutions on the way up than on the way down")
    if wrong:
        raise CheckpointError(f"{folder} is another network: {', '.join(wrong)}")
    return config


def unet_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `build_unet` for a configuration of `read_diffusers_config`.

    >>> from adbench.engine.checkpoints.diffusers_folder import unet_arguments
    >>> config = {"block_out_channels": [8, 16], "layers_per_block": 1, "in_channels": 1,
    ...     "out_channels": 1, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    ...     "norm_num_groups": 4, "norm_eps": 1e-5, "attention_head_dim": 8}
    >>> unet_arguments(config)["attention"]
    [False, True]
    """
    widths = list(config["block_out_channels"])
    head = config.get("attention_head_dim", 8)
    return {
        "channels": config["in_channels"], "out_channels": config["out_channels"],
        "widths": widths, "res_blocks": config["layers_per_block"],
        "attention": _attends(config, "down"), "head_channels": [head or w for w in widths],
        "groups": config.get("norm_num_groups", 32), "eps": config.get("norm_eps", 1e-5),
    }  # fmt: skip


def convert_diffusers(net: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Return the weights of a UNet2DModel's folder under the names of `net`, every one.

    net: of `build_unet`, built with `unet_arguments` of the folder's configuration
    folder: with config.json and diffusion_pytorch_model.safetensors (or .bin)
    Raises CheckpointError that lists what is missing, left over, or of another shape.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from diffusers.models.unets.unet_2d import UNet2DModel
    >>> from adbench.engine.checkpoints.diffusers_folder import (
    ...     convert_diffusers, read_diffusers_config, unet_arguments)
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> trained = UNet2DModel(in_channels=1, out_channels=1, block_out_channels=(8,),
    ...     down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4)
    >>> with TemporaryDirectory() as folder:
    ...     trained.save_pretrained(folder)
    ...     net = build_unet(2, **unet_arguments(read_diffusers_config(Path(folder))))
    ...     weights = convert_diffusers(net, Path(folder))
    >>> torch.equal(weights["conv_in.conv.weight"], trained.conv_in.weight)
    True
    """
    config = read_diffusers_config(folder)
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not files:
        raise CheckpointError(f"{folder} holds no {' or '.join(WEIGHTS)}")
    state = read_checkpoint(files[0])
    swap = None if config["flip_sin_to_cos"] else swap_halves
    own, sources = net.state_dict(), dict[str, tuple[str, Transform | None]]()
    for key in own:
        theirs = _their_name(key)
        sources[key] = theirs, swap if theirs == "time_embedding.linear_1.weight" else None
    return convert(own, state, sources)


RENAMED = (
    (".conv1.conv.", ".conv1."), (".conv2.conv.", ".conv2."),
    (".skip_connection.conv.", ".conv_shortcut."), (".attn.out_proj.", ".to_out.0."),
    (".attn.to_", ".to_"), (".downsampler.op.conv.", ".downsamplers.0.conv."),
    (".upsampler.postconv.conv.", ".upsamplers.0.conv."),
)  # fmt: skip
"""Parts of names: ours, and theirs."""

RENAMED_STARTS = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "conv_in.conv.": "conv_in.",
    "middle_block.resnet_1.": "mid_block.resnets.0.",
    "middle_block.resnet_2.": "mid_block.resnets.1.",
    "middle_block.attention.": "mid_block.attentions.0.",
    "out.0.": "conv_norm_out.",
    "out.2.conv.": "conv_out.",
}


def _their_name(key: str) -> str:
    for ours, theirs in RENAMED_STARTS.items():
        if key.startswith(ours):
            key = theirs + key.removeprefix(ours)
    for ours, theirs in RENAMED:
        key = key.replace(ours, theirs)
    return key.replace(".norm.", ".group_norm.") if "attentions" in key else key


def _attends(config: Mapping[str, Any], way: str) -> list[bool]:
    return [BLOCKS[name] for name in config[f"{way}_block_types"]]
