"""A process whose noise is how far a place has come off what is normal, and a network that says so.

Beizaee et al., CVPR 2025 (DeCo-Diff), arXiv 2503.19357: a sample that is normal deviates by nothing
at any level, so that it is not disturbed before it is corrected, and a perfect network leaves it.
"""

from __future__ import annotations

from torch import Tensor

from .gaussian import Gaussian, kept_at


class Deviation(Gaussian):
    """x_l = x_0 + sigma_l d, where d is what `noise` is called elsewhere, and DDIM's step keeps it:
    `solvers.Ode` goes down this process. What a Gaussian's posterior says is not its own.

    Where a Gaussian process would have disturbed a place with noise e, it deviates by
    d = e - (1 - sqrt(kept_l)) / sigma_l x_0, see `direction`.
    """

    name = "deviation"

    def disturb(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        return x + self._sigma(x, level) * noise

    def clean(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return x - self._sigma(x, level) * noise

    def noise(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        return (x - clean) / self._sigma(x, level)

    def carried(self, clean: Tensor, eps: Tensor, there: Tensor) -> Tensor:
        return self.disturb(clean, there, eps)

    def direction(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The d of x_0 that a Gaussian process would bring to a level (at least 1) with noise."""
        kept = kept_at(self.schedule, level, x)
        return noise - ((1 - kept.sqrt()) / (1 - kept).sqrt()).to(x.dtype) * x

    def _sigma(self, x: Tensor, level: Tensor) -> Tensor:
        return (1 - kept_at(self.schedule, level, x)).sqrt().to(x.dtype)
