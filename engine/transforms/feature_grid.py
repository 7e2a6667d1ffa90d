"""Between images, what a frozen backbone is shown, and maps on the grid of its features."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from torch import Tensor

from .blur import gaussian_blur
from .resizing import ResizePad, resize

MIN_INPUT_SIDE = 64
"""Pixels along the shorter side that a backbone is shown at least: its layers halve them four
times."""


def backbone_canvas(shape: Sequence[int], size: int, divisor: int) -> ResizePad:
    """The resizing of images to what a backbone is shown, in [0, 1].

    shape: (H, W) of the images
    size: pixels along the longest axis, or more where the shortest would have less than
        MIN_INPUT_SIDE
    divisor: what the sides are multiples of

    >>> from adbench.engine.transforms.feature_grid import backbone_canvas
    >>> backbone_canvas((20, 10), 32, 16).padded_shape
    (128, 64)
    """
    side = max(size, ceil(MIN_INPUT_SIDE * max(shape) / min(shape)))
    return ResizePad(tuple(shape), side, divisor, low=0.0)


def enlarge_grid(values: Tensor, canvas: ResizePad, blur: float = 0.0) -> tuple[Tensor, Tensor]:
    """Values on a grid as maps: of what the backbone was shown, (N, H', W'), and of the images,
    (N, H, W), at least 0.

    values: (N, h, w), at least 0
    canvas: of the backbone
    blur: standard deviation in pixels of what the backbone was shown

    >>> import torch
    >>> from adbench.engine.transforms.feature_grid import backbone_canvas, enlarge_grid
    >>> shown, map = enlarge_grid(torch.ones(1, 4, 4), backbone_canvas((16, 16), 64, 16))
    >>> shown.shape, map.shape
    (torch.Size([1, 64, 64]), torch.Size([1, 16, 16]))
    """
    shown = gaussian_blur(resize(values[:, None], canvas.padded_shape)[:, 0], blur)
    return shown, canvas.inverse(shown[:, None])[:, 0].clamp(min=0)
