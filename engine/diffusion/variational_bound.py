"""The loss of a learned variance: the variational bound of a reverse step, in bits.

Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, section 3.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .gaussian import Gaussian, alpha_bar_at, interpolate_variance


def variational_bound(
    process: Gaussian,
    x: Tensor,
    estimate: Tensor,
    learned_variance: Tensor,
    noisy: Tensor,
    level: Tensor,
) -> Tensor:
    """Return the KL divergence of the true reverse step to level - 1 from the network's, per value
    (N, C, *S), in bits.

    From level 1 to the sample it is minus the logarithm of the sample's likelihood in steps of
    1/127.5, as wide as 8-bit values are on [-1, 1].

    process: whose posterior is the true step
    x: x_0, (N, C, *S)
    estimate: of x_0, without its gradient
    learned_variance: the network's output, about -1..1
    noisy: x at the level
    level: (N,) int64, at least 1

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.variational_bound import variational_bound
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> process, x, level = Gaussian(linear_schedule()), torch.zeros(1, 1, 2), torch.tensor([500])
    >>> variational_bound(process, x, x, -torch.ones(1, 1, 2), x, level)
    tensor([[[0., 0.]]])
    """
    schedule, next_level = process.schedule, level - 1
    a, b = alpha_bar_at(schedule, level, x), alpha_bar_at(schedule, next_level, x)
    above = level.clamp(min=2)  # the posterior's variance at level 1 is 0: level 2's stands in
    c, d = alpha_bar_at(schedule, above, x), alpha_bar_at(schedule, above - 1, x)
    small, large = (1 - d) / (1 - c) * (1 - c / d), 1 - a / b
    variance = interpolate_variance(small, large, learned_variance)
    true_mean = process.posterior_mean(noisy, x, level, next_level).double()
    mean = process.posterior_mean(noisy, estimate, level, next_level).double()
    square = (true_mean - mean).square()
    kl = ((variance / small).log() + (small + square) / variance - 1) / 2
    last = -_discretized_log_likelihood(x.double(), mean, variance.sqrt())
    return (torch.where(b == 1, last, kl) / math.log(2)).to(x.dtype)


def _discretized_log_likelihood(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The logarithm of a normal distribution's mass within 1/255 of x; the ends of [-1, 1] take all
    that is beyond them."""
    upper = torch.special.ndtr((x + 1 / 255 - mean) / deviation)
    lower = torch.special.ndtr((x - 1 / 255 - mean) / deviation)
    upper = torch.where(x > 0.999, 1.0, upper)
    lower = torch.where(x < -0.999, 0.0, lower)
    return (upper - lower).clamp(min=1e-12).log()
