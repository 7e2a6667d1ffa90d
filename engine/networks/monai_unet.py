"""MONAI's diffusion UNet, mended for one axis and for what papers' networks have besides; apart,
so that MONAI is imported when the first network is built, since that takes seconds.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.diffusion_model_unet import (
    DiffusionModelUNet,
    DiffusionUNetResnetBlock,
    get_timestep_embedding,
)
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention, silu


class DiffusionUNet(nn.Module):
    """(x (N, C, *S), timesteps (N,), *given) -> (N, out, *S): MONAI's parts under MONAI's names.

    condition_names: what is given of every sample besides, in this order, of these:
        "image": (N, ?, *S), put beside x as more channels
        "vector": (N, vector), through two layers put beside the embedding of time
        "context": (N, tokens, dim), attended to across
        "label": (N,) int64, its embedding added to that of time; nothing where it is below 0
    """

    conv_in: nn.Module
    time_embed: nn.Module
    class_embedding: nn.Module
    down_blocks: nn.ModuleList
    middle_block: nn.Module
    up_blocks: nn.ModuleList
    out: nn.Module

    def __init__(
        self, net: DiffusionModelUNet, *, condition_names: tuple[str, ...], vector: int
    ) -> None:
        super().__init__()
        self.condition_names, self.width = condition_names, net.block_out_channels[0]
        for name, part in net.named_children():
            self.add_module(name, part)
        ends = [part.get_submodule("resnets") for part in self.up_blocks]
        self.skip_counts = [len(list(resnets.children())) for resnets in ends]
        if vector:
            wide = 4 * self.width
            self.vector_embed = nn.Sequential(
                nn.Linear(vector, wide), nn.SiLU(), nn.Linear(wide, wide)
            )

    def forward(self, x: Tensor, timesteps: Tensor, *conditioning: Tensor) -> Tensor:
        if len(conditioning) != len(self.condition_names):
            wanted = ", ".join(self.condition_names) or "nothing"
            raise ValueError(
                f"this network takes {wanted} besides x and time; {len(conditioning)} given"
            )
        told = dict(zip(self.condition_names, conditioning, strict=True))
        emb = self.time_embed(get_timestep_embedding(timesteps, self.width).to(x.dtype))
        if "label" in told:
            label = told["label"]
            known = self.class_embedding(label.clamp(min=0)).to(x.dtype)
            emb = emb + torch.where(label[:, None] < 0, 0.0, known)
        if "vector" in told:
            emb = torch.cat([emb, self.vector_embed(told["vector"].to(x.dtype))], 1)
        heard = {"temb": emb, "context": told.get("context")}
        h = torch.cat([x, told["image"].to(x.dtype)], 1) if "image" in told else x
        h = self.conv_in(h)
        kept = [h]
        for block in self.down_blocks:
            h, passed = block(hidden_states=h, **heard)
            kept += passed
        h = self.middle_block(hidden_states=h, **heard)
        for block, count in zip(self.up_blocks, self.skip_counts, strict=True):
            kept, passed = kept[:-count], kept[-count:]
            h = block(hidden_states=h, res_hidden_states_list=passed, **heard)
        return self.out(h)


class ResidualBlock(DiffusionUNetResnetBlock):
    """MONAI 1.6's gives the time embedding two or three trailing axes, never one. Here it may also
    scale and shift what is normalised, as in guided-diffusion, and values may be dropped."""

    scale_shift = False
    dropout_rate = 0.0

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = silu(self.norm1(x))
        sampler = self.upsample if self.upsample is not None else self.downsample
        if sampler is not None:
            x, h = sampler(x), sampler(h)
        h = self.conv1(h)
        heard = self.time_emb_proj(silu(emb))
        heard = heard.view(*heard.shape, *[1] * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = heard.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + heard)
        h = self.conv2(dropout(silu(h), self.dropout_rate, self.training))
        return torch.add(self.skip_connection(x), h)


class FusedAttention(SABlock):
    """On a GPU by torch's fused attention, which does not store what attends to what."""

    fused_devices: ClassVar[frozenset[str]] = frozenset({"cuda"})

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if x.device.type not in self.fused_devices or attn_mask is not None:
            return super().forward(x, attn_mask)
        q, k, v = (self.input_rearrange(to(x)) for to in (self.to_q, self.to_k, self.to_v))
        made = scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.drop_output(self.out_proj(self.out_rearrange(made)))


def patch_monai_blocks(
    net: nn.Module,
    *,
    scale_shift: bool = False,
    dropout_rate: float = 0.0,
    extra_embedding: int = 0,
    zero_attention: bool = False,
) -> None:
    """Make the network's blocks ours. scale_shift: they scale and shift by time; dropout_rate: the
    share of
    values that training drops in each; extra_embedding: channels that are put beside time's
    embedding;
    zero_attention: attention adds nothing at first."""
    for part in net.modules():
        if type(part) is SABlock and not part.use_combined_linear:
            part.__class__ = FusedAttention
            for value in part.out_proj.parameters() if zero_attention else ():
                nn.init.zeros_(value)
        elif type(part) is DiffusionUNetResnetBlock:
            part.__class__ = ResidualBlock
            if isinstance(part, ResidualBlock):
                part.scale_shift, part.dropout_rate = scale_shift, dropout_rate
                known, out = part.emb_channels, part.out_channels
                if scale_shift or extra_embedding:
                    part.time_emb_proj = nn.Linear(
                        known + extra_embedding, out * (2 if scale_shift else 1)
                    )
