"""DINOv2's vision transformers as frozen networks, with the names of the authors' weights.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023.
https://arxiv.org/abs/2304.07193 timm's files of them have the same names. Without registers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from .imagenet import ImageNetLayers

PATCH, TRAINED_SIDE = 14, 37
"""Pixels along a patch, and patches along the images that the weights were trained on."""


class TransformerLayers(ImageNetLayers):
    """A vision transformer's patch tokens after each of some quarters of its blocks, as maps.

    An image whose sides are no multiples of PATCH is enlarged to the next.

    width: channels.
    blocks: number of blocks, a multiple of four.
    heads: of the attention.
    layers: that are returned, in ascending order, of 1 to 4: after each quarter of the blocks.

    >>> import torch
    >>> from adbench.engine.features.vision_transformer import TransformerLayers
    >>> net = TransformerLayers(16, 4, 2, layers=(2, 4))
    >>> [tuple(values.shape) for values in net(torch.zeros(1, 3, 28, 40))]
    [(1, 16, 2, 3), (1, 16, 2, 3)]
    """

    def __init__(self, width: int, blocks: int, heads: int, *, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.channels = tuple(layers), (width,) * len(layers)
        self.quarter = blocks // 4
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_SIDE**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        count = max(layers) * self.quarter
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(count)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The normalised tokens of (N, 3, H, W) in [0, 1], (N, width, h, w) for each layer."""
        size = [-(-n // PATCH) * PATCH for n in x.shape[2:]]
        if size != list(x.shape[2:]):
            x = interpolate(x, size=size, mode="bilinear")
        patches = self.patch_embed["proj"](self.standardise(x))
        grid = list(patches.shape[2:])
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], 1)
        tokens, maps = tokens + self._positions(grid), []
        for i, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            if i % self.quarter == 0 and i // self.quarter in self.layers:
                maps.append(self.norm(tokens)[:, 1:].mT.unflatten(2, grid))
        return maps

    def _positions(self, grid: list[int]) -> Tensor:
        """The position embeddings of a grid, resized from the trained ones as timm does; (1, 1 + P,
        width)."""
        if grid == [TRAINED_SIDE, TRAINED_SIDE]:
            return self.pos_embed
        of_grid = self.pos_embed[:, 1:].mT.unflatten(2, (TRAINED_SIDE, TRAINED_SIDE)).float()
        resized = interpolate(of_grid, size=grid, mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT.to(self.pos_embed)], 1)


class _Block(nn.Module):
    """Attention and a perceptron, each behind a norm and scaled by channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.ls1, self.ls2 = (
            nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        qkv = (
            self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        x = x + self.ls1["gamma"] * self.attn["proj"](mixed)
        hidden = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2["gamma"] * self.mlp["fc2"](hidden)
