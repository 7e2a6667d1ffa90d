"""Transparency diffusion: within a mask, a sample is replaced by an anomaly more and more opaque.

Fučka, Zavrtanik and Skočaj, "TransFusion - A Transparency-Based Diffusion Model for Anomaly
Detection", ECCV 2024, https://arxiv.org/abs/2311.09999.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..noise.noise import Noise
from ..runtime.rng import Rng
from .schedule import Schedule, even_schedule


class Transparency(nn.Module):
    """x_l = (1 - M) x_0 + M ((1 - opacity) x_0 + opacity e), opacity = level / T, in a mask M.

    x is (N, C, *S), a level (N,) int64 in 0..T. The noise is (N, C + 1, *S): the appearance e of an
    anomaly, and its mask. A network of x (and of what else it is shown) predicts three things, side
    by side: the appearance times opacity and mask (C), what is normal (C), and the logit of the
    mask (1).

    schedule: only its number of levels counts

    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.engine.diffusion.transparency import Transparency
    >>> import torch
    >>> process, inside = Transparency(build_schedule("even", 4)), torch.tensor([[[1.0, 0.0]]])
    >>> noise = torch.cat([torch.zeros(1, 1, 2), inside], 1)
    >>> process.add_noise(torch.ones(1, 1, 2), torch.tensor([1]), noise)
    tensor([[[0.7500, 1.0000]]])
    """

    name = "transparency"
    prediction_types: tuple[str, ...] = ("clean",)

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = even_schedule(schedule.T)
        self.default_noise: Noise = no_anomaly

    def opacity(self, level: Tensor, like: Tensor) -> Tensor:
        """Of each sample's level, (N,) -> 0..1, shaped and typed to multiply (N, C, *S)."""
        share = level.double() / self.schedule.T
        return share.view(-1, *[1] * (like.ndim - 1)).to(like.dtype)

    def add_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x with the anomaly, as opaque as the level."""
        return x + self.opacity(level, x) * noise[:, -1:] * (noise[:, :-1] - x)

    def x0_from_noise(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The x_0 that x at this level, below T, and its anomaly imply."""
        share = self.opacity(level, x) * noise[:, -1:]
        return (x - share * noise[:, :-1]) / (1 - share)

    def noise_from_x0(self, x: Tensor, clean: Tensor, level: Tensor) -> Tensor:
        """What the anomaly added."""
        return x - clean

    def noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor, prediction_type: str
    ) -> tuple[Tensor | None, Tensor]:
        """The appearance times opacity and mask, (N, C, *S); and what is normal with the
        probability of the mask, (N, C + 1, *S)."""
        channels = (prediction.shape[1] - 1) // 2
        appearance, normal, logit = prediction.split([channels, channels, 1], 1)
        # in float64: a sigmoid's last digit depends on its neighbours
        return appearance, torch.cat([normal, logit.double().sigmoid().to(normal.dtype)], 1)

    def prediction_error(
        self, prediction: Tensor, x: Tensor, noisy: Tensor, noise: Tensor, level: Tensor,
        prediction_type: str, power: int,
    ) -> Tensor:  # fmt: skip
        """|normal - x| ** power, per value, of the predicted normal alone."""
        return (self.noise_and_x0(noisy, prediction, level, "clean")[1][:, :-1] - x).abs() ** power

    def step(
        self, x: Tensor, appearance: Tensor, normal: Tensor, mask: Tensor, start_level: Tensor,
        end_level: Tensor,
    ) -> Tensor:  # fmt: skip
        """x at the lower level `end_level`: a part of the anomaly removed, a part of the normal
        put in its place.

        appearance: (N, C, *S), times the opacity at `start_level`
        normal: (N, C, *S)
        mask: (N, 1, *S)
        """
        start, end = self.opacity(start_level, x), self.opacity(end_level, x)
        return x + (start - end) * mask * (normal - appearance / start)


def no_anomaly(rng: Rng, shape: Sequence[int], level: Tensor) -> Tensor:
    """Return an anomaly with an empty mask, (N, C + 1, *S) of 0.

    rng: N streams, of which nothing is drawn
    shape: of a sample, (C, *S)
    level: (N,), which changes nothing

    >>> import torch
    >>> from adbench.engine.diffusion.transparency import no_anomaly
    >>> from adbench.engine.runtime.rng import Rng
    >>> no_anomaly(Rng(["a"]), (1, 4), torch.tensor([1])).shape
    torch.Size([1, 2, 4])
    """
    return torch.zeros(len(rng), shape[0] + 1, *shape[1:], device=rng.device)
