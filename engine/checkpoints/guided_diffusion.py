"""Weights of guided-diffusion's UNet and of those copied from it, under the names of our network.

guided-diffusion numbers its blocks in the order in which they run; MONAI's network names them by
resolution. Its attention computes queries, keys and values in one layer, either head by head (the
default) or all queries first. The embedding of time begins with the cosines, in AnoDDPM with the
sines.
Source: github.com/openai/guided-diffusion, names and shapes of the parameters of `UNetModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .conversion import Source, convert, split_prefix


@dataclass(frozen=True)
class GuidedDiffusionNames:
    """The names of one repository's copy of guided-diffusion's UNet.

    time: the two layers of the embedding of time.
    down, middle, up: the lists of blocks.
    embedding: of a residual block, the projection of the embedding.
    qkv: of an attention, the layer of queries, keys and values.
    downsample: of a downsampling by convolution, its layer.
    cosine_first: whether the embedding begins with the cosines.
    heads_first: whether `qkv` is ordered by heads first, then queries, keys and values.

    >>> GuidedDiffusionNames().down
    'input_blocks'
    """

    time: tuple[str, str] = ("time_embed.0", "time_embed.2")
    down: str = "input_blocks"
    middle: str = "middle_block"
    up: str = "output_blocks"
    embedding: str = "emb_layers.1"
    qkv: str = "qkv"
    downsample: str = "op"
    cosine_first: bool = True
    heads_first: bool = True


ANODDPM = GuidedDiffusionNames(
    time=("time_embedding.1", "time_embedding.3"), down="down", middle="middle", up="up",
    embedding="embed_layers.1", qkv="to_qkv", downsample="downsample", cosine_first=False,
)  # fmt: skip
"""AnoDDPM's copy, which DDAD took over."""


def convert_guided_diffusion(
    net: nn.Module, state: Mapping[str, Tensor], names: GuidedDiffusionNames | None = None
) -> dict[str, Tensor]:
    """Return the weights of guided-diffusion's UNet or encoder under the names of `net`, every one.

    net: of `build_unet` or `build_encoder`, with the arguments that the weights were trained with
    state: the weights, names as `UNetModel` or `EncoderUNetModel` has them, or all after one prefix
    names: of the copy of the UNet; guided-diffusion's own if None
    Raises CheckpointError that lists what is missing, unknown, or of another shape.

    >>> import torch
    >>> from adbench.engine.checkpoints.guided_diffusion import convert_guided_diffusion
    >>> from adbench.engine.checkpoints.reading import CheckpointError
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(1, 1, (8,), res_blocks=1, head_channels=8)
    >>> try:
    ...     convert_guided_diffusion(net, {"features.0.weight": torch.ones(1)})
    ... except CheckpointError as error:
    ...     print(error)
    these weights are of another network: none is named input_blocks.0.0.weight;
    theirs: features.0.weight
    """
    names = names or GuidedDiffusionNames()
    state, _ = split_prefix(state, f"{names.down}.0.0.weight")
    pairs = _module_pairs(net, names)
    sources: dict[str, Source] = {}
    for ours, (theirs, transform) in pairs.items():
        for kind in ("weight", "bias"):
            sources[f"{ours}.{kind}"] = (f"{theirs}.{kind}", transform)
    sources["pool.position"] = ("out.2.positional_embedding", None)
    own = net.state_dict()
    return convert(own, state, {key: value for key, value in sources.items() if key in own})


def swap_halves(value: Tensor) -> Tensor:
    """Return the layer after an embedding of time, for one that begins with the other half.

    value: its weight, (out, in), or its bias, which stays

    >>> import torch
    >>> from adbench.engine.checkpoints.guided_diffusion import swap_halves
    >>> swap_halves(torch.tensor([[1, 2, 3, 4]]))
    tensor([[3, 4, 1, 2]])
    """
    return torch.cat(value.chunk(2, 1)[::-1], 1) if value.ndim == 2 else value


