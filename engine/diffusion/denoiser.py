"""A network seen as one question: given x at a level, what was x_0?

Samplers ask nothing else, so none of them knows what the network was trained to predict. Here
stands also the one rule that makes results independent of batching: at inference the network only
ever sees one fixed, padded batch shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..noise.noise import Noise
from ..runtime.fixed_batches import in_batches
from ..runtime.rng import Rng
from ..runtime.run import Batched
from .bernoulli import Bernoulli
from .gaussian import Gaussian, Process, disturbed
from .schedule import Schedule
from .variational_bound import bound

Predicts = Literal["noise", "clean", "v", "flip"]
"""v is Salimans and Ho's; flip, of a Bernoulli process, is the logit of x_l being unlike x_0."""


class Mismatch(ValueError):
    """Weights were trained for another schedule, prediction type, range or noise."""


class Estimate(NamedTuple):
    """noise, clean: (N, C, *S), one implies the other; spread: what a network that has learned
    its variance says of it, about -1 (the posterior's) to 1 (the forward step's)."""

    noise: Tensor
    clean: Tensor
    spread: Tensor | None = None


class Denoiser(Batched):
    """net: (x (N, C, *S), timesteps (N,), *given) -> its prediction; it is called with
    t = level - 1, as the papers' arrays count, and with what else it is given of every sample.

    clip: the range x_0 is known to lie in; estimates are clamped to it at inference
    rederive: whether the noise is then what the clamped x_0 implies, or stays as the network said
    about: what else the weights were trained for (the noise); travels in the state dict with
        schedule and prediction type, and a mismatch refuses to load
    process: how samples are disturbed, made from the schedule
    learned: the network has 2 C channels out, the second C are the variance (`Estimate.spread`)
    batch: rows in every network call at inference
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        *,
        predicts: Predicts = "noise",
        clip: tuple[float, float] | None = None,
        rederive: bool = True,
        about: str = "",
        process: Callable[[Schedule], Process] = Gaussian,
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.process = net, process(schedule)
        self.predicts: Predicts = predicts
        self.clip, self.about, self.learned = clip, about, learned
        self.rederive = rederive
        self.evaluations = 0
        known = _known(self.process)
        if predicts not in known or (learned and not isinstance(self.process, Gaussian)):
            what = f"{predicts}{' and variance' if learned else ''}"
            raise ValueError(
                f"a {self.process.name} process knows no {what}; it has {', '.join(known)}"
            )

    @property
    def schedule(self) -> Schedule:
        return self.process.schedule

    def forward(self, x: Tensor, level: Tensor, *given: Tensor) -> Tensor:
        """The estimate of x_0, (N, C, *S), clipped; level is (N,), at least 1."""
        return self.estimate(x, level, *given).clean

    def estimate(self, x: Tensor, level: Tensor, *given: Tensor) -> Estimate:
        """What the noise was and what x_0; where that is clipped, the noise is re-derived from it,
        as ancestral sampling does, unless `rederive` is off, as diffusers' DDIM has it."""
        answer, spread = self.ask(x, level, *given), None
        if self.learned:
            answer, spread = answer.chunk(2, 1)
        noise, clean = self._read(x, answer, level)
        if self.clip is not None:
            clean = clean.clamp(*self.clip)
            noise = None if self.rederive else noise
        if noise is None:
            noise = self.process.noise(x, clean, level)
        return Estimate(noise, clean, spread)

    def ask(self, x: Tensor, level: Tensor, *given: Tensor) -> Tensor:
        """The network's own prediction, (N, C, *S) in x's precision."""
        if self.training:
            return self._net(x, level, *given)
        self.evaluations += len(x)
        return in_batches(self._net, self.batch, x, level, *given)

    def loss(
        self,
        x: Tensor,
        rng: Rng,
        *,
        noise: Noise | None = None,
        region: Tensor | None = None,
        counts: Literal["region", "everywhere"] = "region",
        power: Literal[1, 2] = 2,
        max_level: int | None = None,
        given: Sequence[Tensor] = (),
        start: Tensor | None = None,
    ) -> Tensor:
        """Mean |error| ** power of the prediction at a level uniform on 1..max_level, (N,); of
        flips the cross-entropy in bits; where the variance is learned, the bound on the likelihood
        beside it (Nichol & Dhariwal 2021, equation 16, weight 1).

        max_level: on the 1000-step scale, all if None. noise: the process's own if None.
        region: (N, 1, *S) bool; only there is x disturbed. counts: where error counts; the mean is
        over all of S either way. given: what the network is told besides, per sample. start: what
        is disturbed in place of x, which stays what is sought: for inputs corrupted beforehand.
        """
        highest = self.schedule.level(1000 if max_level is None else max_level)
        level = 1 + rng.fork("level").integers(highest)
        eps = (noise or self.process.fresh)(rng.fork("noise"), x.shape[1:], level)
        x_l = disturbed(self.process, x if start is None else start, level, eps, region)
        answer, spread = self.ask(x_l, level, *given), None
        if self.learned:
            answer, spread = answer.chunk(2, 1)
        error = self._error(answer, x, x_l, eps, level, power)
        if spread is not None and isinstance(self.process, Gaussian):
            guess = self._read(x_l, answer.detach(), level)[1]
            error = error + bound(self.process, x, guess, spread, x_l, level)
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
        if not isinstance(self.process, Gaussian):
            facts["process"] = self.process.name
        if self.learned:
            facts["learned"] = True
        return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        theirs, ours = bytes(state.tolist()), bytes(self.get_extra_state().tolist())
        if theirs != ours:
            raise Mismatch(
                f"these weights were trained as {theirs.decode()}, not as {ours.decode()}"
            )

    def _read(self, x: Tensor, answer: Tensor, level: Tensor) -> tuple[Tensor | None, Tensor]:
        """The noise, if that is what the network speaks of, and x_0."""
        if self.predicts == "v" and isinstance(self.process, Gaussian):
            return None, self.process.unwound(x, answer, level)
        if self.predicts == "clean":
            return None, answer
        if self.predicts == "flip":  # in float64: a sigmoid's last digit depends on its neighbours
            answer = answer.double().sigmoid().to(x.dtype)
        return answer, self.process.clean(x, answer, level)

    def _error(
        self, answer: Tensor, x: Tensor, x_l: Tensor, eps: Tensor, level: Tensor, power: int
    ) -> Tensor:
        if self.predicts == "flip":
            flips = self.process.noise(x_l, x, level)
            return binary_cross_entropy_with_logits(answer, flips, reduction="none") / math.log(2)
        sought = eps if self.predicts == "noise" else x
        if self.predicts == "v" and isinstance(self.process, Gaussian):
            sought = self.process.velocity(x, eps, level)
        return (answer - sought).abs() ** power

    def _net(self, x: Tensor, level: Tensor, *given: Tensor) -> Tensor:
        inner = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        return self.net(inner, (level - 1).clamp(min=0), *given).to(x.dtype)


def _known(process: Process) -> tuple[str, ...]:
    """What a network may predict of it."""
    if isinstance(process, Gaussian):
        return "noise", "clean", "v"
    return ("flip",) if isinstance(process, Bernoulli) else ("clean",)
