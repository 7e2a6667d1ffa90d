"""The student of reverse distillation: from a narrow code back to the feature maps of a teacher.

Deng and Li 2022 (RD4AD), whose order of layers it has. Norms are over groups: theirs are over the
batch, and would make a sample depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_to_lists_in_batches
from .plain_unet import group_count


class ReverseDistillation(BatchedModule):
    """A bottleneck that joins the teacher's maps to a code, and a decoder that gives them back.

    channels: of the teacher's maps, from the finest; each has half the sides of the one before
    blocks: residual blocks at every resolution of the decoder, and of the code

    >>> import torch
    >>> from adbench.engine.networks.reverse_distillation import ReverseDistillation
    >>> maps = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 6, 4, 4)]
    >>> student = ReverseDistillation((4, 6), 1).eval()
    >>> [tuple(values.shape) for values in student(maps)]
    [(1, 4, 8, 8), (1, 6, 4, 4)]
    """

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.net = _Network(channels, blocks)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The estimate of every map, (N, C', h, w); sides of the last map are even."""

        def apply(*rows: Tensor) -> list[Tensor]:
            return self.call_net(lambda net, *values: net(*values), *rows)

        return (
            apply(*maps) if self.training else apply_to_lists_in_batches(apply, self.batch, *maps)
        )


class _Network(nn.Module):
    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        last, code = channels[-1], 2 * channels[-1]
        self.join = nn.ModuleList()
        for i, count in enumerate(channels):
            halvings = len(channels) - 1 - i
            widths = [count] + [last] * halvings
            parts = [_halve(a, b) for a, b in pairwise(widths)]
            self.join.append(nn.Sequential(*parts))
        self.code = nn.Sequential(
            _halve(len(channels) * last, code), *[_Block(code) for _ in range(blocks)]
        )
        self.up, width = nn.ModuleList(), code
        for count in reversed(channels):
            self.up.append(
                nn.Sequential(
                    nn.ConvTranspose2d(width, count, 4, 2, 1, bias=False), _norm(count), nn.ReLU(),
                    *[_Block(count) for _ in range(blocks)], nn.Conv2d(count, count, 1),
                )
            )  # fmt: skip
            width = count

    def forward(self, *maps: Tensor) -> list[Tensor]:
        joined = [part(values) for part, values in zip(self.join, maps, strict=True)]
        h, estimates = self.code(torch.cat(joined, 1)), []
        for part in self.up:
            h = part(h)
            estimates.append(h)
        return estimates[::-1]


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), _norm(width))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return relu(x + self.second(relu(self.first(x))))


def _halve(channels: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, 3, 2, 1, bias=False), _norm(out), nn.ReLU())


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(group_count(channels), channels)
