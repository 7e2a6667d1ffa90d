"""A process whose noise is how far a place has come off what is normal, and a network that says so.

Beizaee et al., CVPR 2025 (DeCo-Diff), arXiv 2503.19357: a sample that is normal deviates by nothing
at any level, so that it is not disturbed before it is corrected, and a perfect network leaves it.
"""

from __future__ import annotations

from torch import Tensor

from .gaussian import Gaussian, alpha_bar_at


class Deviation(Gaussian):
    """x_l = x_0 + sigma_l d, where d is what `noise_from_x0` is called elsewhere, and DDIM's step
    keeps it:
    `solvers.Ode` goes down this process. What a Gaussian's posterior says is not its own.

    Where a Gaussian process would have disturbed a place with noise e, it deviates by
    d = e - (1 - sqrt(kept_l)) / sigma_l x_0, see `deviation_from_noise`.
    """

    name = "deviation"

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        return x + self._noise_scale(x, level) * noise

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return x - self._noise_scale(x, level) * noise

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        return (x - clean) / self._noise_scale(x, level)

    def combine(self, clean: Tensor, eps: Tensor, level: Tensor) -> Tensor:
        return self.add_noise(clean, level, eps)

    def deviation_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The d of x_0 that a Gaussian process would bring to a level (at least 1) with noise."""
        kept = alpha_bar_at(self.schedule, level, x)
        return noise - ((1 - kept.sqrt()) / (1 - kept).sqrt()).to(x.dtype) * x

    def _noise_scale(self, x: Tensor, level: Tensor) -> Tensor:
        return (1 - alpha_bar_at(self.schedule, level, x)).sqrt().to(x.dtype)
