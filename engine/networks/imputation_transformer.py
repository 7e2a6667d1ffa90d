"""A transformer that imputes windows of multivariate signals: attention over time, then over
channels.

Tashiro et al., "CSDI: Conditional Score-based Diffusion Models for Probabilistic Time Series
Imputation", NeurIPS 2021 (section 4.3), whose layers ImDiffusion takes over: both attentions stand
in a residual block with the gate of WaveNet, whose outputs are summed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .wavenet import TimeEmbedding


class ImputationTransformer(nn.Module):
    """A transformer (x (N, C, L), timesteps (N,), reference, mask) -> (N, C, L); W divides L.

    Windows of W steps are imputed each by itself. x and reference are two views of the signal, mask
    is 1 where it is to be imputed; all are (N, C, L). The last layer is 0 before training.

    channels: C
    window: W
    layers: residual blocks
    width: channels of every value inside
    heads: of each attention; they divide the width

    >>> import torch
    >>> from adbench.engine.networks.imputation_transformer import ImputationTransformer
    >>> net, x = ImputationTransformer(2, window=4, layers=1, width=8, heads=2), torch.ones(3, 2, 8)
    >>> net(x, torch.tensor([0, 5, 9]), x, x).shape
    torch.Size([3, 2, 8])
    """

    def __init__(
        self, channels: int, *, window: int, layers: int = 4, width: int = 64, heads: int = 8
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads={heads} do not divide the width {width}")
        self.window = window
        self.entry = nn.Linear(3, width)
        self.time = TimeEmbedding(layers, width)
        self.place = nn.Parameter(0.02 * torch.randn(window, width))
        self.channel = nn.Parameter(0.02 * torch.randn(channels, width))
        self.blocks = nn.ModuleList(AxialBlock(width, heads) for _ in range(layers))
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.exit = nn.Sequential(nn.Linear(width, width), nn.ReLU(), last)

    def forward(self, x: Tensor, timesteps: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        values = torch.stack([x, reference, mask.to(x.dtype)], -1)  # (N, C, L, 3)
        values = values.unflatten(2, (-1, self.window)).transpose(1, 2)  # (N, windows, C, W, 3)
        count = values.shape[1]
        embedding = self.time(timesteps, x.dtype).repeat_interleave(count, 0)
        h = self.entry(values.flatten(0, 1)).relu()  # (N windows, C, W, width)
        h = h + self.place + self.channel[:, None]
        total = torch.zeros_like(h)
        for i, block in enumerate(self.blocks):
            h, skip = block(h, embedding[:, i])
            total = total + skip
        out = self.exit(total / math.sqrt(len(self.blocks)))[..., 0]
        return out.unflatten(0, (-1, count)).transpose(1, 2).flatten(2)


class AxialBlock(nn.Module):
    """Attention over time, attention over channels, and a gate: h (N, C, W, width), embedding of
    time (N, width) -> the next block's h, and the skip output.

    width: of h
    heads: of both attentions

    >>> import torch
    >>> from adbench.engine.networks.imputation_transformer import AxialBlock
    >>> h, skip = AxialBlock(8, 2)(torch.zeros(1, 2, 4, 8), torch.zeros(1, 8))
    >>> skip.shape
    torch.Size([1, 2, 4, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.over_time = _AttentionLayer(width, heads)
        self.over_channels = _AttentionLayer(width, heads)
        self.gate = nn.Linear(width, 2 * width)
        self.both = nn.Linear(width, 2 * width)

    def forward(self, h: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        count, channels = h.shape[:2]
        y = (h + embedding[:, None, None]).flatten(0, 1)  # (N C, W, width)
        y = self.over_time(y).unflatten(0, (count, channels)).transpose(1, 2)
        y = self.over_channels(y.flatten(0, 1)).unflatten(0, (count, -1)).transpose(1, 2)
        gate, value = self.gate(y).chunk(2, -1)
        residual, skip = self.both(gate.sigmoid() * value.tanh()).chunk(2, -1)
        return (h + residual) / math.sqrt(2), skip


class _AttentionLayer(nn.Module):
    """Self-attention and a small network, each added to its normalised input, (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return x + self.mix(self.norms[1](x))
