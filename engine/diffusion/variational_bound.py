"""What a learned variance is trained by: the bound on the likelihood of a step down, in bits.

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
    x_l: Tensor,
    level: Tensor,
) -> Tensor:
    """KL of the true step down to level - 1 from the network's, per value (N, C, *S), in bits; from
    level 1 to the sample, minus the logarithm of its likelihood in steps of 1/127.5, as wide as
    8-bit values are on [-1, 1]. estimate: of x_0, without its gradient.
    """
    there = level - 1
    a, b = alpha_bar_at(process.schedule, level, x), alpha_bar_at(process.schedule, there, x)
    above = level.clamp(min=2)  # the posterior's variance at level 1 is 0: level 2's stands in
    c, d = alpha_bar_at(process.schedule, above, x), alpha_bar_at(process.schedule, above - 1, x)
    small, large = (1 - d) / (1 - c) * (1 - c / d), 1 - a / b
    wide = interpolate_variance(small, large, learned_variance)
    true, made = (
        process.posterior_mean(x_l, clean, level, there).double() for clean in (x, estimate)
    )
    kl = ((wide / small).log() + (small + (true - made).square()) / wide - 1) / 2
    last = -_discretized_log_likelihood(x.double(), made, wide.sqrt())
    return (torch.where(b == 1, last, kl) / math.log(2)).to(x.dtype)


def _discretized_log_likelihood(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The logarithm of a normal law's mass within 1/255 of x; the ends of [-1, 1] take all that is
    beyond them."""
    up = torch.special.ndtr((x + 1 / 255 - mean) / deviation)
    down = torch.special.ndtr((x - 1 / 255 - mean) / deviation)
    up = torch.where(x > 0.999, 1.0, up)
    down = torch.where(x < -0.999, 0.0, down)
    return (up - down).clamp(min=1e-12).log()
