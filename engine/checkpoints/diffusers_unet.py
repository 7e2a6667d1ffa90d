"""diffusers' UNet2DModel: its configuration and its weights' names, to and from our UNet.

Both follow one design, so that the names differ by a few parts. A network with another computation
(another activation, Fourier features of time) is refused by its configuration; all that our
`build_unet` takes is read from it.
Source: huggingface.co/docs/diffusers, `UNet2DModel`, names and shapes of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .conversion import Source, convert, split_prefix
from .diffusers_folder import read_json, read_weights, require_equal
from .guided_diffusion import swap_halves
from .reading import CheckpointError

EXPECTED = {
    "_class_name": "UNet2DModel", "act_fn": ("silu", "swish"), "time_embedding_type": "positional",
    "resnet_time_scale_shift": ("default", "scale_shift"), "center_input_sample": False,
    "freq_shift": 0, "mid_block_scale_factor": 1, "downsample_padding": 1, "add_attention": True,
    "class_embed_type": None, "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"), "mid_block_type": "UNetMidBlock2D",
}  # fmt: skip
"""What of a configuration our network computes; a key that is absent has the first value."""

DEFAULT_CONFIG: dict[str, Any] = {
    "freq_shift": 0, "flip_sin_to_cos": True, "downsample_padding": 1, "in_channels": 3,
    "out_channels": 3, "layers_per_block": 2, "attention_head_dim": 8, "norm_num_groups": 32,
    "norm_eps": 1e-5, "resnet_time_scale_shift": "default", "downsample_type": "conv",
    "upsample_type": "conv",
}  # fmt: skip
"""diffusers' own defaults of keys that a configuration may lack."""

BLOCKS = {
    "DownBlock2D": (False, "conv"), "ResnetDownsampleBlock2D": (False, "resnet"),
    "AttnDownBlock2D": (True, ""), "UpBlock2D": (False, "conv"),
    "ResnetUpsampleBlock2D": (False, "resnet"), "AttnUpBlock2D": (True, ""),
}  # fmt: skip
"""Of each kind of block, whether it attends and how it resamples; "" as the configuration says."""


