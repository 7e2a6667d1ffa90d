"""A method's networks as folders of diffusers: UNet2DModel, AutoencoderKL or VQModel, and the
scheduler.

What is written computes the same. A network that none of diffusers' classes is, is refused with
the reason.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ..codecs.autoencoder import KL, VQGAN
from ..codecs.codec import Codec
from ..diffusion.denoiser import Denoiser
from .diffusers_autoencoder import added_blocks, autoencoder_sources, join_moments
from .diffusers_unet import diffusers_name
from .reading import CheckpointError


class DiffusersNetwork(NamedTuple):
    """A network as diffusers has it.

    config: the content of config.json
    weights: by diffusers' names

    >>> from adbench.engine.checkpoints.diffusers_export import export_codec
    >>> from adbench.engine.codecs.autoencoder import VQGAN
    >>> codec = VQGAN((1, 8, 8), widths=(4, 8), res_blocks=1, decoder_res_blocks=2, codes=16)
    >>> network = export_codec(codec)
    >>> network.config["num_vq_embeddings"], network.weights["quantize.embedding.weight"].shape
    (16, torch.Size([16, 3]))
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]


def export_unet(denoiser: Denoiser, sides: tuple[int, ...]) -> DiffusersNetwork:
    """Return a denoiser's network as a UNet2DModel.

    sides: of the samples or codes that it takes
    Raises CheckpointError where it is none, with the reason.

    >>> from adbench.engine.checkpoints.diffusers_export import export_unet
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(2, 1, (8, 16), res_blocks=1, head_channels=8, attention=(False, True))
    >>> export_unet(Denoiser(net, linear_schedule()), (8, 8)).config["down_block_types"]
    ['DownBlock2D', 'AttnDownBlock2D']
    """
    net: Any = denoiser.net
    if not hasattr(net, "condition_names"):
        raise CheckpointError(
            f"this denoiser is a {type(net).__name__}: diffusers has UNet2DModel alone"
        )
    entry = net.conv_in.conv
    reasons = []
    if entry.weight.ndim != 4:
        reasons.append(f"it has {entry.weight.ndim - 2} axes, UNet2DModel has 2")
    if net.fold > 1:
        reasons.append(f"it sees {net.fold} pixels a side as channels (fold={net.fold})")
    if names := [name for name in net.condition_names if name != "label"]:
        reasons.append(f"it is conditioned on {' and '.join(names)}, UNet2DModel on a class alone")
    if not isinstance(net.out[0], nn.GroupNorm):
        reasons.append("it has no norm before its last convolution")
    attentions = [part for part in net.modules() if hasattr(part, "dim_head")]
    heads = {part.dim_head for part in attentions}
    single = all(part.num_heads == 1 for part in attentions)
    if len(heads) > 1 and not single:
        reasons.append(
            f"its attention has heads of {', '.join(map(str, sorted(heads)))} channels, "
            "UNet2DModel of one number"
        )
    if reasons:
        raise CheckpointError(f"this network is no UNet2DModel: {'; '.join(reasons)}")
    down, up = list(net.down_blocks), list(net.up_blocks)
    first = down[0].resnets[0]
    samplers = [block.downsampler for block in down[:-1]]
    updown, scaled = any(hasattr(s, "norm1") for s in samplers), bool(first.scale_shift)
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if updown else (
        "DownBlock2D", "UpBlock2D")  # fmt: skip
    config: dict[str, Any] = {
        "_class_name": "UNet2DModel", "sample_size": list(sides),
        "in_channels": entry.in_channels, "out_channels": net.out[2].conv.out_channels,
        "block_out_channels": [block.resnets[0].out_channels for block in down],
        "layers_per_block": len(down[0].resnets), "down_block_types": _blocks(down, "Down", plain),
        "up_block_types": _blocks(up, "Up", plain), "act_fn": "silu",
        "attention_head_dim": None if single else heads.pop(),
        "norm_num_groups": first.norm1.num_groups, "norm_eps": first.norm1.eps,
        "attn_norm_num_groups": first.norm1.num_groups if scaled else None,
        "resnet_time_scale_shift": "scale_shift" if scaled else "default",
        "downsample_type": "resnet" if updown else "conv",
        "upsample_type": "resnet" if updown else "conv", "add_attention": True,
        "flip_sin_to_cos": True, "freq_shift": 0, "time_embedding_type": "positional",
        "center_input_sample": False, "downsample_padding": 1, "mid_block_scale_factor": 1,
        "class_embed_type": None,
        "num_class_embeds": net.class_embedding.num_embeddings if net.condition_names else None,
    }  # fmt: skip
    return DiffusersNetwork(config, {diffusers_name(k): v for k, v in net.state_dict().items()})


