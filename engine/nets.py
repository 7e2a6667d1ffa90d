"""Networks for signals, images and volumes alike: MONAI's diffusion UNet in 1, 2 and 3 dimensions.

MONAI's, because one class serves all dimensions, loads monai-generative's checkpoints, and has
exactly the parameters of AnoDDPM's and autoDDPM's networks; no other was meaningfully faster. It
is imported when the first network is built, since that takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def unet(
    ndim: int,
    channels: int,
    widths: Sequence[int],
    *,
    out_channels: int | None = None,
    res_blocks: int = 2,
    attention: Sequence[bool] = (),
    head_channels: int | Sequence[int] = 64,
    updown: bool = False,
) -> nn.Module:
    """A UNet (x (N, C, *S), timesteps (N,)) -> (N, out, *S); S divides by 2 ** (len(widths) - 1).

    widths: channels at each resolution. attention: at which of them; the middle always attends.
    head_channels: per head, one number or one per resolution. updown: resample inside residual
    blocks (BigGAN), as guided-diffusion does; else by strided convolution. Groups of the norms
    are 32, or the most that divide every width.
    """
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    widths = tuple(widths)
    net = DiffusionModelUNet(
        spatial_dims=ndim,
        in_channels=channels,
        out_channels=out_channels or channels,
        channels=widths,
        num_res_blocks=res_blocks,
        attention_levels=tuple(attention) or (False,) * len(widths),
        num_head_channels=head_channels if isinstance(head_channels, int) else list(head_channels),
        norm_num_groups=math.gcd(32, *widths),
        resblock_updown=updown,
    )
    if ndim == 1:
        _mend_1d(net)
    return net


def set_heads(net: nn.Module, heads: int) -> None:
    """Split every attention into `heads` heads; the weights stay, what they compute does not."""
    from einops.layers.torch import Rearrange
    from monai.networks.blocks.selfattention import SABlock

    for part in net.modules():
        if isinstance(part, SABlock):
            width = part.num_heads * part.dim_head
            part.num_heads, part.dim_head = heads, width // heads
            part.scale = part.dim_head**-0.5
            part.input_rearrange = Rearrange("b h (l d) -> b l h d", l=heads)


def divisor(widths: Sequence[int]) -> int:
    """What every side must divide by."""
    return 2 ** (len(widths) - 1)


def _mend_1d(net: nn.Module) -> None:
    """MONAI 1.6 gives the time embedding two or three trailing axes, never one."""
    from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock

    class Block(DiffusionUNetResnetBlock):
        def forward(self, x: Tensor, emb: Tensor) -> Tensor:
            h = silu(self.norm1(x))
            sampler = self.upsample if self.upsample is not None else self.downsample
            if sampler is not None:
                x, h = sampler(x), sampler(h)
            h = self.conv1(h) + self.time_emb_proj(silu(emb))[:, :, None]
            h = self.conv2(silu(self.norm2(h)))
            return torch.add(self.skip_connection(x), h)

    for part in net.modules():
        if type(part) is DiffusionUNetResnetBlock:
            part.__class__ = Block
