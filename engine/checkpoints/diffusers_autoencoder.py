"""diffusers' AutoencoderKL and VQModel: configuration and weights' names, to and from our codecs.

Both libraries follow one design. Theirs has two residual blocks and an attention in the middle and
one residual block more at each resolution of the decoder: where ours lacks one, the one that is
written adds nothing, so that outputs are equal to the bit.

An AutoencoderKL computes the mean and the log-variance of a code by one layer from both halves of
the encoder's last; ours by one layer of each. The mean, all that inference needs, is kept exactly:
the two layers are multiplied out, unless they do not mix the halves.
Source: huggingface.co/docs/diffusers, names and shapes of the parameters of both classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .conversion import Source, convert
from .diffusers_folder import read_json, read_weights, require_equal
from .reading import CheckpointError

EXPECTED = {
    "_class_name": ("AutoencoderKL", "VQModel"), "act_fn": ("silu", "swish"), "norm_type": "group",
    "latents_mean": None, "latents_std": None,
}  # fmt: skip
DEFAULT_CONFIG: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "norm_num_groups": 32,
    "scaling_factor": 0.18215, "shift_factor": None, "num_vq_embeddings": 256,
    "vq_embed_dim": None, "mid_block_add_attention": True,
}  # fmt: skip
DEFAULT_LATENT = {"AutoencoderKL": 4, "VQModel": 3}
DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}
"""Whether each kind of block attends."""


def read_autoencoder_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of an AutoencoderKL or a VQModel and return it, checked.

    Raises CheckpointError where it is none, or one that our codecs do not compute.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.engine.checkpoints.diffusers_autoencoder import read_autoencoder_config
    >>> config = {"_class_name": "VQModel", "block_out_channels": [4], "in_channels": 1,
    ...     "out_channels": 1, "down_block_types": ["DownEncoderBlock2D"],
    ...     "up_block_types": ["UpDecoderBlock2D"]}
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text(json.dumps(config))
    ...     read_autoencoder_config(Path(folder))["latent_channels"]  # a default of diffusers
    3
    """
    config = DEFAULT_CONFIG | read_json(folder / "config.json")
    require_equal(folder, config, EXPECTED)
    lists = ("block_out_channels", "down_block_types", "up_block_types")
    wrong = [f"no {key}" for key in lists if not isinstance(config.get(key), list)]
    if "_class_name" not in config:
        wrong.append("no _class_name")
    if not wrong:
        wrong += [f"block {name}" for name in config["down_block_types"] if name not in DOWN]
        wrong += [f"block {name}" for name in config["up_block_types"] if name not in UP]
    if not wrong:
        down = [DOWN[name] for name in config["down_block_types"]]
        if down != [UP[name] for name in config["up_block_types"]][::-1]:
            wrong.append("attention at other resolutions in the decoder than in the encoder")
    if config["in_channels"] != config["out_channels"]:
        wrong.append(f"{config['in_channels']} channels in and {config['out_channels']} out")
    if wrong:
        raise CheckpointError(f"{folder} is another network: {', '.join(wrong)}")
    config.setdefault("latent_channels", DEFAULT_LATENT[config["_class_name"]])
    return config


