"""MONAI's diffusion UNet, patched for one axis and for features of the papers' networks; apart, so
that MONAI is imported when the first network is built, since that takes seconds.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.blocks.crossattention import CrossAttentionBlock
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.diffusion_model_unet import (
    DiffusionModelUNet,
    DiffusionUNetResnetBlock,
    get_timestep_embedding,
)
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention, silu

from .average_pool import AveragePool3d
from .folding import fold_blocks, unfold_blocks


class DiffusionUNet(nn.Module):
    """(x (N, C, *S), timesteps (N,), *conditioning) -> (N, out, *S): MONAI's parts, MONAI's names.

    net: whose parts are taken over
    condition_names: the conditioning of every sample, in this order, of these:
        "image": (N, ?, *S), concatenated to x as more channels
        "vector": (N, vector), through two layers, concatenated to the embedding of time
        "context": (N, tokens, dim), by cross attention
        "label": (N,) int64, its embedding added to that of time; nothing where it is below 0
    vector: size of the vector, 0 for none
    fold: side of the blocks that become channels before the net and are unfolded after it

    queries_first: whether guided-diffusion's checkpoints of this network have all queries before
        all keys and values (its `use_new_attention_order`), not head by head

    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(2, 1, (8,), res_blocks=1, head_channels=8, labels=2, image=1)
    >>> net.condition_names, net.conv_in.conv.in_channels
    (('image', 'label'), 2)
    """

    queries_first = False
    conv_in: nn.Module
    time_embed: nn.Module
    class_embedding: nn.Module
    down_blocks: nn.ModuleList
    middle_block: nn.Module
    up_blocks: nn.ModuleList
    out: nn.Module

    def __init__(
        self, net: DiffusionModelUNet, *, condition_names: tuple[str, ...], vector: int,
        fold: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.condition_names, self.width = condition_names, net.block_out_channels[0]
        self.fold = fold
        # norms over single channels are slow in channels_last: 1.2 times the time in all on a CPU
        self.contiguous_on_cpu = fold > 1
        for name, part in net.named_children():
            self.add_module(name, part)
        blocks = [part.get_submodule("resnets") for part in self.up_blocks]
        self.skip_counts = [len(list(resnets.children())) for resnets in blocks]
        if vector:
            wide = 4 * self.width
            self.vector_embed = nn.Sequential(
                nn.Linear(vector, wide), nn.SiLU(), nn.Linear(wide, wide)
            )

    def forward(self, x: Tensor, timesteps: Tensor, *conditioning: Tensor) -> Tensor:
        if len(conditioning) != len(self.condition_names):
            names = ", ".join(self.condition_names) or "nothing"
            raise ValueError(
                f"this network takes {names} besides x and time; {len(conditioning)} given"
            )
        values = dict(zip(self.condition_names, conditioning, strict=True))
        emb = self.time_embed(get_timestep_embedding(timesteps, self.width).to(x.dtype))
        if "label" in values:
            label = values["label"]
            label_emb = self.class_embedding(label.clamp(min=0)).to(x.dtype)
            emb = emb + torch.where(label[:, None] < 0, 0.0, label_emb)
        if "vector" in values:
            emb = torch.cat([emb, self.vector_embed(values["vector"].to(x.dtype))], 1)
        inputs = {"temb": emb, "context": values.get("context")}
        h = torch.cat([x, values["image"].to(x.dtype)], 1) if "image" in values else x
        h = self.conv_in(fold_blocks(h, self.fold))
        skips = [h]
        for block in self.down_blocks:
            h, outputs = block(hidden_states=h, **inputs)
            skips += outputs
        h = self.middle_block(hidden_states=h, **inputs)
        for block, count in zip(self.up_blocks, self.skip_counts, strict=True):
            skips, outputs = skips[:-count], skips[-count:]
            h = block(hidden_states=h, res_hidden_states_list=outputs, **inputs)
        return unfold_blocks(self.out(h), self.fold)


class ResidualBlock(DiffusionUNetResnetBlock):
    """MONAI's residual block, for one axis too, with scale-shift norms and dropout.

    MONAI 1.6 gives the time embedding two or three trailing axes, never one. Here time may also
    scale and shift after the norm, as in guided-diffusion, and values may be dropped.

    >>> import torch
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> net = build_unet(1, 1, (8,), res_blocks=1, head_channels=8, scale_shift=True)
    >>> block = net.down_blocks[0].resnets[0]
    >>> block(torch.zeros(2, 8, 4), torch.zeros(2, 32)).shape  # with the embedding of time
    torch.Size([2, 8, 4])
    >>> block.time_emb_proj.out_features  # a scale and a shift of each channel
    16
    """

    scale_shift = False
    dropout_rate = 0.0

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = silu(self.norm1(x))
        sampler = self.upsample if self.upsample is not None else self.downsample
        if sampler is not None:
            x, h = sampler(x), sampler(h)
        h = self.conv1(h)
        time = self.time_emb_proj(silu(emb))
        time = time.view(*time.shape, *[1] * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = time.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + time)
        h = self.conv2(dropout(silu(h), self.dropout_rate, self.training))
        return torch.add(self.skip_connection(x), h)


class FusedAttention(SABlock):
    """MONAI's attention, on a GPU by torch's fused kernel, which does not store the weights.

    >>> import torch
    >>> from adbench.engine.networks.monai_unet import FusedAttention
    >>> attention = FusedAttention(8, 2, use_combined_linear=False)
    >>> tokens = torch.linspace(-1, 1, 24).view(1, 3, 8)
    >>> values = attention(tokens)
    >>> FusedAttention.fused_devices = frozenset({"cpu"})
    >>> torch.allclose(attention(tokens), values, atol=1e-6)
    True
    >>> FusedAttention.fused_devices = frozenset({"cuda"})
    """

    fused_devices: ClassVar[frozenset[str]] = frozenset({"cuda"})

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if x.device.type not in self.fused_devices or attn_mask is not None:
            return super().forward(x, attn_mask)
        q, k, v = (self.input_rearrange(to(x)) for to in (self.to_q, self.to_k, self.to_v))
        values = scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.drop_output(self.out_proj(self.out_rearrange(values)))


class FusedCrossAttention(CrossAttentionBlock):
    """MONAI's cross attention, by torch's fused kernel on the devices of `FusedAttention`.

    >>> import torch
    >>> from adbench.engine.networks.monai_unet import FusedAttention, FusedCrossAttention
    >>> attention = FusedCrossAttention(8, 2, context_input_size=4)
    >>> tokens, context = torch.linspace(-1, 1, 24).view(1, 3, 8), torch.ones(1, 2, 4)
    >>> values = attention(tokens, context)
    >>> FusedAttention.fused_devices = frozenset({"cpu"})
    >>> torch.allclose(attention(tokens, context), values, atol=1e-6)
    True
    >>> FusedAttention.fused_devices = frozenset({"cuda"})
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if x.device.type not in FusedAttention.fused_devices:
            return super().forward(x, context)
        source = x if context is None else context
        q, k, v = map(self.input_rearrange, (self.to_q(x), self.to_k(source), self.to_v(source)))
        values = scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.drop_output(self.out_proj(self.out_rearrange(values)))


