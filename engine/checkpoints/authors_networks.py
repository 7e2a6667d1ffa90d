"""Weights of networks that one repository has of its own, under the names of ours.

Each function converts one of them; the names stand in its docstring, with their source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .conversion import Source, Transform, convert, split_prefix
from .guided_diffusion import without_axes
from .reading import CheckpointError

Converted = tuple[dict[str, Tensor], list[str]]
"""The weights under our names, and the names of those that were not read."""


def convert_wavenet(net: nn.Module, state: Mapping[str, Tensor]) -> Converted:
    """Return the weights of the RF Challenge's WaveNet, and of its copy in ddpm-ood-signals.

    Names: input_projection, residual_layers.N.dilated_conv and .output_projection,
    skip_projection, output_projection. It has no input of time: ours is `blind` then.
    Source: github.com/RFChallenge/icassp2024rfchallenge, `Wave`.

    >>> from adbench.engine.checkpoints.authors_networks import convert_wavenet
    >>> from adbench.engine.networks.wavenet import WaveNet
    >>> state = {f"{name}.{kind}": getattr(part, kind) for name, part in {
    ...     "input_projection": nn.Conv1d(1, 4, 1)}.items() for kind in ("weight", "bias")}
    >>> try:
    ...     convert_wavenet(WaveNet(1, width=4, layers=1, cycle=1), state)
    ... except CheckpointError as error:
    ...     print(error)
    this WaveNet has no input of the noise level, and the method's has: build it with blind=true
    """
    state, unread = split_prefix(state, "input_projection.weight")
    pairs = {"entry": "input_projection", "skip": "skip_projection", "exit": "output_projection"}
    for i, _ in enumerate(net.get_submodule("blocks").children()):
        pairs[f"blocks.{i}.wide"] = f"residual_layers.{i}.dilated_conv"
        pairs[f"blocks.{i}.both"] = f"residual_layers.{i}.output_projection"
    if getattr(net, "time", None) is not None:
        raise CheckpointError(
            "this WaveNet has no input of the noise level, and the method's has: build it with "
            "blind=true"
        )
    return convert(net.state_dict(), state, _layers(pairs)), unread


def convert_plain_unet(net: nn.Module, state: Mapping[str, Tensor]) -> Converted:
    """Return the weights of DenoisingAE's UNet.

    Names: down_path.N.block.M, up_path.N.up, up_path.N.conv_block.block.M, last, where M counts
    padding, convolution, activation and norm, twice.
    Source: github.com/AntanasKascenas/DenoisingAE, `UNet` with padding.

    >>> import torch
    >>> from adbench.engine.checkpoints.authors_networks import convert_plain_unet
    >>> from adbench.engine.networks.plain_unet import PlainUNet
    >>> try:
    ...     convert_plain_unet(PlainUNet(1, 1, (4, 8)), {"features.0.weight": torch.ones(1)})
    ... except CheckpointError as error:
    ...     print(error)
    these weights are of another network: none is named down_path.0.block.1.weight; ...
    """
    state, unread = split_prefix(state, "down_path.0.block.1.weight")
    pairs = {"last": "last"}
    places = {"0.conv": 1, "2": 3, "3.conv": 5, "5": 7}
    for i, _ in enumerate(net.get_submodule("down").children()):
        pairs |= {f"down.{i}.{ours}": f"down_path.{i}.block.{m}" for ours, m in places.items()}
    for i, _ in enumerate(net.get_submodule("up").children()):
        pairs[f"grown.{i}"] = f"up_path.{i}.up"
        for ours, m in places.items():
            pairs[f"up.{i}.{ours}"] = f"up_path.{i}.conv_block.block.{m}"
    return convert(net.state_dict(), state, _layers(pairs)), unread


def convert_binary_autoencoder(net: nn.Module, state: Mapping[str, Tensor]) -> Converted:
    """Return the weights of BinaryLatentDiffusion's autoencoder, which Anomaly_berdiff took over.

    Names: encoder.blocks.N, generator.blocks.N (the first is the norm of `norm_first`),
    quantize.proj.0, quantize.embed; in a block norm1, conv1, norm2, conv2, conv_out, or norm, q,
    k, v, proj_out. Every residual block has a conv_out, which is used where widths differ; the head
    generator.logsigma is for another loss: neither is read where it is not used.
    Source: github.com/ZeWang95/BinaryLatentDiffusion, `BinaryAutoEncoder`.

    >>> import torch
    >>> from adbench.engine.checkpoints.authors_networks import convert_binary_autoencoder
    >>> names = ("quantize.proj.0.weight", "generator.blocks.0.weight")
    >>> state = dict.fromkeys(names, torch.ones(1, 1))
    >>> try:
    ...     convert_binary_autoencoder(nn.Module(), state)
    ... except CheckpointError as error:
    ...     print(error)
    this autoencoder has no norm before its decoder (norm_first off); ours has one
    """
    state, unread = split_prefix(state, "quantize.proj.0.weight")
    own, sources = net.state_dict(), dict[str, Source]()
    for key in own:
        sources[key] = _binary_source(key)
    used = {theirs for theirs, _ in sources.values()}
    unused = [name for name in state if name not in used
        and (".conv_out." in name or name.startswith("generator.logsigma."))]  # fmt: skip
    if "generator.blocks.0.weight" in state and state["generator.blocks.0.weight"].ndim > 1:
        raise CheckpointError(
            "this autoencoder has no norm before its decoder (norm_first off); ours has one"
        )
    used_state = {name: value for name, value in state.items() if name not in unused}
    return convert(own, used_state, sources), unread + unused


def convert_resnet(net: nn.Module, state: Mapping[str, Tensor]) -> Converted:
    """Return the weights of a residual network under the names of torchvision, timm and MONAI.

    Names: conv1, bn1, layer1.N.conv1 to bn3, layer1.N.downsample.0 and .1, fc.

    >>> import torch
    >>> from adbench.engine.checkpoints.authors_networks import convert_resnet
    >>> block = nn.ModuleDict({"conv1": nn.Conv1d(1, 1, 1)})
    >>> net = nn.ModuleDict({"layer1": nn.ModuleList([block])})
    >>> state = {f"encoder.{key}": value for key, value in net.state_dict().items()}
    >>> weights, unread = convert_resnet(net, state | {"head.weight": torch.ones(1)})
    >>> list(weights), unread
    (['layer1.0.conv1.weight', 'layer1.0.conv1.bias'], ['head.weight'])
    """
    state, unread = split_prefix(state, "layer1.0.conv1.weight")
    if "bn1.running_mean" in state and "bn1.running_mean" not in net.state_dict():
        raise CheckpointError(
            "this encoder normalises by statistics of batches, the method's groups of channels: "
            "build it with encoder_norm=batch"
        )
    own = net.state_dict()
    return convert(own, state, {key: (key, None) for key in own}), unread


def convert_signal_autoencoder(net: nn.Module, state: Mapping[str, Tensor]) -> Converted:
    """Return the weights of MONAI's AutoEncoder, the network of ddpm-ood-signals without noise.

    Names: encode.encode_N.conv, encode.encode_N.adn.A, decode.decode_N.conv.conv and .adn.A.

    >>> from adbench.engine.checkpoints.authors_networks import convert_signal_autoencoder
    >>> net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.ConvTranspose1d(2, 1, 1))
    >>> stages = {"0": "encode.encode_0.conv", "1": "decode.decode_0.conv.conv"}
    >>> state = {stages[key[0]] + key[1:]: value for key, value in net.state_dict().items()}
    >>> list(convert_signal_autoencoder(net, state)[0])
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    state, unread = split_prefix(state, "encode.encode_0.conv.weight")
    numbers = [int(name) for name, part in net.named_children() if any(True for _ in
        part.parameters())]  # fmt: skip
    convolutions = [n for n in numbers if isinstance(net.get_submodule(str(n)),
        nn.Conv1d | nn.ConvTranspose1d)]  # fmt: skip
    half, pairs = len(convolutions) // 2, dict[str, str]()
    for place, n in enumerate(convolutions):
        stage = f"encode.encode_{place}" if place < half else f"decode.decode_{place - half}.conv"
        pairs[str(n)] = f"{stage}.conv"
        if n + 2 in numbers:  # its activation, which has a slope to learn
            pairs[str(n + 2)] = f"{stage}.adn.A"
    return convert(net.state_dict(), state, _of(net, _layers(pairs))), unread


