"""The Gaussian forward process and the steps back along it, in levels; every level per sample.

Ho et al. 2020 (DDPM), equations 4, 6, 7; Song et al. 2021 (DDIM), equations 12 and 16.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from .schedule import Schedule

Variance = Literal["small", "large"]
"""DDPM's two fixed choices for the noise of a step back: the posterior's, or the forward one's."""


class Gaussian(nn.Module):
    """x is (N, C, *S), a level is (N,) int64 in 0..T. Coefficients are computed in float64."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def disturb(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x_0 brought to a level in one go."""
        kept = self._kept(level, x)
        return kept.sqrt().float() * x + (1 - kept).sqrt().float() * noise

    def further(self, x: Tensor, here: Tensor, there: Tensor, noise: Tensor) -> Tensor:
        """A sample at level `here` brought on to the higher level `there`."""
        ratio = self._kept(there, x) / self._kept(here, x)
        return ratio.sqrt().float() * x + (1 - ratio).sqrt().float() * noise

    def clean(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level and its noise imply."""
        kept = self._kept(level, x)
        return (x - (1 - kept).sqrt().float() * noise) / kept.sqrt().float()

    def noise(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The noise that x at this level (above 0) and its x_0 imply."""
        kept = self._kept(level, x)
        return (x - kept.sqrt().float() * clean) / (1 - kept).sqrt().float()

    def back(
        self,
        clean: Tensor,
        eps: Tensor,
        here: Tensor,
        there: Tensor,
        noise: Tensor | None,
        *,
        eta: float = 1.0,
        variance: Variance = "small",
    ) -> Tensor:
        """One step down from `here` to `there`, given the estimates of x_0 and of the noise.

        eta: 0 is DDIM, 1 is DDPM's ancestral step; `noise` may be None where eta is 0. Nothing is
        added on arrival at level 0. With variance "large" the mean is DDPM's and the noise wider.
        """
        a, b = self._kept(here, clean), self._kept(there, clean)
        posterior = (1 - b) / (1 - a) * (1 - a / b)
        spread = eta**2 * posterior
        x = b.sqrt().float() * clean + (1 - b - spread).clamp(min=0).sqrt().float() * eps
        if noise is None:
            return x
        wide = spread if variance == "small" else eta**2 * (1 - a / b)
        return x + (wide * (b < 1)).sqrt().float() * noise

    def _kept(self, level: Tensor, like: Tensor) -> Tensor:
        return self.schedule.kept[level].view(-1, *[1] * (like.ndim - 1))
