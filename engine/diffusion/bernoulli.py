"""The Bernoulli process: bits are flipped until nothing is left of them, and the reverse steps.

Sohl-Dickstein et al. 2015, appendix B.2; Wolleb et al., "Binary Noise for Binary Tasks: Masked
Bernoulli Diffusion for Unsupervised Anomaly Detection", MICCAI 2024, arXiv 2403.11667.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..runtime.rng import Rng
from .gaussian import alpha_bar_at
from .schedule import Schedule


def uniform_noise(rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
    """Draw (N, *shape) float64, uniform in (0, 1): a bit is 1 where this is below its probability.

    rng: N streams
    shape: of a sample, (C, *S)
    level: (N,), which changes nothing

    >>> import torch
    >>> from adbench.engine.diffusion.bernoulli import uniform_noise
    >>> from adbench.engine.runtime.rng import Rng
    >>> uniform_noise(Rng(["a", "b"]), (1, 4), torch.tensor([1, 2])).shape
    torch.Size([2, 1, 4])
    """
    return rng.uniform(shape)


class Bernoulli(nn.Module):
    """The Bernoulli process: x is (N, C, *S) of 0 and 1, a level (N,) int64 in 0..T.

    alpha_bar is the share of a bit's deviation from a half that remains:
    q(x_l = 1 | x_0) = alpha_bar x_0 + (1 - alpha_bar) / 2.

    schedule: alpha_bar of every level
    forward: erasure is the reference's code, in which ones are lost and zeros stay:
        (1 - alpha_bar) / 2 is missing, though not from the posterior
    posterior: of a soft x_0: inserted as it is (the reference's), or the mixture over both bits,
        which is exact

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> import torch
    >>> from adbench.engine.diffusion.bernoulli import Bernoulli
    >>> process = Bernoulli(build_schedule("even", 4))
    >>> process.probability(torch.ones(1, 1, 2), torch.tensor([2]))
    tensor([[[0.7500, 0.7500]]])
    """

    prediction_types: tuple[str, ...] = ("flip",)

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
        """x at a level, from x_0 and `uniform_noise`."""
        return (noise < self.probability(x, level)).to(x.dtype)

    def probability(self, x: Tensor, level: Tensor) -> Tensor:
        """q(x_level = 1 | x_0), (N, C, *S)."""
        return self._forward_probability(x, alpha_bar_at(self.schedule, level, x))

    def add_noise_step(
        self, x: Tensor, start_level: Tensor, end_level: Tensor, noise: Tensor
    ) -> Tensor:
        """x at the higher level `end_level`, from x at `start_level` and `uniform_noise`."""
        start = alpha_bar_at(self.schedule, start_level, x)
        ratio = alpha_bar_at(self.schedule, end_level, x) / start
        return (noise < self._forward_probability(x, ratio)).to(x.dtype)

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """P(x_0 = 1) where `noise` is the probability that x differs from x_0."""
        return (x - noise).abs()

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The probability that x differs from x_0; for bits, whether it does."""
        return (x - clean).abs()

    def noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor, prediction_type: str
    ) -> tuple[Tensor | None, Tensor]:
        """The probability of a flip, from its logit, and P(x_0 = 1)."""
        # in float64: a sigmoid's last digit depends on its neighbours
        flipped = prediction.double().sigmoid().to(x.dtype)
        return flipped, self.x0_from_noise(x, flipped, level)

    def prediction_error(
        self, prediction: Tensor, x: Tensor, noisy: Tensor, noise: Tensor, level: Tensor,
        prediction_type: str, power: int,
    ) -> Tensor:  # fmt: skip
        """The cross-entropy of the flips, in bits, per value."""
        flips = self.noise_from_x0(noisy, x, level)
        error = binary_cross_entropy_with_logits(prediction, flips, reduction="none")
        return error / math.log(2)

    def reverse_probability(
        self, x: Tensor, clean: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        """P(x_end = 1 | x_start, x_0), where clean may be soft: P(x_0 = 1)."""
        if not self.mixture:
            return self._posterior_probability(x, clean, start_level, end_level)
        one = self._posterior_probability(x, torch.ones_like(clean), start_level, end_level)
        zero = self._posterior_probability(x, torch.zeros_like(clean), start_level, end_level)
        return clean * one + (1 - clean) * zero

    def _forward_probability(self, x: Tensor, alpha_bar: Tensor) -> Tensor:
        flipped = 0 if self.erasure else ((1 - alpha_bar) / 2).to(x.dtype)
        return alpha_bar.to(x.dtype) * x + flipped

    def _posterior_probability(
        self, x: Tensor, clean: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:
        alpha_bar = alpha_bar_at(self.schedule, end_level, x)
        ratio = alpha_bar_at(self.schedule, start_level, x) / alpha_bar
        ratio, step_flip = ratio.to(x.dtype), ((1 - ratio) / 2).to(x.dtype)
        alpha_bar, flip = alpha_bar.to(x.dtype), ((1 - alpha_bar) / 2).to(x.dtype)
        one = (ratio * x + step_flip) * (alpha_bar * clean + flip)
        zero = (ratio * (1 - x) + step_flip) * (alpha_bar * (1 - clean) + flip)
        return one / (one + zero)