def codec_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `KL` or `VQGAN`, besides the shape, for a configuration.

    >>> from adbench.engine.checkpoints.diffusers_autoencoder import DEFAULT_CONFIG
    >>> from adbench.engine.checkpoints.diffusers_autoencoder import codec_arguments
    >>> config = DEFAULT_CONFIG | {"_class_name": "AutoencoderKL", "latent_channels": 4,
    ...     "block_out_channels": [8, 16], "down_block_types": ["DownEncoderBlock2D"] * 2}
    >>> codec_arguments(config)["decoder_res_blocks"]
    2
    """
    layers = config["layers_per_block"]
    arguments = {
        "latent_channels": config["latent_channels"], "widths": list(config["block_out_channels"]),
        "res_blocks": layers, "decoder_res_blocks": layers + 1, "middle": True,
        "attention": [DOWN[name] for name in config["down_block_types"]],
        "groups": config["norm_num_groups"],
    }  # fmt: skip
    if config["_class_name"] == "AutoencoderKL":
        arguments["activation"] = True
    else:
        arguments["hidden_channels"] = config["latent_channels"]
        arguments["latent_channels"] = config["vq_embed_dim"] or config["latent_channels"]
        arguments["codes"] = config["num_vq_embeddings"]
    return arguments


def convert_autoencoder(codec: nn.Module, folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights in a folder under the names of a codec, and what is not among them.

    The codec's scale and centre are the folder's scaling and shift factor.

    codec: a `KL` or `VQGAN` with `codec_arguments` of the folder's configuration
    Raises CheckpointError that lists what is missing, left over, or of another shape.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.engine.checkpoints.diffusers_autoencoder import convert_autoencoder
    >>> from adbench.engine.checkpoints.diffusers_export import export_codec
    >>> from adbench.engine.codecs.autoencoder import VQGAN
    >>> codec = VQGAN((1, 8, 8), widths=(4, 8), res_blocks=1, decoder_res_blocks=2, codes=16)
    >>> config, weights = export_codec(codec)
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text(json.dumps(config))
    ...     torch.save(weights, Path(folder, "diffusion_pytorch_model.bin"))
    ...     restored, unread = convert_autoencoder(codec, Path(folder))
    >>> torch.equal(restored["codebook.codes"], codec.codebook.codes), unread
    (True, [])
    """
    config, state, unread = read_autoencoder_config(folder), read_weights(folder), list[str]()
    state = {_current_name(name): value for name, value in state.items()}
    if not config["mid_block_add_attention"]:
        for way in ("encoder", "decoder"):
            width = config["block_out_channels"][-1]
            state |= _no_attention(f"{way}.mid_block.attentions.0", width)
    latent = config["latent_channels"]
    _fill_identity(state, "post_quant_conv", latent)
    own = {key: value for key, value in codec.state_dict().items()
        if key.startswith("net.") or key == "codebook.codes"}  # fmt: skip
    sources = autoencoder_sources(codec, config["layers_per_block"])
    if config["_class_name"] == "AutoencoderKL":
        _fill_identity(state, "quant_conv", 2 * latent)
        if _split_moments(state, latent):
            unread.append("the encoder's log-variance, which only training draws from")
    weights = convert(own, state, sources)
    if "codebook.codes" in weights:
        weights["codebook.sums"] = weights["codebook.codes"].clone()
        weights["codebook.sizes"] = torch.ones(len(weights["codebook.codes"]))
    weights["scale"] = torch.tensor([float(config["scaling_factor"])])
    weights["centre"] = torch.tensor([float(config["shift_factor"] or 0.0)])
    return weights, unread


def autoencoder_sources(codec: Any, layers: int) -> dict[str, Source]:
    """Return for each weight of a codec its name in an AutoencoderKL or VQModel.

    An AutoencoderKL's last layers are split by halves, under names that end in .mean and .variance.

    layers: residual blocks at each resolution of the encoder

    >>> from adbench.engine.checkpoints.diffusers_autoencoder import autoencoder_sources
    >>> from adbench.engine.codecs.autoencoder import VQGAN
    >>> codec = VQGAN((1, 8, 8), widths=(4,), res_blocks=1, decoder_res_blocks=2, codes=16)
    >>> autoencoder_sources(codec, 1)["codebook.codes"]
    ('quantize.embedding.weight', None)
    """
    names = dict[str, str]()
    for way in ("encoder", "decoder"):
        blocks = codec.net.get_submodule(way).get_submodule("blocks")
        layout = block_names(way, codec, layers)
        for block, (index, part) in zip(layout, blocks.named_children(), strict=True):
            for rest in part.state_dict():
                names[f"net.{way}.blocks.{index}.{rest}"] = f"{way}.{block}.{_layer_name(rest)}"
    last = f"net.encoder.blocks.{len(block_names('encoder', codec, layers)) - 1}.conv"
    for kind in ("weight", "bias"):
        if hasattr(codec, "codebook"):
            names[f"net.quant.{kind}"] = f"quant_conv.{kind}"
            names[f"net.post.{kind}"] = f"post_quant_conv.{kind}"
        else:
            names[f"{last}.{kind}"] = f"encoder.conv_out.half.{kind}"
            names[f"net.quant_conv_mu.conv.{kind}"] = f"quant_conv.mean.{kind}"
            names[f"net.quant_conv_log_sigma.conv.{kind}"] = f"quant_conv.variance.{kind}"
            names[f"net.post_quant_conv.conv.{kind}"] = f"post_quant_conv.{kind}"
    if hasattr(codec, "codebook"):
        names["codebook.codes"] = "quantize.embedding.weight"
    return {ours: (theirs, None) for ours, theirs in names.items()}


