"""Samplers of the processes that are not Gaussian, each a step that many chains make at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.bernoulli import Bernoulli
from ..diffusion.cold import Cold
from ..diffusion.denoiser import Estimate
from .continuous_batching import Move, Rows, straight
from .step_noise import Draws


@dataclass(frozen=True)
class Flips:
    """The ancestral step of bits. Arrived at level 0, a bit is what is more likely."""

    process: Bernoulli
    draws: Draws
    memory = 0

    def moves(self, ladder: Sequence[int]) -> list[Move]:
        return straight(ladder)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, rows: Rows) -> Tensor:
        chance = self.process.back(x, estimate.clean, rows.here, rows.there)
        drawn = self.draws(rows, x) < chance
        last = (rows.there == 0).view(-1, *[1] * (x.ndim - 1))
        return torch.where(last, estimate.clean > 0.5, drawn).to(x.dtype)


@dataclass(frozen=True)
class Thaw:
    """Cold diffusion's step, by the difference of two degradations, or naive by one.

    drawn: what each chain was disturbed with, (M, ...)
    """

    process: Cold
    drawn: Tensor
    naive: bool = False
    memory = 0

    def moves(self, ladder: Sequence[int]) -> list[Move]:
        return straight(ladder)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, rows: Rows) -> Tensor:
        drawn = self.drawn[rows.job.to(self.drawn.device)]
        back = self.process.back
        return back(x, estimate.clean, rows.here, rows.there, drawn, naive=self.naive)
