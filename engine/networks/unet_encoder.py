"""The downward half of a diffusion UNet with one output for a whole sample: a noise-aware
classifier; apart, so that MONAI is imported when the first one is built.

As guided-diffusion's encoder, whose parameters it has, and its initialisation: residual blocks and
attention add nothing at first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.nets.diffusion_model_unet import (
    get_down_block,
    get_mid_block,
    get_timestep_embedding,
)
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .monai_unet import patch_monai_blocks


class UNetEncoder(nn.Module):
    """(x (N, C, *S), timesteps (N,)) -> (N, out); S is fixed, since the pooling learns positions.

    shape, channels: of x
    out: size of the output
    widths: channels at each resolution
    res_blocks: at each resolution
    attention: at which resolutions; the last always attends once more
    head_channels: per head, or a resolution's width where that is less

    >>> import torch
    >>> from adbench.engine.networks.unet_encoder import UNetEncoder
    >>> net = UNetEncoder((8,), 1, 2, (8, 16), res_blocks=1, attention=(False, True),
    ...     head_channels=8)
    >>> net(torch.zeros(3, 1, 8), torch.tensor([0, 10, 20])).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        out: int,
        widths: Sequence[int],
        *,
        res_blocks: int,
        attention: Sequence[bool],
        head_channels: int,
    ) -> None:
        super().__init__()
        ndim, time, groups = len(shape), 4 * widths[0], math.gcd(32, *widths)
        self.widths = tuple(widths)
        self.time_embed = nn.Sequential(
            nn.Linear(widths[0], time), nn.SiLU(), nn.Linear(time, time)
        )
        self.conv_in = Convolution(ndim, channels, widths[0], kernel_size=3, conv_only=True)
        same = {"spatial_dims": ndim, "temb_channels": time, "norm_num_groups": groups,
                "norm_eps": 1e-5, "with_cross_attn": False, "transformer_num_layers": 1,
                "cross_attention_dim": None}  # fmt: skip
        self.down_blocks = nn.ModuleList()
        last, width_in = len(widths) - 1, widths[0]
        for i, width in enumerate(widths):
            self.down_blocks.append(
                get_down_block(
                    in_channels=width_in, out_channels=width, num_res_blocks=res_blocks,
                    add_downsample=i < last, resblock_updown=True, with_attn=attention[i],
                    num_head_channels=math.gcd(head_channels, width), upcast_attention=False,
                    **same,
                )
            )  # fmt: skip
            width_in = width
        del same["with_cross_attn"]
        heads = math.gcd(head_channels, width_in)
        self.middle_block = get_mid_block(
            in_channels=width_in, num_head_channels=heads, with_conditioning=False,
            upcast_attention=False, **same,
        )  # fmt: skip
        self.norm = nn.Sequential(nn.GroupNorm(groups, width_in, eps=1e-5), nn.SiLU())
        places = math.prod(n >> last for n in shape)
        self.pool = AttentionPool(width_in, places, out, width_in // heads)
        patch_monai_blocks(self, scale_shift=True, zero_attention=True)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        emb = self.time_embed(get_timestep_embedding(timesteps, self.widths[0]).to(x.dtype))
        h = self.conv_in(x)
        for block in self.down_blocks:
            h, _ = block(hidden_states=h, temb=emb, context=None)
        h = self.middle_block(hidden_states=h, temb=emb, context=None)
        return self.pool(self.norm(h))


class AttentionPool(nn.Module):
    """Attention pooling (N, C, *S) -> (N, out): the mean over all positions attends to itself and
    to every position, each with a learned embedding, as in CLIP.

    channels: C
    places: number of positions of S
    out: size of the output
    heads: of the attention

    >>> import torch
    >>> from adbench.engine.networks.unet_encoder import AttentionPool
    >>> AttentionPool(channels=4, places=6, out=3, heads=2)(torch.zeros(5, 4, 2, 3)).shape
    torch.Size([5, 3])
    """

    def __init__(self, channels: int, places: int, out: int, heads: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(channels, places + 1) / channels**0.5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out, self.heads = nn.Linear(channels, out), heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(2, keepdim=True), x], 2) + self.position.to(x.dtype)
        parts = self.qkv(x.transpose(1, 2)).chunk(3, 2)  # (N, places + 1, C) each
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        pooled = scaled_dot_product_attention(q[:, :, :1], k, v)  # (N, heads, 1, C / heads)
        return self.out(pooled.flatten(1))