def fuse_attention(net: nn.Module) -> None:
    """Replace MONAI's attention in a network by torch's fused kernel on a GPU, in place; weights
    and their names stay.

    net: of MONAI's blocks

    >>> from torch import nn
    >>> from adbench.engine.networks.monai_unet import SABlock, fuse_attention
    >>> net = nn.Sequential(SABlock(8, 2, use_combined_linear=False))
    >>> fuse_attention(net)
    >>> type(net[0]).__name__
    'FusedAttention'
    """
    for part in net.modules():
        if type(part) is SABlock and not part.use_combined_linear:
            part.__class__ = FusedAttention
        elif type(part) is CrossAttentionBlock:
            part.__class__ = FusedCrossAttention


def patch_monai_blocks(
    net: nn.Module,
    *,
    scale_shift: bool = False,
    dropout_rate: float = 0.0,
    extra_embedding: int = 0,
    zero_attention: bool = False,
) -> None:
    """Replace the classes of MONAI's blocks in a network by ours, in place.

    net: of MONAI's blocks
    scale_shift: time scales and shifts after the norm
    dropout_rate: of each residual block, in training
    extra_embedding: channels that are concatenated to the embedding of time
    zero_attention: attention adds nothing at first

    >>> import torch
    >>> from adbench.engine.networks.monai_unet import SABlock, patch_monai_blocks
    >>> net = torch.nn.Sequential(SABlock(8, 2, use_combined_linear=False))
    >>> patch_monai_blocks(net, zero_attention=True)
    >>> net(torch.ones(1, 3, 8)).abs().max().item()
    0.0
    """
    fuse_attention(net)
    for part in net.modules():
        if type(part) is nn.AvgPool3d:
            part.__class__ = AveragePool3d
        elif isinstance(part, FusedAttention):
            for value in part.out_proj.parameters() if zero_attention else ():
                nn.init.zeros_(value)
        elif type(part) is DiffusionUNetResnetBlock:
            part.__class__ = ResidualBlock
            if isinstance(part, ResidualBlock):
                part.scale_shift, part.dropout_rate = scale_shift, dropout_rate
                embedding, out = part.emb_channels, part.out_channels
                if scale_shift or extra_embedding:
                    part.time_emb_proj = nn.Linear(
                        embedding + extra_embedding, out * (2 if scale_shift else 1)
                    )
