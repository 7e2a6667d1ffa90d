"""The UNet of diffusion models for signals, images and volumes: MONAI's in 1, 2 and 3 dimensions.

MONAI's, because one class serves all dimensions, loads monai-generative's checkpoints, and has
exactly the parameters of the papers' networks; no other was meaningfully faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from .monai_unet import DiffusionUNet


def build_unet(
    ndim: int,
    channels: int,
    widths: Sequence[int],
    *,
    out_channels: int | None = None,
    res_blocks: int = 2,
    attention: Sequence[bool] = (),
    head_channels: int | Sequence[int] = 64,
    updown: bool = False,
    scale_shift: bool = False,
    dropout: float = 0.0,
    groups: int | None = None,
    eps: float = 1e-6,
    zero_attention: bool = False,
    out_norm: bool = True,
    fold: int = 1,
    image: int = 0,
    vector: int = 0,
    context: int = 0,
    labels: int = 0,
) -> DiffusionUNet:
    """Build a UNet (x (N, C, *S), timesteps (N,), *conditioning) -> (N, out, *S).

    The sides of S divide by `side_divisor`. Conditioning is passed in the order image, vector,
    context, label, as `monai_unet.DiffusionUNet` says.

    ndim, channels: of x
    widths: channels at each resolution
    out_channels: as many as of x if None; twice as many for a denoiser that learns its variance
    res_blocks: at each resolution
    attention: at which resolutions; the middle always attends
    head_channels: per head, one number or one per resolution
    updown: resample inside residual blocks (BigGAN), as guided-diffusion does; else by strided
        convolution
    scale_shift: time scales and shifts after the norm; else it is added before
    dropout: rate, in the residual blocks
    groups: of the norms, 32 or the most that divide every width if None
    eps: of the norms, 1e-5 in guided-diffusion and after it
    zero_attention: attention adds nothing before training, as in guided-diffusion
    out_norm: normalise before the last activation and convolution
    fold: side of the blocks of pixels that become channels before the network and pixels after it
        (space to depth, pixel shuffle), so that it computes on fold times shorter sides
    image: number of further channels beside x, 0 for none
    vector: size of a conditioning vector, 0 for none
    context: size of tokens to attend to, 0 for none
    labels: number of labels, 0 for none

    >>> import torch
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(1, 2, (8, 16), res_blocks=1, head_channels=8, labels=3)
    >>> x, timesteps, label = torch.zeros(4, 2, 8), torch.arange(4), torch.tensor([0, 1, 2, -1])
    >>> net(x, timesteps, label).shape
    torch.Size([4, 2, 8])
    """
    from .monai_unet import (  # here: importing MONAI takes seconds
        DiffusionModelUNet,
        DiffusionUNet,
        patch_monai_blocks,
    )

    widths = tuple(widths)
    net = DiffusionModelUNet(
        spatial_dims=ndim,
        in_channels=(channels + image) * fold**ndim,
        out_channels=(out_channels or channels) * fold**ndim,
        channels=widths,
        num_res_blocks=res_blocks,
        attention_levels=tuple(attention) or (False,) * len(widths),
        num_head_channels=head_channels if isinstance(head_channels, int) else list(head_channels),
        norm_num_groups=groups or math.gcd(32, *widths),
        norm_eps=eps,
        resblock_updown=updown,
        with_conditioning=bool(context),
        cross_attention_dim=context or None,
        num_class_embeds=labels or None,
    )
    patch_monai_blocks(
        net,
        scale_shift=scale_shift,
        dropout_rate=dropout,
        extra_embedding=4 * widths[0] if vector else 0,
        zero_attention=zero_attention,
    )
    if not out_norm:
        net.out[0] = nn.Identity()  # in its place, so that the convolution's name stays
    sizes = {"image": image, "vector": vector, "context": context, "label": labels}
    names = tuple(name for name, size in sizes.items() if size)
    return DiffusionUNet(net, condition_names=names, vector=vector, fold=fold)


def set_heads(net: nn.Module, heads: int) -> None:
    """Split every attention into `heads` heads; the weights stay, their function changes.

    net: with MONAI's attention
    heads: that divide the width

    >>> from adbench.engine.networks.diffusion_unet import build_unet, set_heads
    >>> net = build_unet(1, 1, (16,), res_blocks=1, head_channels=16)
    >>> set_heads(net, 4)
    >>> attention = net.middle_block.attention.attn
    >>> attention.num_heads, attention.dim_head
    (4, 4)
    """
    from einops.layers.torch import Rearrange
    from monai.networks.blocks.selfattention import SABlock

    for part in net.modules():
        if isinstance(part, SABlock):
            width = part.num_heads * part.dim_head
            part.num_heads, part.dim_head = heads, width // heads
            part.scale = part.dim_head**-0.5
            part.input_rearrange = Rearrange("b h (l d) -> b l h d", l=heads)


def side_divisor(widths: Sequence[int], fold: int = 1) -> int:
    """Return the number by which every side of a sample must divide.

    widths: channels at each resolution
    fold: of `build_unet`

    >>> from adbench.engine.networks.diffusion_unet import side_divisor
    >>> side_divisor((64, 128, 192)), side_divisor((64, 128, 192), fold=2)
    (4, 8)
    """
    return fold * 2 ** (len(widths) - 1)
