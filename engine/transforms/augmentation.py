"""Random views of training samples, each sample's from its own stream: affine ones, as
torchvision's RandomAffine draws them, and a scanner's faults, as TorchIO's transforms by default.

The faults of a scanner take x (N, C, *S) and the probability that a sample has them.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..runtime.rng import Rng


def random_affine(
    x: Tensor,
    rng: Rng,
    *,
    degrees: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    flip: float = 0.0,
) -> Tensor:
    """Rotate, shift, scale and mirror images at random, (N, C, H, W).

    Outside the image is background, 0. Signals and volumes are returned as they are.

    x: (N, C, H, W)
    rng: one stream per sample
    degrees: rotate by up to +-degrees
    translate: shift by up to +-(width, height), as shares of the side
    scale: range of the magnification
    flip: probability of mirroring left and right

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.augmentation import random_affine
    >>> random_affine(torch.zeros(2, 1, 8, 8), Rng(["a", "b"]), degrees=10).shape
    torch.Size([2, 1, 8, 8])
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


def random_shift(x: Tensor, rng: Rng, share: float) -> Tensor:
    """Shift images by up to +-`share` of each side, (N, C, H, W); signals and volumes never.

    x: samples
    rng: one stream per sample
    share: 0 changes nothing

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.augmentation import random_shift
    >>> random_shift(torch.zeros(1, 1, 8, 8), Rng(["a"]), 0.1).shape
    torch.Size([1, 1, 8, 8])
    """
    return random_affine(x, rng.fork("augment"), translate=(share, share)) if share else x


def random_gamma(x: Tensor, rng: Rng, probability: float = 0.5) -> Tensor:
    """Raise x in [0, 1] to a power between exp(-0.3) and exp(0.3).

    x: (N, C, *S) in [0, 1]
    rng: one stream per sample
    probability: that a sample is changed

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.augmentation import random_gamma
    >>> random_gamma(torch.ones(1, 1, 2), Rng(["a"]), 1.0)
    tensor([[[1., 1.]]])
    """
    draw, power = rng.uniform((2,)).float().T
    power = torch.where(draw < probability, (0.6 * power - 0.3).exp(), 1.0)
    return x.clamp(min=0) ** _broadcast_samples(power, x)


def random_bias_field(
    x: Tensor, rng: Rng, probability: float = 0.25, *, order: int = 3, maximum: float = 0.5
) -> Tensor:
    """Multiply x by a smooth field: the exponential of a polynomial, the axes going from -1 to 1.

    x: (N, C, *S)
    rng: one stream per sample
    probability: that a sample is changed
    order: of the polynomial
    maximum: of its coefficients, in absolute value

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.augmentation import random_bias_field
    >>> random_bias_field(torch.ones(1, 1, 8, 8), Rng(["a"]), 0.0).max()
    tensor(1.)
    """
    terms = [e for e in product(range(order + 1), repeat=x.ndim - 2) if sum(e) <= order]
    u = rng.uniform((1 + len(terms),)).float()
    total = torch.zeros_like(x[:, :1])
    for term, coefficient in zip(terms, (2 * u[:, 1:] - 1).T * maximum, strict=True):
        summand = _broadcast_samples(coefficient, x)
        for axis, exponent in enumerate(term, start=2):
            position = torch.linspace(-1, 1, x.shape[axis], device=x.device)
            summand = summand * _broadcast_axis(position**exponent, axis, x)
        total = total + summand
    return torch.where(_broadcast_samples(u[:, 0] < probability, x), x * total.exp(), x)


def random_blur(x: Tensor, rng: Rng, probability: float = 0.25, *, maximum: float = 2.0) -> Tensor:
    """Blur by a Gaussian along each axis; beyond an edge the edge is repeated.

    x: (N, C, *S)
    rng: one stream per sample
    probability: that a sample is changed
    maximum: of the standard deviation, in pixels

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.augmentation import random_blur
    >>> random_blur(torch.ones(1, 1, 8), Rng(["a"]), 0.0).max()
    tensor(1.)
    """
    u, reach = rng.uniform((x.ndim - 1,)).float(), math.ceil(4 * maximum)
    offsets = range(-reach, reach + 1)
    offset = torch.arange(-reach, reach + 1, device=x.device)
    blurred = x
    for axis in range(2, x.ndim):
        deviation = (maximum * u[:, axis - 1, None]).clamp(min=1e-3)
        weight = (-0.5 * (offset / deviation) ** 2).exp()
        weight = weight / weight.sum(1, keepdim=True)  # (N, 2 reach + 1)
        index = torch.arange(x.shape[axis], device=x.device)
        neighbours = (
            blurred.index_select(axis, (index + off).clamp(0, len(index) - 1)) for off in offsets
        )
        parts = zip(weight.T, neighbours, strict=True)
        blurred = sum((_broadcast_samples(w, x) * y for w, y in parts), torch.zeros_like(x))
    return torch.where(_broadcast_samples(u[:, 0] < probability, x), blurred, x)


def random_ghosting(
    x: Tensor, rng: Rng, probability: float = 0.5, *, counts: tuple[int, int] = (4, 10),
    strength: tuple[float, float] = (0.5, 1.0), protected: float = 0.02,
) -> Tensor:  # fmt: skip
    """Add ghosts, copies of the sample along one axis: every so many frequencies of it lose power.

    x: (N, C, *S)
    rng: one stream per sample
    probability: that a sample is changed
    counts: range of the number of copies
    strength: range of the share that these frequencies lose
    protected: share of the frequencies, around 0, that lose nothing

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.transforms.augmentation import random_ghosting
    >>> random_ghosting(torch.ones(1, 1, 8, 8), Rng(["a"]), 0.0).max()
    tensor(1.)
    """
    u = rng.uniform((4,)).float()
    count = counts[0] + (u[:, 1] * (counts[1] - counts[0] + 1)).long()
    loss = strength[0] + (strength[1] - strength[0]) * u[:, 2]
    ghost_axis = 2 + (u[:, 3] * (x.ndim - 2)).long()
    result = x
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        frequency = torch.fft.fftfreq(n, 1 / n, device=x.device).round().long().abs()
        weak = (frequency % count[:, None] == 0) & (frequency > protected * n / 2)  # (N, n)
        gain = 1 - loss[:, None] * weak
        gain = gain.view(len(x), *[n if a == axis else 1 for a in range(1, x.ndim)])
        ghosted = torch.fft.ifft(torch.fft.fft(x, dim=axis) * gain, dim=axis).real
        changed = (u[:, 0] < probability) & (ghost_axis == axis)
        result = torch.where(_broadcast_samples(changed, x), ghosted, result)
    return result


def _broadcast_samples(value: Tensor, x: Tensor) -> Tensor:
    """Shape (N,) to broadcast with x (N, C, *S)."""
    return value.view(-1, *[1] * (x.ndim - 1))


def _broadcast_axis(value: Tensor, axis: int, x: Tensor) -> Tensor:
    """Shape (n,) to broadcast with that axis of x."""
    return value.view([-1 if a == axis else 1 for a in range(x.ndim)])