def _module_pairs(net: Any, names: GuidedDiffusionNames) -> dict[str, Source]:
    """For each layer of our network, the name of theirs and what to do with its tensors."""
    swap = None if names.cosine_first else swap_halves
    pairs: dict[str, Source] = {
        "time_embed.0": (names.time[0], swap),
        "time_embed.2": (names.time[1], None),
        "conv_in.conv": (f"{names.down}.0.0", None),
        "out.0": ("out.0", None),
        "out.2.conv": ("out.2", None),
        "class_embedding": ("label_emb", None),
        "vector_embed.0": ("label_emb.0", None),
        "vector_embed.2": ("label_emb.2", None),
    }
    number = 1
    for i, block in enumerate(net.down_blocks):
        ours = f"down_blocks.{i}"
        for j, _ in enumerate(block.resnets):
            pairs |= _block_pairs(block, ours, j, f"{names.down}.{number}", names)
            number += 1
        if getattr(block, "downsampler", None) is not None:
            pairs |= _resampling_pairs(f"{ours}.downsampler", f"{names.down}.{number}.0", names)
            number += 1
    middle = net.middle_block
    pairs |= _residual_pairs("middle_block.resnet_1", f"{names.middle}.0", names)
    pairs |= _attention_pairs(
        middle.attention, "middle_block.attention", f"{names.middle}.1", names
    )
    pairs |= _residual_pairs("middle_block.resnet_2", f"{names.middle}.2", names)
    if not hasattr(net, "up_blocks"):  # an encoder with attention pooling
        pairs["norm.0"] = ("out.0", None)
        pairs["pool.qkv"] = ("out.2.qkv_proj", without_axes)
        pairs["pool.out"] = ("out.2.c_proj", without_axes)
        return pairs
    number = 0
    for i, block in enumerate(net.up_blocks):
        ours, attends = f"up_blocks.{i}", hasattr(block, "attentions")
        for j, _ in enumerate(block.resnets):
            pairs |= _block_pairs(block, ours, j, f"{names.up}.{number}", names)
            number += 1
        if getattr(block, "upsampler", None) is not None:
            theirs = f"{names.up}.{number - 1}.{1 + attends}"
            pairs |= _resampling_pairs(f"{ours}.upsampler", theirs, names)
    return pairs


def _block_pairs(
    block: Any, ours: str, j: int, theirs: str, names: GuidedDiffusionNames
) -> dict[str, Source]:
    pairs = _residual_pairs(f"{ours}.resnets.{j}", f"{theirs}.0", names)
    if hasattr(block, "attentions"):
        attention = block.attentions[j]
        pairs |= _attention_pairs(attention, f"{ours}.attentions.{j}", f"{theirs}.1", names)
    return pairs


def _residual_pairs(ours: str, theirs: str, names: GuidedDiffusionNames) -> dict[str, Source]:
    layers = {
        "norm1": "in_layers.0",
        "conv1.conv": "in_layers.2",
        "time_emb_proj": names.embedding,
        "norm2": "out_layers.0",
        "conv2.conv": "out_layers.3",
        "skip_connection.conv": "skip_connection",
    }
    return {f"{ours}.{own}": (f"{theirs}.{layer}", None) for own, layer in layers.items()}


def _resampling_pairs(ours: str, theirs: str, names: GuidedDiffusionNames) -> dict[str, Source]:
    """Of a residual block that resamples, or of a convolution; the network has one of them."""
    pairs = _residual_pairs(ours, theirs, names)
    pairs[f"{ours}.op.conv"] = (f"{theirs}.{names.downsample}", None)
    pairs[f"{ours}.postconv.conv"] = (f"{theirs}.conv", None)
    return pairs


def _attention_pairs(
    attention: Any, ours: str, theirs: str, names: GuidedDiffusionNames
) -> dict[str, Source]:
    pairs: dict[str, Source] = {
        f"{ours}.norm": (f"{theirs}.norm", None),
        f"{ours}.attn.out_proj": (f"{theirs}.proj_out", without_axes),
    }
    heads = attention.attn.num_heads if names.heads_first else 1
    for i, name in enumerate(("to_q", "to_k", "to_v")):
        select = partial(_select_projection, index=i, heads=heads)
        pairs[f"{ours}.attn.{name}"] = (f"{theirs}.{names.qkv}", select)
    return pairs


def _select_projection(value: Tensor, *, index: int, heads: int) -> Tensor:
    """Queries, keys or values, (C, C) or (C,), of all three, (3 C, C, 1...) or (3 C,)."""
    value = without_axes(value)
    return value.unflatten(0, (heads, 3, -1))[:, index].flatten(0, 1)


def without_axes(value: Tensor) -> Tensor:
    """Return a convolution with a kernel of 1 as the linear layer that it is, (out, in).

    >>> from adbench.engine.checkpoints.guided_diffusion import without_axes
    >>> without_axes(torch.ones(2, 3, 1, 1)).shape
    torch.Size([2, 3])
    """
    return value.flatten(2).squeeze(2) if value.ndim > 2 else value
