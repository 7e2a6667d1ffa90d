"""A network seen as one question: given x at a level, what was x_0?

Samplers ask nothing else, so none of them knows what the network was trained to predict. Here
stands also the one rule that makes results independent of batching: at inference the network only
ever sees one fixed, padded batch shape.
"""

from __future__ import annotations

import json
from typing import Literal

import torch
from torch import Tensor, nn

from .batches import in_batches
from .noise import Noise, gaussian
from .process import Gaussian
from .rng import Rng
from .run import Batched
from .schedule import Schedule

Predicts = Literal["noise", "clean"]


class Mismatch(ValueError):
    """Weights were trained for another schedule, prediction type, range or noise."""


class Denoiser(Batched):
    """net: (x (N, C, *S), timesteps (N,)) -> its prediction; it is called with t = level - 1, as
    the papers' arrays count.

    clip: the range x_0 is known to lie in; estimates are clamped to it at inference
    about: what else the weights were trained for (the noise); travels in the state dict with
        schedule and prediction type, and a mismatch refuses to load
    batch: rows in every network call at inference
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        *,
        predicts: Predicts = "noise",
        clip: tuple[float, float] | None = None,
        about: str = "",
    ) -> None:
        super().__init__()
        self.net, self.process = net, Gaussian(schedule)
        self.predicts: Predicts = predicts
        self.clip, self.about = clip, about
        self.evaluations = 0

    @property
    def schedule(self) -> Schedule:
        return self.process.schedule

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The estimate of x_0, (N, C, *S), clipped; level is (N,), at least 1."""
        if self.predicts == "clean":
            clean = self.ask(x, level)
        else:
            clean = self.process.clean(x, self.ask(x, level), level)
        return clean if self.clip is None else clean.clamp(*self.clip)

    def ask(self, x: Tensor, level: Tensor) -> Tensor:
        """The network's own prediction, (N, C, *S) float32."""
        if self.training:
            return self._net(x, level)
        self.evaluations += len(x)
        return in_batches(self._net, self.batch, x, level)

    def loss(
        self,
        x: Tensor,
        rng: Rng,
        *,
        noise: Noise = gaussian,
        region: Tensor | None = None,
        counts: Literal["region", "everywhere"] = "region",
        power: Literal[1, 2] = 2,
        max_level: int | None = None,
    ) -> Tensor:
        """Mean |error| ** power of the prediction at a level uniform on 1..max_level, (N,).

        max_level: on the 1000-step scale, all if None.

        region: (N, 1, *S) bool; only there is x disturbed. counts: where error counts; the mean is
        over all of S either way.
        """
        highest = self.schedule.level(1000 if max_level is None else max_level)
        level = 1 + rng.fork("level").integers(highest)
        eps = noise(rng.fork("noise"), x.shape[1:], level)
        x_l = self.process.disturb(x, level, eps)
        if region is not None:
            x_l = torch.where(region, x_l, x)
        error = (self.ask(x_l, level) - (eps if self.predicts == "noise" else x)).abs() ** power
        if region is not None and counts == "region":
            error = error * region
        return error.flatten(1).mean(1)

    def get_extra_state(self) -> Tensor:
        facts = {
            "schedule": self.schedule.name,
            "predicts": self.predicts,
            "clip": self.clip,
            "about": self.about,
        }
        return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        theirs, ours = bytes(state.tolist()), bytes(self.get_extra_state().tolist())
        if theirs != ours:
            raise Mismatch(
                f"these weights were trained as {theirs.decode()}, not as {ours.decode()}"
            )

    def _net(self, x: Tensor, level: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.net(x, (level - 1).clamp(min=0)).float()
