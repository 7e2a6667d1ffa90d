"""Rectified flow: a sample goes to noise along a straight line, whose velocity a network predicts.

Liu, Gong and Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified
Flow", ICLR 2023, equation 1, https://arxiv.org/abs/2209.03003; Lipman et al., "Flow Matching for
Generative Modeling", ICLR 2023, section 4.1 (the optimal transport path, sigma_min = 0). Time runs
here from the sample at 0 to the noise at 1, in theirs the other way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..noise.noise import Noise, gaussian
from .schedule import Schedule


class Flow(nn.Module):
    """The process x_t = (1 - t) x_0 + t noise, t = level / T; x is (N, C, *S), a level (N,) int64.

    The network predicts the velocity, noise - x_0, which every t from 0 to 1 has: so x_0 can be
    estimated from pure noise too. Coefficients are computed in float64.

    schedule: only its number of levels counts; the process's own, `flow_schedule`, has the
        signal-to-noise ratio of the line

    >>> from adbench.engine.diffusion.flow import Flow
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> import torch
    >>> process, level = Flow(build_schedule("linear", 4)), torch.tensor([1])
    >>> process.add_noise(torch.ones(1, 1, 2), level, torch.zeros(1, 1, 2))
    tensor([[[0.7500, 0.7500]]])
    """

    name = "flow"
    prediction_types: tuple[str, ...] = ("velocity",)

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = flow_schedule(schedule.T)
        self.default_noise: Noise = gaussian

    def time(self, level: Tensor, like: Tensor) -> Tensor:
        """t of each sample's level, (N,) -> 0..1, float64, shaped to multiply (N, C, *S)."""
        return (level.double() / self.schedule.T).view(-1, *[1] * (like.ndim - 1))

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x at a level, from x_0 and noise."""
        t = self.time(level, x)
        return (1 - t).to(x.dtype) * x + t.to(x.dtype) * noise

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level, below T, and its noise imply."""
        t = self.time(level, x)
        return (x - t.to(x.dtype) * noise) / (1 - t).to(x.dtype)

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """The noise that x at this level, above 0, and its x_0 imply."""
        t = self.time(level, x)
        return (x - (1 - t).to(x.dtype) * clean) / t.to(x.dtype)

    def noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor, prediction_type: str
    ) -> tuple[Tensor | None, Tensor]:
        """Both ends of the line through x in the direction of the velocity."""
        t = self.time(level, x)
        return x + (1 - t).to(x.dtype) * prediction, x - t.to(x.dtype) * prediction

    def prediction_error(
        self, prediction: Tensor, x: Tensor, noisy: Tensor, noise: Tensor, level: Tensor,
        prediction_type: str, power: int,
    ) -> Tensor:  # fmt: skip
        """|prediction - (noise - x_0)| ** power, per value."""
        return (prediction - (noise - x)).abs() ** power

    def move(
        self, x: Tensor, velocity: Tensor, start_level: Tensor, end_level: Tensor
    ) -> Tensor:  # fmt: skip
        """x at `end_level`, up or down, where its velocity stays as it is: Euler's step."""
        span = self.time(end_level, x) - self.time(start_level, x)
        return x + span.to(x.dtype) * velocity


def flow_schedule(T: int = 1000) -> Schedule:
    """Build the schedule whose levels have the signal-to-noise ratio of rectified flow,
    ((1 - t) / t) ** 2 at t = level / T: 0 at T, where nothing of the sample is left.

    T: number of levels

    >>> from adbench.engine.diffusion.flow import flow_schedule
    >>> flow_schedule(4).alpha_bar
    tensor([1.0000, 0.9000, 0.5000, 0.1000, 0.0000], dtype=torch.float64)
    """
    t = torch.arange(T + 1, dtype=torch.float64) / T
    alpha_bar = (1 - t).square() / ((1 - t).square() + t.square())
    return Schedule(1 - alpha_bar[1:] / alpha_bar[:-1], f"flow {T}")
