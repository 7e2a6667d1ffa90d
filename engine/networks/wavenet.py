"""A WaveNet that denoises signals: gated convolutions of growing dilation, whose outputs are
summed.

van den Oord et al. 2016; as a denoiser of RF signals in the RF Challenge (ICASSP 2024), whose
starter network it has the parameters of when `blind`; there, the noise level is no input. How it
enters here is DiffWave's (Kong et al. 2021, arXiv 2009.09761, section 3.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class WaveNet(nn.Module):
    """A WaveNet (x (N, C, L), timesteps (N,)) -> (N, out, L), for any L.

    Before training, weights of convolutions are normal with variance 2 / fan-in (He et al. 2015,
    as in the starter network), those of the last convolution are 0.

    channels: C
    out_channels: C if None
    layers: of kernel 3 each, of dilation 1, 2, 4 .. 2 ** (cycle - 1), and again from 1
    cycle: number of different dilations
    width: channels of every layer
    blind: the timestep is ignored; else it is added to every layer's input, as in DiffWave

    >>> from adbench.engine.networks.wavenet import WaveNet
    >>> WaveNet(2, layers=4, cycle=2, width=8).receptive_field
    13
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
        for part in self.modules():
            if isinstance(part, nn.Conv1d):
                nn.init.kaiming_normal_(part.weight)
        nn.init.zeros_(self.exit.weight)
        self.time = None if blind else TimeEmbedding(layers, width)

    @property
    def receptive_field(self) -> int:
        """The number of input samples on which an output sample depends."""
        return 1 + 2 * sum(block.dilation for block in self.blocks if isinstance(block, GatedBlock))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        h = self.entry(x).relu()
        embedding = None if self.time is None else self.time(timesteps, h.dtype)
        total = torch.zeros_like(h)
        for i, block in enumerate(self.blocks):
            h, skip = block(h, None if embedding is None else embedding[:, i])
            total = total + skip
        return self.exit(self.skip(total / math.sqrt(len(self.blocks))).relu())


class GatedBlock(nn.Module):
    """A gated dilated convolution: h (N, W, L), embedding of time (N, W) -> the next layer's h, and
    the skip output.

    width: W
    dilation: of the convolution

    >>> import torch
    >>> from adbench.engine.networks.wavenet import GatedBlock
    >>> h, skip = GatedBlock(4, 2)(torch.zeros(1, 4, 16), None)
    >>> skip.shape
    torch.Size([1, 4, 16])
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.wide = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.both = nn.Conv1d(width, 2 * width, 1)

    def forward(self, h: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = h if embedding is None else h + embedding[:, :, None]
        gate, value = self.wide(inputs).chunk(2, 1)
        residual, skip = self.both(gate.sigmoid() * value.tanh()).chunk(2, 1)
        return (h + residual) / math.sqrt(2), skip


class TimeEmbedding(nn.Module):
    """The embedding of timesteps (N,) that is added to each layer's input, (N, layers, width).

    layers, width: of the WaveNet
    waves: number of sines and cosines
    inner: width of the two hidden layers

    >>> import torch
    >>> from adbench.engine.networks.wavenet import TimeEmbedding
    >>> TimeEmbedding(4, 8)(torch.tensor([0, 999]), torch.float32).shape
    torch.Size([2, 4, 8])
    """

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
