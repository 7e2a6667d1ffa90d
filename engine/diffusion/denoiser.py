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
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.rng import Rng
from ..runtime.run import BatchedModule
from .bernoulli import Bernoulli
from .gaussian import Gaussian, Process, add_noise_in_region
from .schedule import Schedule
from .variational_bound import variational_bound

PredictionType = Literal["noise", "clean", "v", "flip"]
"""v is Salimans and Ho's; flip, of a Bernoulli process, is the logit of x_l being unlike x_0."""


class Mismatch(ValueError):
    """Weights were trained for another schedule, prediction type, range or noise."""


class Estimate(NamedTuple):
    """noise, clean: (N, C, *S), one implies the other; learned_variance: what a network that has
    learned
    its variance says of it, about -1 (the posterior's) to 1 (the forward step's)."""

    noise: Tensor
    clean: Tensor
    learned_variance: Tensor | None = None


class Denoiser(BatchedModule):
    """net: (x (N, C, *S), timesteps (N,), *given) -> its prediction; it is called with
    t = level - 1, as the papers' arrays count, and with what else it is given of every sample.

    clip: the range x_0 is known to lie in; estimates are clamped to it at inference
    rederive_noise: whether the noise is then what the clamped x_0 implies, or stays as the network
    said
    trained_on: what else the weights were trained for (the noise); travels in the state dict with
        schedule and prediction type, and a mismatch refuses to load
    process: how samples are disturbed, made from the schedule
    learns_variance: the network has 2 C channels out, the second C are the variance
    (`Estimate.spread`)
    batch: rows in every network call at inference
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        *,
        prediction_type: PredictionType = "noise",
        clip: tuple[float, float] | None = None,
        rederive_noise: bool = True,
        trained_on: str = "",
        process: Callable[[Schedule], Process] = Gaussian,
        learns_variance: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.process = net, process(schedule)
        self.prediction_type: PredictionType = prediction_type
        self.clip, self.trained_on, self.learns_variance = clip, trained_on, learns_variance
        self.rederive_noise = rederive_noise
        self.evaluations = 0
        known = _prediction_types(self.process)
        if prediction_type not in known or (
            learns_variance and not isinstance(self.process, Gaussian)
        ):
            what = f"{prediction_type}{' and variance' if learns_variance else ''}"
            raise ValueError(
                f"a {self.process.name} process knows no {what}; it has {', '.join(known)}"
            )

    @property
    def schedule(self) -> Schedule:
        return self.process.schedule

    def forward(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Tensor:
        """The estimate of x_0, (N, C, *S), clipped; level is (N,), at least 1."""
        return self.estimate(x, level, *conditioning).clean

    def estimate(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Estimate:
        """What the noise was and what x_0; where that is clipped, the noise is re-derived from it,
        as ancestral sampling does, unless `rederive` is off, as diffusers' DDIM has it."""
        answer, spread = self.predict(x, level, *conditioning), None
        if self.learns_variance:
            answer, spread = answer.chunk(2, 1)
        noise, clean = self._noise_and_x0(x, answer, level)
        if self.clip is not None:
            clean = clean.clamp(*self.clip)
            noise = None if self.rederive_noise else noise
        if noise is None:
            noise = self.process.noise_from_x0(x, clean, level)
        return Estimate(noise, clean, spread)

    def predict(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Tensor:
        """The network's own prediction, (N, C, *S) in x's precision."""
        if self.training:
            return self._call_network(x, level, *conditioning)
        self.evaluations += len(x)
        return apply_in_batches(self._call_network, self.batch, x, level, *conditioning)

    def loss(
        self,
        x: Tensor,
        rng: Rng,
        *,
        noise: Noise | None = None,
        region: Tensor | None = None,
        error_region: Literal["region", "everywhere"] = "region",
        power: Literal[1, 2] = 2,
        max_level: int | None = None,
        conditioning: Sequence[Tensor] = (),
        corrupted: Tensor | None = None,
    ) -> Tensor:
        """Mean |error| ** power of the prediction at a level uniform on 1..max_level, (N,); of
        flips the cross-entropy in bits; where the variance is learned, the bound on the likelihood
        beside it (Nichol & Dhariwal 2021, equation 16, weight 1).

        max_level: on the 1000-step scale, all if None. noise: the process's own if None.
        region: (N, 1, *S) bool; only there is x disturbed. error_region: where error counts; the
        mean is
        over all of S either way. conditioning: what the network is told besides, per sample.
        corrupted: what
        is disturbed in place of x, which stays what is sought: for inputs corrupted beforehand.
        """
        highest = self.schedule.to_level(1000 if max_level is None else max_level)
        level = 1 + rng.fork("level").integers(highest)
        eps = (noise or self.process.default_noise)(rng.fork("noise"), x.shape[1:], level)
        x_l = add_noise_in_region(
            self.process, x if corrupted is None else corrupted, level, eps, region
        )
        answer, spread = self.predict(x_l, level, *conditioning), None
        if self.learns_variance:
            answer, spread = answer.chunk(2, 1)
        error = self._prediction_error(answer, x, x_l, eps, level, power)
        if spread is not None and isinstance(self.process, Gaussian):
            guess = self._noise_and_x0(x_l, answer.detach(), level)[1]
            error = error + variational_bound(self.process, x, guess, spread, x_l, level)
        if region is not None and error_region == "region":
            error = error * region
        return error.flatten(1).mean(1)

    def get_extra_state(self) -> Tensor:
        facts = {
            "schedule": self.schedule.name,
            "predicts": self.prediction_type,
            "clip": self.clip,
            "about": self.trained_on,
        }
        if not isinstance(self.process, Gaussian):
            facts["process"] = self.process.name
        if self.learns_variance:
            facts["learned"] = True
        return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        theirs, ours = bytes(state.tolist()), bytes(self.get_extra_state().tolist())
        if theirs != ours:
            raise Mismatch(
                f"these weights were trained as {theirs.decode()}, not as {ours.decode()}"
            )

    def _noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """The noise, if that is what the network speaks of, and x_0."""
        if self.prediction_type == "v" and isinstance(self.process, Gaussian):
            return None, self.process.x0_from_velocity(x, prediction, level)
        if self.prediction_type == "clean":
            return None, prediction
        if (
            self.prediction_type == "flip"
        ):  # in float64: a sigmoid's last digit depends on its neighbours
            prediction = prediction.double().sigmoid().to(x.dtype)
        return prediction, self.process.x0_from_noise(x, prediction, level)

    def _prediction_error(
        self, prediction: Tensor, x: Tensor, x_l: Tensor, eps: Tensor, level: Tensor, power: int
    ) -> Tensor:
        if self.prediction_type == "flip":
            flips = self.process.noise_from_x0(x_l, x, level)
            return binary_cross_entropy_with_logits(prediction, flips, reduction="none") / math.log(
                2
            )
        sought = eps if self.prediction_type == "noise" else x
        if self.prediction_type == "v" and isinstance(self.process, Gaussian):
            sought = self.process.velocity(x, eps, level)
        return (prediction - sought).abs() ** power

    def _call_network(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Tensor:
        inner = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        return self.net(inner, (level - 1).clamp(min=0), *conditioning).to(x.dtype)


def _prediction_types(process: Process) -> tuple[str, ...]:
    """What a network may predict of it."""
    if isinstance(process, Gaussian):
        return "noise", "clean", "v"
    return ("flip",) if isinstance(process, Bernoulli) else ("clean",)
