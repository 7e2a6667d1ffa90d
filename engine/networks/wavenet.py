"""A WaveNet that denoises signals: gated convolutions over ever longer distances, all added up.

van den Oord et al. 2016; as a denoiser of RF signals in the RF Challenge (ICASSP 2024), whose
starter network it has the parameters of when `blind`; there, it is not told the noise level. How it
is told is DiffWave's (Kong et al. 2021, arXiv 2009.09761, section 3.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class WaveNet(nn.Module):
    """(x (N, C, L), timesteps (N,)) -> (N, out, L), for any L.

    layers: of three taps each, at distances 1, 2, 4 .. 2 ** (cycle - 1), and again from 1
    width: channels of every layer
    blind: the timestep is ignored. Else it is added to every layer's input, as in DiffWave
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        layers: int = 30,
        cycle: int = 10,
        width: int = 64,
        blind: bool = False,
    ) -> None:
        super().__init__()
        if min(layers, cycle, width) < 1:
            raise ValueError(
                f"a WaveNet has layers, a cycle and a width of at least 1, not {layers}, {cycle} "
                f"and {width}"
            )
        self.entry = nn.Conv1d(channels, width, 1)
        self.blocks = nn.ModuleList(GatedBlock(width, 2 ** (i % cycle)) for i in range(layers))
        self.skip = nn.Conv1d(width, width, 1)
        self.exit = nn.Conv1d(width, out_channels or channels, 1)
        for zeroed in self.exit.parameters():
            nn.init.zeros_(zeroed)
        self.time = None if blind else TimeEmbedding(layers, width)

    @property
    def receptive_field(self) -> int:
        """How many samples of the input a sample of the output depends on."""
        return 1 + 2 * sum(block.dilation for block in self.blocks if isinstance(block, GatedBlock))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        h = self.entry(x).relu()
        heard = None if self.time is None else self.time(timesteps, h.dtype)
        total = torch.zeros_like(h)
        for i, block in enumerate(self.blocks):
            h, skipped = block(h, None if heard is None else heard[:, i])
            total = total + skipped
        return self.exit(self.skip(total / math.sqrt(len(self.blocks))).relu())


class GatedBlock(nn.Module):
    """h (N, W, L), and (N, W) of time -> the next layer's h, and what is added up."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.wide = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.both = nn.Conv1d(width, 2 * width, 1)

    def forward(self, h: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        told = h if embedding is None else h + embedding[:, :, None]
        gate, value = self.wide(told).chunk(2, 1)
        kept, skipped = self.both(gate.sigmoid() * value.tanh()).chunk(2, 1)
        return (h + kept) / math.sqrt(2), skipped


class TimeEmbedding(nn.Module):
    """Timesteps (N,) -> (N, layers, width): what is added to each layer's input."""

    def __init__(self, layers: int, width: int, waves: int = 128, inner: int = 512) -> None:
        super().__init__()
        self.layers, self.waves = layers, waves
        self.embed = nn.Sequential(
            nn.Linear(waves, inner), nn.SiLU(), nn.Linear(inner, inner), nn.SiLU()
        )
        self.each = nn.Linear(inner, layers * width)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.waves // 2
        place = torch.arange(half, device=timesteps.device) / half
        angle = timesteps[:, None].float() * torch.exp(-math.log(10_000) * place)
        waves = torch.cat([angle.sin(), angle.cos()], 1).to(dtype)
        return self.each(self.embed(waves)).unflatten(1, (self.layers, -1))