CONVERTERS: Mapping[str, tuple[str, Callable[[nn.Module, Mapping[str, Tensor]], Converted]]] = {
    "input_projection.weight": ("WaveNet", convert_wavenet),
    "down_path.0.block.1.weight": ("DenoisingAE", convert_plain_unet),
    "quantize.proj.0.weight": ("BinaryLatentDiffusion", convert_binary_autoencoder),
    "encode.encode_0.conv.weight": ("MONAI AutoEncoder", convert_signal_autoencoder),
}
"""The format and the conversion by a name that a state dict of the network has."""


def _layers(pairs: Mapping[str, str]) -> dict[str, Source]:
    return {
        f"{ours}.{kind}": (f"{theirs}.{kind}", None)
        for ours, theirs in pairs.items()
        for kind in ("weight", "bias")
    }


def _of(net: nn.Module, sources: Mapping[str, Source]) -> dict[str, Source]:
    own = net.state_dict()
    return {key: source for key, source in sources.items() if key in own}


def _binary_source(key: str) -> Source:
    """The name in BinaryLatentDiffusion of one of our autoencoder's weights."""
    fixed = {
        "bits.chance.weight": "quantize.proj.0.weight", "bits.chance.bias": "quantize.proj.0.bias",
        "bits.vectors": "quantize.embed.weight", "norm.weight": "generator.blocks.0.weight",
        "norm.bias": "generator.blocks.0.bias",
    }  # fmt: skip
    if key in fixed:
        return fixed[key], None
    way, _, number, rest = key.split(".", 3)
    block = (
        f"encoder.blocks.{number}" if way == "encoder" else f"generator.blocks.{int(number) + 1}"
    )
    parts: dict[str, tuple[str, Any]] = {
        "conv1.conv": ("conv1", None), "conv2.conv": ("conv2", None),
        "nin_shortcut.conv": ("conv_out", None), "conv.conv": ("conv", None),
        "postconv.conv": ("conv", None), "attn.out_proj": ("proj_out", without_axes),
        "attn.to_q": ("q", without_axes), "attn.to_k": ("k", without_axes),
        "attn.to_v": ("v", without_axes), "conv": ("", None),
    }  # fmt: skip
    layer, _, kind = rest.rpartition(".")
    name, transform = parts.get(layer, (layer, None))
    change: Transform | None = transform
    return ".".join(filter(None, (block, name, kind))), change