def read_diffusers_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a UNet2DModel and return it, checked.

    Raises CheckpointError where it is none, or one that our network does not compute.

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.engine.checkpoints.diffusers_unet import read_diffusers_config
    >>> config = {"_class_name": "UNet2DModel", "block_out_channels": [8],
    ...     "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text(json.dumps(config))
    ...     read_diffusers_config(Path(folder))["flip_sin_to_cos"]  # a default of diffusers
    True
    """
    config = DEFAULT_CONFIG | read_json(folder / "config.json")
    require_equal(folder, config, EXPECTED)
    wrong = [f"no {key}" for key in ("block_out_channels", "down_block_types", "up_block_types")
        if not isinstance(config.get(key), list)]  # fmt: skip
    if not wrong:
        blocks = [*config["down_block_types"], *config["up_block_types"]]
        wrong += [f"block {name}" for name in blocks if name not in BLOCKS]
    if not wrong:
        if _attends(config, "down") != _attends(config, "up")[::-1]:
            wrong.append("attention at other resolutions on the way up than on the way down")
        if len(_resampling(config)) > 1:
            wrong.append("some resolutions resampled by convolutions, others in residual blocks")
        attention_groups = config.get("attn_norm_num_groups")
        scaled = config["resnet_time_scale_shift"] == "scale_shift"
        if attention_groups != config["norm_num_groups"] and (attention_groups or scaled):
            wrong.append(f"attn_norm_num_groups={attention_groups!r}, not that of all other norms")
        if config.get("time_embedding_dim") not in (None, 4 * config["block_out_channels"][0]):
            wrong.append(f"time_embedding_dim={config['time_embedding_dim']!r}")
    if wrong:
        raise CheckpointError(f"{folder} is another network: {', '.join(wrong)}")
    return config


def unet_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `build_unet` for a configuration of `read_diffusers_config`.

    >>> from adbench.engine.checkpoints.diffusers_unet import DEFAULT_CONFIG, unet_arguments
    >>> config = DEFAULT_CONFIG | {"block_out_channels": [8, 16], "layers_per_block": 1,
    ...     "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    ...     "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
    >>> unet_arguments(config)["attention"], unet_arguments(config)["updown"]
    ([False, True], False)
    """
    widths = list(config["block_out_channels"])
    head = config["attention_head_dim"]
    return {
        "channels": config["in_channels"], "out_channels": config["out_channels"],
        "widths": widths, "res_blocks": config["layers_per_block"],
        "attention": _attends(config, "down"), "head_channels": [head or w for w in widths],
        "groups": config["norm_num_groups"], "eps": config["norm_eps"],
        "updown": _resampling(config) == {"resnet"},
        "scale_shift": config["resnet_time_scale_shift"] == "scale_shift",
        "labels": config.get("num_class_embeds") or 0,
    }  # fmt: skip


def convert_diffusers(net: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Return the weights of a UNet2DModel's folder under the names of `net`, every one.

    net: of `build_unet`, built with `unet_arguments` of the folder's configuration
    folder: with config.json and diffusion_pytorch_model.safetensors (or .bin)
    Raises CheckpointError that lists what is missing, left over, or of another shape.

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from adbench.engine.checkpoints.diffusers_export import export_unet
    >>> from adbench.engine.checkpoints.diffusers_unet import convert_diffusers
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(2, 1, (8,), res_blocks=1, head_channels=8)
    >>> config, weights = export_unet(Denoiser(net, linear_schedule()), (8, 8))
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text(json.dumps(config))
    ...     torch.save(weights, Path(folder, "diffusion_pytorch_model.bin"))
    ...     restored = convert_diffusers(net, Path(folder))
    >>> torch.equal(restored["conv_in.conv.weight"], net.state_dict()["conv_in.conv.weight"])
    True
    """
    config = read_diffusers_config(folder)
    return convert_diffusers_state(net, read_weights(folder), config["flip_sin_to_cos"])


def convert_diffusers_state(
    net: nn.Module, state: Mapping[str, Tensor], cosine_first: bool = True
) -> dict[str, Tensor]:
    """Return the weights of a UNet2DModel under the names of `net`, every one.

    cosine_first: whether the embedding of time begins with the cosines, `flip_sin_to_cos`
    Raises CheckpointError as `convert_diffusers`.

    >>> from adbench.engine.checkpoints.diffusers_unet import (
    ...     convert_diffusers_state, diffusers_name)
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(2, 1, (8,), res_blocks=1, head_channels=8)
    >>> own = net.state_dict()
    >>> state = {diffusers_name(key): value for key, value in own.items()}
    >>> convert_diffusers_state(net, state).keys() == own.keys()
    True
    """
    state, _ = split_prefix(state, "time_embedding.linear_1.weight")
    own, sources = net.state_dict(), dict[str, Source]()
    for key in own:
        theirs = diffusers_name(key)
        swapped = theirs == "time_embedding.linear_1.weight" and not cosine_first
        sources[key] = theirs, swap_halves if swapped else None
    return convert(own, state, sources)


RENAMED = (
    (".conv1.conv.", ".conv1."), (".conv2.conv.", ".conv2."),
    (".skip_connection.conv.", ".conv_shortcut."), (".attn.out_proj.", ".to_out.0."),
    (".attn.to_", ".to_"), (".downsampler.op.conv.", ".downsamplers.0.conv."),
    (".upsampler.postconv.conv.", ".upsamplers.0.conv."),
    (".downsampler.", ".downsamplers.0."), (".upsampler.", ".upsamplers.0."),
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


def diffusers_name(key: str) -> str:
    """Return the name of one of our UNet's weights in a UNet2DModel.

    >>> from adbench.engine.checkpoints.diffusers_unet import diffusers_name
    >>> diffusers_name("middle_block.attention.attn.to_q.weight")
    'mid_block.attentions.0.to_q.weight'
    """
    for ours, theirs in RENAMED_STARTS.items():
        if key.startswith(ours):
            key = theirs + key.removeprefix(ours)
    for ours, theirs in RENAMED:
        key = key.replace(ours, theirs)
    return key.replace(".norm.", ".group_norm.") if "attentions" in key else key


def _attends(config: Mapping[str, Any], way: str) -> list[bool]:
    return [BLOCKS[name][0] for name in config[f"{way}_block_types"]]


def _resampling(config: Mapping[str, Any]) -> set[str]:
    """How the network resamples; both kinds are there only in one that ours is not."""
    return {
        BLOCKS[name][1] or config[f"{way}sample_type"]
        for way in ("down", "up")
        for name in config[f"{way}_block_types"][:-1]
    }
