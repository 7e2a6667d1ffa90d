"""Feature maps of images by a frozen backbone: what feature-based detectors see in place of pixels.

The backbone is no part of what a method learns: it moves with the method, computes in its
precision and in full batches, and stays out of its state dict, which holds what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_to_lists_in_batches
from .backbones import load_backbone
from .pretrained import FeaturesError

Interpolation = Literal["bilinear", "nearest"]


class FeatureMaps(BatchedModule):
    """The feature maps of images at several depths of a frozen backbone.

    images: channels of the images; three are one colour image, any other number as many grey ones
    name, layers: of the backbone, see `load_backbone`

    >>> import torch
    >>> from adbench.engine.features.feature_maps import FeatureMaps
    >>> maps = FeatureMaps(1, "effperc-random", (1, 2))
    >>> [tuple(values.shape) for values in maps.extract(torch.zeros(2, 1, 64, 64))]
    [(2, 24, 16, 16), (2, 40, 8, 8)]
    """

    def __init__(self, images: int, name: str = "effperc", layers: Sequence[int] = (1, 2)) -> None:
        super().__init__()
        backbone = load_backbone(name, layers)
        self._unregistered, self.strides = [backbone.net], backbone.strides
        self.views = 1 if images == 3 else images
        self.channels = tuple(self.views * count for count in backbone.channels)
        self.weights_id = f"layers {', '.join(map(str, layers))} of {backbone.weights_id}"
        super().train(False)

    @property
    def net(self) -> nn.Module:
        """The backbone."""
        return self._unregistered[0]

    def train(self, mode: bool = True) -> FeatureMaps:
        """Do nothing: a frozen network is in evaluation mode."""
        return self

    @property
    def divisor(self) -> int:
        """What the sides of images are multiples of."""
        return lcm(*self.strides)

    def grids(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """(h, w) of each map of images of this shape, (H, W); ValueError for sides that are no
        multiples of `divisor`."""
        height, width = shape
        if height % self.divisor or width % self.divisor:
            raise ValueError(f"sides must divide by {self.divisor}: {tuple(shape)}")
        return [(height // stride, width // stride) for stride in self.strides]

    @torch.no_grad()
    def extract(self, x: Tensor) -> list[Tensor]:
        """The feature maps of images, (N, C', h, w) float32 for each layer.

        x: (N, C, H, W) in [0, 1]
        """
        self.grids(x.shape[2:])
        maps = self._apply_in_batches(lambda maps: maps, x)
        return [values.unflatten(0, (len(x), self.views)).flatten(1, 2) for values in maps]

    @torch.no_grad()
    def embed(
        self,
        x: Tensor,
        *,
        window: int = 1,
        layer: int = 0,
        interpolation: Interpolation = "bilinear",
    ) -> Tensor:
        """The feature maps on the grid of one of them, concatenated, (N, sum of C', h, w) float32.

        x: (N, C, H, W) in [0, 1]
        window: side of the square over which each map is averaged beforehand, odd
        layer: index of the map that has the grid
        interpolation: of the maps to it
        """
        grid = self.grids(x.shape[2:])[layer]

        def join(maps: list[Tensor]) -> list[Tensor]:
            return [
                torch.cat([_on_grid(values, grid, window, interpolation) for values in maps], 1)
            ]

        (joined,) = self._apply_in_batches(join, x)
        return joined.unflatten(0, (len(x), self.views)).flatten(1, 2)

    def _apply_in_batches(
        self, change: Callable[[list[Tensor]], list[Tensor]], x: Tensor
    ) -> list[Tensor]:
        """The maps of every view, changed, (N * views, ...) each."""
        images = x if self.views == 1 else x.flatten(0, 1)[:, None]

        def apply(rows: Tensor) -> list[Tensor]:
            return change(self.call_net(lambda net, values: net(values), rows))

        return apply_to_lists_in_batches(apply, self.batch, images.float().expand(-1, 3, -1, -1))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(list(self.weights_id.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        theirs = bytes(state.tolist()).decode()
        if theirs != self.weights_id:
            raise FeaturesError(
                f"this detector was fitted on {theirs}, and here are {self.weights_id}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureMaps:
        super()._apply(fn, recurse)
        self._unregistered[0]._apply(fn)
        return self


def _on_grid(
    values: Tensor, grid: tuple[int, int], window: int, interpolation: Interpolation
) -> Tensor:
    """A map averaged over squares, zeros beyond its edge, and resized to a grid."""
    if window > 1:
        values = avg_pool2d(values, window, 1, window // 2)
    if tuple(values.shape[2:]) != grid:
        values = interpolate(values, size=list(grid), mode=interpolation)
    return values