def block_names(way: str, codec: Any, layers: int) -> list[str]:
    """Return diffusers' names of the blocks of a codec's encoder or decoder, in their order.

    >>> from types import SimpleNamespace
    >>> from adbench.engine.checkpoints.diffusers_autoencoder import block_names
    >>> codec = SimpleNamespace(attention=(False,), middle=False, decoder_res_blocks=2)
    >>> block_names("encoder", codec, layers=1)
    ['conv_in', 'down_blocks.0.resnets.0', 'conv_norm_out', 'conv_out']
    """
    attention, middle = list(codec.attention), codec.middle
    count = layers if way == "encoder" else codec.decoder_res_blocks
    names = ["conv_in"]
    centre = [f"mid_block.{name}" for name in ("resnets.0", "attentions.0", "resnets.1")]
    names += centre if middle and way == "decoder" else []
    side, resampling = ("down", "downsamplers.0") if way == "encoder" else ("up", "upsamplers.0")
    for i, attends in enumerate(attention if way == "encoder" else attention[::-1]):
        for j in range(count):
            names.append(f"{side}_blocks.{i}.resnets.{j}")
            names += [f"{side}_blocks.{i}.attentions.{j}"] if attends else []
        names += [f"{side}_blocks.{i}.{resampling}"] if i < len(attention) - 1 else []
    names += centre if middle and way == "encoder" else []
    return [*names, "conv_norm_out", "conv_out"]


def added_blocks(codec: Any, layers: int) -> dict[str, Tensor]:
    """Return the weights of blocks that diffusers has and a codec lacks, which add nothing.

    layers: residual blocks at each resolution of the encoder; the decoder has one more

    >>> from types import SimpleNamespace
    >>> from adbench.engine.checkpoints.diffusers_autoencoder import added_blocks
    >>> codec = SimpleNamespace(widths=(4,), attention=(False,), middle=False, decoder_res_blocks=2)
    >>> sorted({name.partition(".resnets")[0] for name in added_blocks(codec, layers=1)})
    ['decoder.mid_block', 'encoder.mid_block']
    """
    widths, state = list(codec.widths), dict[str, Tensor]()
    for way in ("encoder", "decoder"):
        if not codec.middle:
            for j in range(2):
                state |= _no_residual(f"{way}.mid_block.resnets.{j}", widths[-1])
    for i, (width, attends) in enumerate(zip(widths[::-1], codec.attention[::-1], strict=True)):
        for j in range(codec.decoder_res_blocks, layers + 1):
            state |= _no_residual(f"decoder.up_blocks.{i}.resnets.{j}", width)
            if attends:
                state |= _no_attention(f"decoder.up_blocks.{i}.attentions.{j}", width)
    return state


def join_moments(state: dict[str, Tensor]) -> None:
    """Put an AutoencoderKL's last layers together, from names that end in .mean and .variance.

    >>> from adbench.engine.checkpoints.diffusers_autoencoder import join_moments
    >>> parts, one = ("mean", "variance"), torch.ones(2, 2, 1, 1)
    >>> state = {f"quant_conv.{part}.weight": one for part in parts}
    >>> state |= {f"quant_conv.{part}.bias": torch.ones(2) for part in parts}
    >>> state |= {f"encoder.conv_out.half.{kind}": torch.ones(2) for kind in ("weight", "bias")}
    >>> join_moments(state)
    >>> state["quant_conv.weight"][:, :, 0, 0]
    tensor([[1., 1., 0., 0.],
            [1., 1., 0., 0.],
            [0., 0., 1., 1.],
            [0., 0., 1., 1.]])
    """
    mean, variance = (state.pop(f"quant_conv.{part}.weight") for part in ("mean", "variance"))
    state["quant_conv.weight"] = torch.block_diag(
        mean.flatten(1), variance.flatten(1)
    )[..., None, None]  # fmt: skip
    biases = [state.pop(f"quant_conv.{part}.bias") for part in ("mean", "variance")]
    state["quant_conv.bias"] = torch.cat(biases)
    for kind in ("weight", "bias"):
        half = state.pop(f"encoder.conv_out.half.{kind}")
        state[f"encoder.conv_out.{kind}"] = torch.cat([half, half])


