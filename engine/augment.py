"""Random affine views of training images, per sample, as torchvision's RandomAffine draws them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .rng import Rng


def affine(
    x: Tensor,
    rng: Rng,
    *,
    degrees: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    flip: float = 0.0,
) -> Tensor:
    """Rotate by up to +-degrees, shift by up to +-translate (width, height, as shares of the
    side), scale within the range and mirror with probability `flip`; (N, C, H, W) alike.

    Outside the image is background, 0. Signals and volumes are returned as they are.
    """
    if x.ndim != 4:
        return x
    u = rng.fork("affine").uniform((5,)).float()  # (N, 5)
    angle = (2 * u[:, 0] - 1) * math.radians(degrees)
    zoom = scale[0] + (scale[1] - scale[0]) * u[:, 1]
    mirror = torch.where(u[:, 2] < flip, -1.0, 1.0)
    h, w = x.shape[2:]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    shift = [2 * (2 * u[:, 3 + i] - 1) * part for i, part in enumerate(translate)]
    theta = torch.stack(
        [cos * mirror, sin * h / w, shift[0], -sin * mirror * w / h, cos, shift[1]], 1
    )
    grid = affine_grid(theta.view(-1, 2, 3), list(x.shape), align_corners=False)
    return grid_sample(x, grid, align_corners=False)


def shifted(x: Tensor, rng: Rng, part: float) -> Tensor:
    """Moved by up to +-part of each side; as it is where that is 0."""
    return affine(x, rng.fork("augment"), translate=(part, part)) if part else x
