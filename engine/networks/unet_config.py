"""The settings of a diffusion UNet as methods group them, and the network built from each.

Published configurations name the same network in two ways: by the channels of every resolution
(MONAI), or by one width and its multiples (guided-diffusion). Each class here is one of these ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from ..runtime.setting_types import Count, Depth, Many, Natural, Positive
from .diffusion_unet import build_unet, side_divisor


@dataclass(frozen=True)
class UNetConfig:
    """A UNet by the channels of every resolution.

    widths: channels at each resolution, the finest first.
    res_blocks: residual blocks at each.
    attention: whether the UNet attends there; its middle always does.
    head_channels: channels of an attention head.
    fold: side of the blocks of pixels that the UNet sees as channels; 1 for pixels.
    groups: of the norms; None for the most, up to 32, that divide every width.

    >>> net = UNetConfig((8, 16), 1, (False, True), 8).build(2, 1)
    >>> sum(p.numel() for p in net.parameters())
    44969
    """

    widths: Many[Count]
    res_blocks: Depth
    attention: Many[bool]
    head_channels: Count
    fold: Count = 1
    groups: Count | None = None

    @property
    def side_divisor(self) -> int:
        """The number by which every side of a sample must divide.

        >>> UNetConfig((8, 16), 1, (False, True), 8, fold=2).side_divisor
        4
        """
        return side_divisor(self.widths, self.fold)

    def build(self, ndim: int, channels: int, **options: Any) -> nn.Module:
        """Return the UNet for samples of `ndim` axes and so many channels; options: its."""
        return build_unet(ndim, channels, self.widths, res_blocks=self.res_blocks,
            attention=self.attention, head_channels=self.head_channels, fold=self.fold,
            groups=self.groups, **options)  # fmt: skip


@dataclass(frozen=True)
class OptionalUNetConfig:
    """As UNetConfig, each field None for what the method takes for its kind of samples.

    head_channels: one number, or one for each resolution.
    """

    widths: Many[Count] | None = None
    res_blocks: Depth | None = None
    attention: Many[bool] | None = None
    head_channels: Count | Many[Natural] | None = None
    fold: Count | None = None
    groups: Count | None = None

    def overrides(self) -> dict[str, Any]:
        """Return the fields that are set.

        >>> OptionalUNetConfig(res_blocks=2).overrides()
        {'res_blocks': 2}
        """
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ScaledUNetConfig:
    """A UNet by one width and its multiple at each resolution.

    width: channels of the first convolution.
    mults: what the width is multiplied with at each resolution.
    res_blocks: residual blocks at each.
    fold: side of the blocks of pixels that the UNet sees as channels; 1 for pixels.
    groups: of the norms; None for the most, up to 32, that divide every width.
    """

    width: Count
    mults: Many[Positive]
    res_blocks: Depth
    fold: Count = field(default=1, kw_only=True)
    groups: Count | None = field(default=None, kw_only=True)

    @property
    def widths(self) -> list[int]:
        """The channels at each resolution.

        >>> ScaledUNetConfig(8, (1, 2, 2), 1).widths
        [8, 16, 16]
        """
        return [int(self.width * multiple) for multiple in self.mults]

    @property
    def side_divisor(self) -> int:
        """The number by which every side of a sample must divide.

        >>> ScaledUNetConfig(8, (1, 2, 2), 1, fold=2).side_divisor
        8
        """
        return side_divisor(self.widths, self.fold)


@dataclass(frozen=True)
class MiddleAttentionUNetConfig(ScaledUNetConfig):
    """pDDPM's UNet, which attends in its middle alone; time scales and shifts what is normalised.

    head_channels: channels of an attention head.

    >>> from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
    >>> net = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=8).build(2, 1)
    >>> sum(p.numel() for p in net.parameters())
    49625
    """

    head_channels: Count

    def build(self, ndim: int, channels: int, **options: Any) -> nn.Module:
        """Return the UNet for samples of `ndim` axes and so many channels; options: its."""
        net = build_unet(ndim, channels, self.widths, res_blocks=self.res_blocks, updown=True,
            scale_shift=True, head_channels=self.head_channels, eps=1e-5, zero_attention=True,
            fold=self.fold, groups=self.groups, **options)  # fmt: skip
        net.queries_first = True  # so the authors' checkpoints have it
        return net


@dataclass(frozen=True)
class HeadsUNetConfig(ScaledUNetConfig):
    """A UNet by one width whose attention has a fixed number of heads at every resolution.

    attention: whether it attends at each resolution; its middle always does.
    heads: attention heads at each.

    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> net = HeadsUNetConfig(8, (1, 2), 1, attention=(False, True), heads=2).build(2, 1)
    >>> net.middle_block.attention.attn.num_heads
    2
    """

    attention: Many[bool]
    heads: Count

    def build(self, ndim: int, channels: int, **options: Any) -> nn.Module:
        """Return the UNet for samples of `ndim` axes and so many channels; options: its."""
        head_channels = split_into_heads(self.widths, self.heads, self.attention)
        return build_unet(ndim, channels, self.widths, res_blocks=self.res_blocks,
            attention=self.attention, head_channels=head_channels, fold=self.fold,
            groups=self.groups, **options)  # fmt: skip


def split_into_heads(widths: Sequence[int], heads: int, attention: Sequence[bool]) -> list[int]:
    """Return the channels of an attention head at each resolution.

    attention: whether the UNet attends there; its middle, which has the last width, always does

    Raises ValueError where it attends and the heads do not divide the channels.

    >>> split_into_heads([7, 16], 2, [False, True])
    [3, 8]
    """
    attends = [*attention[:-1], True]
    for width, attended in zip(widths, attends, strict=False):
        if attended and width % heads:
            raise ValueError(f"heads={heads} do not divide the {width} channels of an attention")
    return [max(1, width // heads) for width in widths]


@dataclass(frozen=True)
class AttentionSidesUNetConfig(ScaledUNetConfig):
    """A UNet by one width that attends where the longest side has one of some lengths.

    attention: these lengths in positions of the network, pixels where it folds none.
    heads: attention heads at each resolution.
    """

    attention: Sequence[Count]
    heads: Count

    def attention_levels(self, shape: Sequence[int]) -> list[bool]:
        """Return for each resolution of samples of that shape whether the UNet attends.

        >>> AttentionSidesUNetConfig(8, (1, 2, 2), 1, (16, 8), 2).attention_levels((32, 16))
        [False, True, True]
        """
        return [length in self.attention for length in self._sides(shape)]

    def attention_conflicts(self, shape: Sequence[int]) -> dict[tuple[str, ...], str]:
        """Return by arguments why a UNet for samples of that shape does not attend as they ask.

        >>> network = AttentionSidesUNetConfig(8, (1, 2, 2), 1, (16, 7), 2)
        >>> network.attention_conflicts((32, 16))
        {('attention',): 'attention=7 is none of the longest sides, 32, 16, 8'}
        """
        sides = self._sides(shape)
        no_sides = [length for length in self.attention if length not in sides]
        if not no_sides:
            return {}
        lengths = "attention=" + ",".join(map(str, no_sides))
        reason = f"{lengths} is none of the longest sides, {', '.join(map(str, sides))}"
        everywhere = len(no_sides) == len(self.attention)
        return {("attention", "size", "mults") if everywhere else ("attention",): reason}

    def _sides(self, shape: Sequence[int]) -> list[int]:
        """The longest side at each resolution."""
        return [max(shape) // self.fold >> depth for depth in range(len(self.mults))]
