"""Cold diffusion: a sample is degraded by a rule of the caller's instead of by noise.

Bansal et al., "Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise", NeurIPS 2023,
algorithm 2. https://arxiv.org/abs/2208.09392
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..noise.noise import Noise, gaussian
from .schedule import Schedule

Degradation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_0 (N, C, *S), level (N,) in 0..T, what was drawn for each sample (N, ...)) -> x at that level.
At level 0 it returns x_0."""


class ColdDiffusion(nn.Module):
    """degrade: blur, a mask, a foreign patch; it may leave aside what was drawn.

    name: what the degradation is, for checkpoints to remember
    """

    def __init__(
        self,
        schedule: Schedule,
        degrade: Degradation,
        *,
        name: str,
        default_noise: Noise = gaussian,
    ) -> None:
        super().__init__()
        self.schedule, self.degrade, self.default_noise = schedule, degrade, default_noise
        self.name = f"cold {name}"

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        return self.degrade(x, level, noise)

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return x - noise

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """What the degradation added."""
        return x - clean

    def reverse_step(
        self,
        x: Tensor,
        clean: Tensor,
        start_level: Tensor,
        end_level: Tensor,
        noise: Tensor,
        *,
        naive: bool,
    ) -> Tensor:
        """One step down. The difference of two degradations of the estimate forgives an estimate
        that is off, for one that is linear in the level entirely; naive: the estimate degraded
        anew (algorithm 1)."""
        down = self.degrade(clean, end_level, noise)
        return down if naive else x - self.degrade(clean, start_level, noise) + down