def _split_moments(state: dict[str, Tensor], latent: int) -> bool:
    """Undo `join_moments`; where ours has no such layers, keep the mean and return True."""
    keys = [f"{name}.{kind}" for name in ("encoder.conv_out", "quant_conv")
        for kind in ("weight", "bias")]  # fmt: skip
    rows = [len(state[key]) if key in state else 0 for key in keys]
    if rows != [2 * latent] * 4 or state["quant_conv.weight"][0].numel() != 2 * latent:
        return False  # a network of other sizes, which the conversion refuses with its names
    conv, conv_bias, mixing, bias = (state.pop(key) for key in keys)
    matrix = mixing.flatten(1)  # (2 latent, 2 latent)
    mixed = bool(matrix[:latent, latent:].any() or matrix[latent:, :latent].any())
    folded = mixed or not all(torch.equal(*part.chunk(2)) for part in (conv, conv_bias))
    if not folded:
        half, half_bias = conv[:latent], conv_bias[:latent]
        mean, variance = matrix[:latent, :latent], matrix[latent:, latent:]
        mean_bias, variance_bias = bias.chunk(2)
    else:
        wide = matrix[:latent].double()
        half = torch.einsum("om,m...->o...", wide, conv.double()).float()
        half_bias = (wide @ conv_bias.double() + bias[:latent]).float()
        mean, variance = torch.eye(latent), torch.zeros(latent, latent)
        mean_bias = variance_bias = torch.zeros(latent)
    state |= {
        "encoder.conv_out.half.weight": half, "encoder.conv_out.half.bias": half_bias,
        "quant_conv.mean.weight": mean[..., None, None], "quant_conv.mean.bias": mean_bias,
        "quant_conv.variance.weight": variance[..., None, None],
        "quant_conv.variance.bias": variance_bias,
    }  # fmt: skip
    return folded


def _fill_identity(state: dict[str, Tensor], name: str, channels: int) -> None:
    """The layer that a configuration leaves out (`use_quant_conv` off) as one that does nothing."""
    if f"{name}.weight" not in state:
        state[f"{name}.weight"] = torch.eye(channels)[..., None, None]
        state[f"{name}.bias"] = torch.zeros(channels)


def _no_residual(name: str, width: int) -> dict[str, Tensor]:
    state = {f"{name}.{norm}.weight": torch.ones(width) for norm in ("norm1", "norm2")}
    state |= {f"{name}.{norm}.bias": torch.zeros(width) for norm in ("norm1", "norm2")}
    for conv in ("conv1", "conv2"):
        state[f"{name}.{conv}.weight"] = torch.zeros(width, width, 3, 3)
        state[f"{name}.{conv}.bias"] = torch.zeros(width)
    return state


def _no_attention(name: str, width: int) -> dict[str, Tensor]:
    state = {f"{name}.group_norm.weight": torch.ones(width),
        f"{name}.group_norm.bias": torch.zeros(width)}  # fmt: skip
    for layer in ("to_q", "to_k", "to_v", "to_out.0"):
        state[f"{name}.{layer}.weight"] = torch.zeros(width, width)
        state[f"{name}.{layer}.bias"] = torch.zeros(width)
    return state


def _layer_name(rest: str) -> str:
    """A weight's name within a block: theirs, of ours."""
    pairs = (
        ("nin_shortcut.conv.", "conv_shortcut."), ("postconv.conv.", "conv."),
        ("conv1.conv.", "conv1."), ("conv2.conv.", "conv2."), ("conv.conv.", "conv."),
        ("attn.out_proj.", "to_out.0."), ("attn.", ""),
    )  # fmt: skip
    for ours, theirs in pairs:
        if rest.startswith(ours):
            return theirs + rest.removeprefix(ours)
    if rest.startswith("norm."):  # of an attention; residual blocks have norm1 and norm2
        return f"group_{rest}"
    return rest.removeprefix("conv.")  # the first and the last convolution


def _current_name(name: str) -> str:
    """The name of a weight since diffusers 0.18; files of before have others for attention."""
    old: Sequence[tuple[str, str]] = (
        (".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."),
        (".proj_attn.", ".to_out.0."),
    )  # fmt: skip
    for before, after in old:
        name = name.replace(before, after) if ".attentions." in name else name
    return name
