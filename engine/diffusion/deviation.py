"""A process whose noise is the deviation of a value from what is normal, which a network predicts.

Beizaee et al., CVPR 2025 (DeCo-Diff), arXiv 2503.19357: a normal sample deviates by nothing at any
level, so no noise is added to it before it is corrected, and a perfect network does not change it.
"""

from __future__ import annotations

from torch import Tensor

from .gaussian import Gaussian, alpha_bar_at


class Deviation(Gaussian):
    """x_l = x_0 + sigma_l d, where d takes the place of the noise, and DDIM's step keeps it.

    `solvers.DdimOde` goes down this process. The posterior of the Gaussian process does not apply.
    Where a Gaussian process adds noise e to a value, it deviates by
    d = e - (1 - sqrt(alpha_bar_l)) / sigma_l x_0, see `deviation_from_noise`.

    schedule: sigma_l is sqrt(1 - alpha_bar_l)

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.diffusion.deviation import Deviation
    >>> import torch
    >>> process, level = Deviation(build_schedule("even", 4)), torch.tensor([3])
    >>> process.add_noise(torch.ones(1, 1, 2), level, torch.zeros(1, 1, 2))
    tensor([[[1., 1.]]])
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
        """The d of x_0 where a Gaussian process adds noise up to a level (at least 1)."""
        alpha_bar = alpha_bar_at(self.schedule, level, x)
        return noise - ((1 - alpha_bar.sqrt()) / (1 - alpha_bar).sqrt()).to(x.dtype) * x

    def _noise_scale(self, x: Tensor, level: Tensor) -> Tensor:
        return (1 - alpha_bar_at(self.schedule, level, x)).sqrt().to(x.dtype)
