"""Random views of training samples, each sample's from its own stream: affine ones, as
torchvision's RandomAffine draws them, and a scanner's faults, as TorchIO's transforms by default.

Faults take x (N, C, *S) and the chance that a sample has them; without, it is as it was.
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


def random_shift(x: Tensor, rng: Rng, share: float) -> Tensor:
    """Moved by up to +-part of each side; as it is where that is 0."""
    return random_affine(x, rng.fork("augment"), translate=(share, share)) if share else x


def random_gamma(x: Tensor, rng: Rng, probability: float = 0.5) -> Tensor:
    """x in [0, 1] to a power between exp(-0.3) and exp(0.3)."""
    drawn, power = rng.uniform((2,)).float().T
    power = torch.where(drawn < probability, (0.6 * power - 0.3).exp(), 1.0)
    return x.clamp(min=0) ** _broadcast_samples(power, x)


def random_bias_field(
    x: Tensor, rng: Rng, probability: float = 0.25, *, order: int = 3, maximum: float = 0.5
) -> Tensor:
    """Brighter here than there: times the exponential of a polynomial of that order, the axes going
    from -1 to 1, its coefficients up to +-most."""
    terms = [e for e in product(range(order + 1), repeat=x.ndim - 2) if sum(e) <= order]
    u = rng.uniform((1 + len(terms),)).float()
    total = torch.zeros_like(x[:, :1])
    for term, coefficient in zip(terms, (2 * u[:, 1:] - 1).T * maximum, strict=True):
        part = _broadcast_samples(coefficient, x)
        for axis, exponent in enumerate(term, start=2):
            place = torch.linspace(-1, 1, x.shape[axis], device=x.device)
            part = part * _broadcast_axis(place**exponent, axis, x)
        total = total + part
    return torch.where(_broadcast_samples(u[:, 0] < probability, x), x * total.exp(), x)


def random_blur(x: Tensor, rng: Rng, probability: float = 0.25, *, maximum: float = 2.0) -> Tensor:
    """With a Gaussian along each axis, of a deviation up to `maximum` pixels; beyond an edge is the
    edge."""
    u, reach = rng.uniform((x.ndim - 1,)).float(), math.ceil(4 * maximum)
    offset = torch.arange(-reach, reach + 1, device=x.device)
    seen = x
    for axis in range(2, x.ndim):
        deviation = (maximum * u[:, axis - 1, None]).clamp(min=1e-3)
        weight = (-0.5 * (offset / deviation) ** 2).exp()
        weight = weight / weight.sum(1, keepdim=True)  # (N, 2 reach + 1)
        place = torch.arange(x.shape[axis], device=x.device)
        moved = (
            seen.index_select(axis, (place + off).clamp(0, len(place) - 1))
            for off in offset.tolist()
        )
        parts = zip(weight.T, moved, strict=True)
        seen = sum((_broadcast_samples(w, x) * y for w, y in parts), torch.zeros_like(x))
    return torch.where(_broadcast_samples(u[:, 0] < probability, x), seen, x)


def random_ghosting(
    x: Tensor, rng: Rng, probability: float = 0.5, *, counts: tuple[int, int] = (4, 10),
    strength: tuple[float, float] = (0.5, 1.0), protected: float = 0.02,
) -> Tensor:  # fmt: skip
    """Copies of itself along one axis, so many of them: every so many frequencies of that axis lose
    that share; but for the share `protected` of all around 0."""
    u = rng.uniform((4,)).float()
    count = counts[0] + (u[:, 1] * (counts[1] - counts[0] + 1)).long()
    lost = strength[0] + (strength[1] - strength[0]) * u[:, 2]
    which = 2 + (u[:, 3] * (x.ndim - 2)).long()
    seen = x
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        step = torch.fft.fftfreq(n, 1 / n, device=x.device).round().long().abs()
        weak = (step % count[:, None] == 0) & (step > protected * n / 2)  # (N, n)
        gain = 1 - lost[:, None] * weak
        gain = gain.view(len(x), *[n if a == axis else 1 for a in range(1, x.ndim)])
        made = torch.fft.ifft(torch.fft.fft(x, dim=axis) * gain, dim=axis).real
        mine = (u[:, 0] < probability) & (which == axis)
        seen = torch.where(_broadcast_samples(mine, x), made, seen)
    return seen


def _broadcast_samples(value: Tensor, x: Tensor) -> Tensor:
    """(N,) as it broadcasts with x (N, C, *S)."""
    return value.view(-1, *[1] * (x.ndim - 1))


def _broadcast_axis(value: Tensor, axis: int, x: Tensor) -> Tensor:
    """(n,) as it broadcasts with that axis of x."""
    return value.view([-1 if a == axis else 1 for a in range(x.ndim)])
