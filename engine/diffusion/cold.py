"""Cold diffusion: a sample is degraded by a function of the caller's instead of by noise.

Bansal et al., "Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise", NeurIPS 2023,
algorithm 2. https://arxiv.org/abs/2208.09392
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..noise.noise import Noise, gaussian
from .schedule import Schedule

Degradation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_0 (N, C, *S), level (N,) in 0..T, noise of each sample (N, ...)) -> x at that level.
At level 0 it returns x_0."""


class ColdDiffusion(nn.Module):
    """A process that degrades samples: by blur, a mask, a patch of another sample.

    schedule: whose levels the degradation counts in
    degrade: may ignore the noise
    name: of the degradation, for checkpoints
    default_noise: what the degradation draws for each sample

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.diffusion.cold import ColdDiffusion
    >>> import torch
    >>> fade = lambda x, level, noise: x * (1 - level.view(-1, 1, 1) / 4)
    >>> process = ColdDiffusion(build_schedule("even", 4), fade, name="fade")
    >>> process.add_noise(torch.ones(1, 1, 2), torch.tensor([1]), torch.zeros(1, 1, 2))
    tensor([[[0.7500, 0.7500]]])
    """

    prediction_types: tuple[str, ...] = ("clean",)

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
        """x_0 degraded to a level."""
        return self.degrade(x, level, noise)

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """x without what the degradation added."""
        return x - noise

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """What the degradation added."""
        return x - clean

    def noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor, prediction_type: str
    ) -> tuple[Tensor | None, Tensor]:
        """None, and x_0, which the network predicts."""
        return None, prediction

    def prediction_error(
        self, prediction: Tensor, x: Tensor, noisy: Tensor, noise: Tensor, level: Tensor,
        prediction_type: str, power: int,
    ) -> Tensor:  # fmt: skip
        """|prediction - x| ** power, per value."""
        return (prediction - x).abs() ** power

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
        """x at `end_level`, from x at `start_level` and the estimate of x_0.

        The difference of two degradations of the estimate cancels errors of the estimate, for a
        degradation that is linear in the level entirely.

        naive: the estimate degraded anew (algorithm 1)
        """
        degraded = self.degrade(clean, end_level, noise)
        if naive:
            return degraded
        return x - self.degrade(clean, start_level, noise) + degraded