def export_codec(codec: Codec) -> DiffusersNetwork:
    """Return a codec as an AutoencoderKL or a VQModel, with its scale.

    Raises CheckpointError where it is neither, with the reason.

    >>> from adbench.engine.checkpoints.diffusers_export import export_codec
    >>> from adbench.engine.codecs.autoencoder import VQGAN
    >>> codec = VQGAN((1, 8, 8), widths=(4, 8), res_blocks=1, decoder_res_blocks=2, codes=16)
    >>> config = export_codec(codec).config
    >>> config["_class_name"], config["block_out_channels"]
    ('VQModel', [4, 8])
    """
    if not isinstance(codec, KL | VQGAN):
        raise CheckpointError(
            f"this codec is a {type(codec).__name__}, whose network neither AutoencoderKL nor "
            "VQModel is"
        )
    if isinstance(codec, KL) and not codec.activation:
        raise CheckpointError(
            "this autoencoder is MONAI's, which has no activation before the last convolution of "
            "encoder and decoder, as AutoencoderKL has; trained with coder_activation=true it does"
        )
    if len(codec.shape) != 3:
        raise CheckpointError(
            f"this codec is of {len(codec.shape) - 1} axes, diffusers' are of images"
        )
    layers = max(codec.res_blocks, codec.decoder_res_blocks - 1)
    if layers != codec.res_blocks:
        raise CheckpointError(
            f"this codec has {codec.res_blocks} residual blocks at each resolution of its encoder "
            f"and {codec.decoder_res_blocks} of its decoder; diffusers' has one more there"
        )
    own = codec.state_dict()
    sources = autoencoder_sources(codec, layers)
    weights = {theirs: own[ours] for ours, (theirs, _) in sources.items()}
    weights |= {k: v.to(own["scale"].device) for k, v in added_blocks(codec, layers).items()}
    down = [f"{'Attn' * attends}DownEncoderBlock2D" for attends in codec.attention]
    up = [f"{'Attn' * attends}UpDecoderBlock2D" for attends in codec.attention[::-1]]
    config: dict[str, Any] = {
        "in_channels": codec.shape[0], "out_channels": codec.shape[0],
        "block_out_channels": list(codec.widths), "layers_per_block": layers,
        "down_block_types": down, "up_block_types": up, "act_fn": "silu",
        "norm_num_groups": codec.groups, "latent_channels": codec.latent[0],
        "sample_size": codec.shape[1], "mid_block_add_attention": codec.middle,
        "scaling_factor": codec.scale.item(),
    }  # fmt: skip
    centre = codec.centre.item()
    if isinstance(codec, KL):
        join_moments(weights)
        config = {"_class_name": "AutoencoderKL", **config, "force_upcast": False,
            "shift_factor": centre or None}  # fmt: skip
        return DiffusersNetwork(config, weights)
    if centre:
        raise CheckpointError(f"its codes are centred by {centre:g}; VQModel has no such factor")
    config["latent_channels"] = weights["post_quant_conv.weight"].shape[0]
    config |= {"_class_name": "VQModel", "norm_type": "group",
        "num_vq_embeddings": len(weights["quantize.embedding.weight"]),
        "vq_embed_dim": codec.latent[0]}  # fmt: skip
    return DiffusersNetwork(config, weights)


def network_range(method: Any) -> list[float]:
    """Return the range of the images that the first network of a method sees.

    diffusers does not write it; its pipelines have images in -1..1.

    >>> from types import SimpleNamespace
    >>> from adbench.engine.checkpoints.diffusers_export import network_range
    >>> from adbench.engine.transforms.resizing import ResizePad
    >>> network_range(SimpleNamespace(canvas=ResizePad((8, 8), None, low=0.0)))
    [0.0, 1.0]
    """
    codec: Any = getattr(method, "codec", None)
    if codec is not None:
        return list(getattr(codec, "network_range", None) or codec.range)
    return list(method.canvas.range)


def exportable(method: nn.Module) -> dict[str, nn.Module]:
    """Return the parts of a method that could be networks of diffusers.

    >>> from adbench.engine.checkpoints.diffusers_export import exportable
    >>> exportable(nn.Linear(1, 1))
    {}
    """
    children = dict(method.named_children())
    kinds = {"denoiser": Denoiser, "codec": Codec}
    return {name: children[name] for name in kinds if isinstance(children.get(name), kinds[name])}


def _blocks(blocks: list[Any], way: str, plain: tuple[str, str]) -> list[str]:
    name = plain[0] if way == "Down" else plain[1]
    return [f"Attn{way}Block2D" if hasattr(block, "attentions") else name for block in blocks]
