"""The Bernoulli process: bits are flipped until nothing is left of them, and the steps back.

Sohl-Dickstein et al. 2015, appendix B.2; Wolleb et al., "Binary Noise for Binary Tasks: Masked
Bernoulli Diffusion for Unsupervised Anomaly Detection", MICCAI 2024, arXiv 2403.11667.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..runtime.rng import Rng
from .gaussian import alpha_bar_at
from .schedule import Schedule


def uniform_noise(rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
    """What a bit is decided by, (N, *shape) float64 in (0, 1): it is 1 where this is below its
    probability."""
    return rng.uniform(shape)


class Bernoulli(nn.Module):
    """x is (N, C, *S) of 0 and 1, a level (N,) int64 in 0..T. `kept` is how much of a bit's
    deviation from a half is left: q(x_l = 1 | x_0) = kept x_0 + (1 - kept) / 2.

    forward: erasure is the reference's code, in which ones are lost and zeros stay: (1 - kept) / 2
    is missing, though not from the posterior
    posterior: of a soft x_0: put in as it is (the reference's), or the mixture over both bits,
    which is exact
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        forward: Literal["symmetric", "erasure"] = "symmetric",
        posterior: Literal["plugin", "mixture"] = "plugin",
    ) -> None:
        super().__init__()
        self.schedule, self.default_noise = schedule, uniform_noise
        self.erasure, self.mixture = forward == "erasure", posterior == "mixture"
        self.name = f"bernoulli {forward}"

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x_0 brought to a level; noise is `uniform`."""
        return (noise < self.probability(x, level)).to(x.dtype)

    def probability(self, x: Tensor, level: Tensor) -> Tensor:
        """q(x_level = 1 | x_0), (N, C, *S)."""
        kept = alpha_bar_at(self.schedule, level, x)
        return kept.to(x.dtype) * x + (0 if self.erasure else ((1 - kept) / 2).to(x.dtype))

    def add_noise_step(
        self, x: Tensor, start_level: Tensor, end_level: Tensor, noise: Tensor
    ) -> Tensor:
        """A sample at level `start_level` brought on to the higher level `end_level`."""
        ratio = alpha_bar_at(self.schedule, end_level, x) / alpha_bar_at(
            self.schedule, start_level, x
        )
        chance = ratio.to(x.dtype) * x + (0 if self.erasure else ((1 - ratio) / 2).to(x.dtype))
        return (noise < chance).to(x.dtype)

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """P(x_0 = 1) where `noise` is the probability that x differs from x_0."""
        return (x - noise).abs()

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The probability that x differs from x_0; for bits, whether."""
        return (x - clean).abs()

    def reverse_probability(
        self, x: Tensor, clean: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        """P(x_there = 1 | x_here, x_0), where clean may be soft: P(x_0 = 1)."""
        if not self.mixture:
            return self._posterior_probability(x, clean, start_level, end_level)
        one, zero = torch.ones_like(clean), torch.zeros_like(clean)
        given_one, given_zero = (
            self._posterior_probability(x, bit, start_level, end_level) for bit in (one, zero)
        )
        return clean * given_one + (1 - clean) * given_zero

    def _posterior_probability(
        self, x: Tensor, clean: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        b = alpha_bar_at(self.schedule, end_level, x)
        step = alpha_bar_at(self.schedule, start_level, x) / b
        step, lost = step.to(x.dtype), ((1 - step) / 2).to(x.dtype)
        kept, gone = b.to(x.dtype), ((1 - b) / 2).to(x.dtype)
        one = (step * x + lost) * (kept * clean + gone)
        zero = (step * (1 - x) + lost) * (kept * (1 - clean) + gone)
        return one / (one + zero)
